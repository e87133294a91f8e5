"""The Python API: runs studies, and shows their reports as tables and figures in scripts and notebooks.

Its public names are attributes of `hirise_imb`. This package imports none of its modules, so that importing it is fast.
"""
