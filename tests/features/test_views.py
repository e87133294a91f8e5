"""Views of an image: against Pillow's own transpositions, as a group, and what photometric normalisation promises."""

from collections.abc import Mapping

import numpy as np
import pytest
from builders import quick
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from hirise_imb.data.hirise import HIRISE, VARIANTS
from hirise_imb.features.views import DEVIATION, DIHEDRAL, JITTERED, MEAN, VIEWS, photometric

PIXELS = arrays(np.uint8, st.tuples(st.integers(1, 9), st.sampled_from([1, 3])).map(lambda s: (s[0], s[0], s[1])))
PILLOW = {
    "r90": Image.Transpose.ROTATE_270,  # Pillow turns counter-clockwise
    "r180": Image.Transpose.ROTATE_180,
    "r270": Image.Transpose.ROTATE_90,
    "fh": Image.Transpose.FLIP_LEFT_RIGHT,
    "fv": Image.Transpose.FLIP_TOP_BOTTOM,
    "t": Image.Transpose.TRANSPOSE,
    "at": Image.Transpose.TRANSVERSE,
}
Array = np.ndarray


def grey(seed: int, low: int = 0, high: int = 256) -> Array:
    return np.random.default_rng(seed).integers(low, high, HIRISE.image_shape, np.uint8)


def colour(seed: int, low: int = 0, high: int = 256) -> Array:
    return np.random.default_rng(seed).integers(low, high, (64, 64, 3), np.uint8)


def test_every_view_has_a_name() -> None:
    assert list(DIHEDRAL) == ["plain", *PILLOW]
    assert set(VIEWS) == {*DIHEDRAL, *JITTERED, "photometric"}
    assert isinstance(VIEWS, Mapping)
    assert set(VARIANTS) - {"brt"} < set(DIHEDRAL)  # the geometric variants of the data set mean the same


@pytest.mark.parametrize("view", PILLOW)
def test_symmetries_are_those_of_pillow(view: str) -> None:
    image = grey(0)
    found = VIEWS[view](image)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[..., 0], np.asarray(Image.fromarray(image[..., 0]).transpose(PILLOW[view])))


@pytest.mark.parametrize("view", PILLOW)
def test_symmetries_of_colour_images_are_those_of_pillow_too(view: str) -> None:
    image = colour(0)
    found = VIEWS[view](image)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.asarray(Image.fromarray(image).transpose(PILLOW[view])))


def test_clockwise_is_clockwise() -> None:
    image = np.array([[1, 2], [3, 4]], np.uint8)[..., np.newaxis]
    expected = {
        "plain": [[1, 2], [3, 4]],
        "r90": [[3, 1], [4, 2]],
        "r180": [[4, 3], [2, 1]],
        "r270": [[2, 4], [1, 3]],
        "fh": [[2, 1], [4, 3]],
        "fv": [[3, 4], [1, 2]],
        "t": [[1, 3], [2, 4]],
        "at": [[4, 2], [3, 1]],
    }
    assert {view: VIEWS[view](image)[..., 0].tolist() for view in DIHEDRAL} == expected


def after(image: Array, *views: str) -> Array:
    for view in views:
        image = VIEWS[view](image)
    return image


@quick
@given(PIXELS)
def test_symmetries_are_a_group(image: Array) -> None:
    for view in ("fh", "fv", "t", "at", "r180"):
        np.testing.assert_array_equal(after(image, view, view), image)
    np.testing.assert_array_equal(after(image, *["r90"] * 4), image)
    np.testing.assert_array_equal(after(image, "r90", "r270"), image)
    np.testing.assert_array_equal(after(image, "fh", "fv"), after(image, "r180"))
    np.testing.assert_array_equal(after(image, "t", "fh"), after(image, "r90"))
    np.testing.assert_array_equal(after(image, "at", "fh"), after(image, "r270"))


def test_a_product_of_two_is_a_third() -> None:
    image = grey(1)
    eight = {after(image, view).tobytes() for view in DIHEDRAL}
    assert len(eight) == 8
    for one in DIHEDRAL:
        assert {after(image, one, other).tobytes() for other in DIHEDRAL} == eight


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_the_image_itself_is_left_alone(view: str) -> None:
    image = grey(2)
    before = image.copy()
    VIEWS[view](image)
    np.testing.assert_array_equal(image, before)


# --- photometric ---


@quick
@given(st.integers(0, 1000), st.integers(0, 226))
def test_pixels_that_are_not_black_get_the_same_mean_and_deviation(seed: int, border: int) -> None:
    image = grey(seed, 1)  # uniform: within 1.8 deviations of its mean, so nothing is clipped
    image[:border] = 0
    found = photometric(image)
    assert found.dtype == np.float32
    assert found.shape == image.shape
    assert (found[:border] == 0).all()
    there = found[border:].astype(float)
    assert there.mean() == pytest.approx(MEAN, abs=1e-3)
    assert there.std() == pytest.approx(DEVIATION, abs=1e-3)


def test_it_is_the_formula_then_clipped() -> None:
    image = grey(3, 90, 110)
    image[0, :40], image[1, :30] = 255, 1  # beyond what 0..255 can show
    image[2, :] = 0
    values = image[image > 0].astype(float)
    raw = MEAN + DEVIATION * (values - values.mean()) / values.std()
    assert raw.max() > 255
    assert raw.min() < 0
    np.testing.assert_allclose(photometric(image)[image > 0], np.clip(raw, 0, 255), rtol=1e-5, atol=1e-4)
    assert (photometric(image)[2] == 0).all()


@quick
@given(st.integers(0, 1000), st.integers(1, 3), st.integers(0, 60), st.booleans())
def test_brightness_and_contrast_are_forgotten(seed: int, gain: int, shift: int, border: bool) -> None:
    image = grey(seed, 1, 60)
    changed = (gain * image.astype(int) + shift).astype(np.uint8)
    if border:
        image[:50], changed[:50] = 0, 0
    np.testing.assert_allclose(photometric(changed), photometric(image), atol=1e-3)


@quick
@given(PIXELS)
def test_every_image_gives_grey_values_and_black_stays_black(image: Array) -> None:
    found = photometric(image)
    assert found.shape == image.shape
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 255
    ground = image.any(axis=-1)
    assert (found[~ground] == 0).all()
    # The order of values is kept, so no structure turns around.
    order = np.argsort(image[ground], axis=None, kind="stable")
    assert (np.diff(found[ground].ravel()[order]) >= 0).all()


@pytest.mark.parametrize("value", [1, 77, 255])
def test_an_image_without_contrast_becomes_the_mean(value: int) -> None:
    image = np.full((5, 5, 1), value, np.uint8)
    image[2] = 0
    assert (photometric(image) == np.where(image > 0, MEAN, 0)).all()


def test_an_all_black_image_stays_so() -> None:
    assert (photometric(np.zeros((5, 5, 1), np.uint8)) == 0).all()


def test_channels_share_one_mean_and_one_deviation() -> None:
    image = colour(4, 60, 120)
    image[..., 0] += 40  # a reddish image stays reddish
    image[:10] = 0
    found = photometric(image).astype(float)
    values = image[10:].astype(float)
    np.testing.assert_allclose(found[10:], MEAN + DEVIATION * (values - values.mean()) / values.std(), atol=1e-3)
    assert (found[:10] == 0).all()
    assert found[10:, :, 0].mean() > found[10:, :, 1].mean() + 10


def test_a_colour_with_an_empty_channel_is_not_black() -> None:
    image = colour(5, 50, 60)
    image[..., 2] = 0
    found = photometric(image).astype(float)
    assert found.mean() == pytest.approx(MEAN, abs=1e-3)
    assert found.std() == pytest.approx(DEVIATION, abs=1e-3)


# --- jitter ---


def change(view: str, ground: Array) -> Array:
    """The values that pixels of the ground have in a jittered view, before they are clipped."""
    mean = ground.sum() / ground.size
    changed = {
        "brighter": ground * 1.25,
        "darker": ground * 0.8,
        "more_contrast": 1.4 * ground - 0.4 * mean,
        "less_contrast": 0.7 * ground + 0.3 * mean,
    }
    return np.asarray(changed[view])


@pytest.mark.parametrize("image", [grey(6), colour(7)], ids=["grey", "colour"])
@pytest.mark.parametrize("view", JITTERED)
def test_jitter_is_the_formula_on_pixels_that_are_not_black(view: str, image: Array) -> None:
    image = image.copy()
    image[:20], image[:, -9:] = 0, 0
    if image.shape[-1] == 3:
        image[40:, 30:, 2] = 0  # a colour with an empty channel is not black
    ground = image.any(axis=-1)
    raw = change(view, image[ground].astype(float))
    found = VIEWS[view](image)
    assert found.dtype == np.float32
    assert found.shape == image.shape
    np.testing.assert_allclose(found[ground], np.clip(raw, 0, 255), rtol=1e-6, atol=1e-4)
    assert (found[~ground] == 0).all()
    assert np.abs(found[ground] - image[ground]).mean() > 10
    assert (raw.max() > 255) == (view in ("brighter", "more_contrast"))


@pytest.mark.parametrize("view", JITTERED)
def test_jitter_leaves_an_all_black_image_alone(view: str) -> None:
    assert (VIEWS[view](np.zeros((5, 5, 1), np.uint8)) == 0).all()


@quick
@given(PIXELS)
def test_jitter_keeps_to_the_range_of_pixels(image: Array) -> None:
    for view in JITTERED:
        found = VIEWS[view](image)
        assert np.isfinite(found).all()
        assert found.min() >= 0
        assert found.max() <= 255


def test_names_of_jitter_say_what_changes() -> None:
    image = grey(8, 60, 120)
    mean, deviation = image.mean(), image.std()
    found = {view: VIEWS[view](image) for view in JITTERED}
    assert found["darker"].mean() < mean - 10 < mean + 10 < found["brighter"].mean()
    assert found["less_contrast"].std() < deviation - 3 < deviation + 3 < found["more_contrast"].std()
    for view in ("less_contrast", "more_contrast"):
        assert found[view].mean() == pytest.approx(mean, abs=1e-3)
