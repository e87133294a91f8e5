"""The embedded sample: landmarks drawn from scratch in the layout of the official archive.

A landmark is a height field, shaded by the sun of its source, and an albedo. Sources differ in brightness, contrast,
texture, sun and noise, and a rare class lives in few of them, as in the real data. No real pixel is used.
"""

from hirise_imb.data.synthetic.sample import VERSION, draw_originals, write

__all__ = ["VERSION", "draw_originals", "write"]
