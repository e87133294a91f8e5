"""The feature cache: right numbers, each computed once, whatever happened to the files in between."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cut_features import extract_at
from PIL import Image
from worlds import TOY

from hirise_imb.backbones import TOP, Backbone
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.images import decode_image
from hirise_imb.features import extraction
from hirise_imb.features.arrays import Features, concatenate_features
from hirise_imb.features.cache import read_cached_features
from hirise_imb.features.extraction import image_digests
from hirise_imb.features.inputs import TOP_MEAN
from hirise_imb.features.views import VIEWS
from hirise_imb.utils.errors import UserError

CUTS = (TOP, "late", "early")
COUNT = 70  # two whole passes of 32 and a part of one


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Grey images, all different."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(1)
    made = []
    for number in range(COUNT):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).resize((227, 227))
        coarse.save(path := folder / f"{number:03}.jpg", "JPEG", quality=92)
        made.append(path)
    return made


@pytest.fixture(scope="module")
def undisturbed(
    backbone: Backbone, paths: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Features], Path]:
    """Features of all images, extracted in one go, and their cache. Not to be changed."""
    cache = tmp_path_factory.mktemp("undisturbed")
    return extract_at(backbone, CUTS, paths, cache), cache


@pytest.fixture
def filled(undisturbed: tuple[dict[str, Features], Path], tmp_path: Path) -> Path:
    """A copy of that cache."""
    return Path(shutil.copytree(undisturbed[1], tmp_path / "filled"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image was decoded, by file name."""
    counts: Counter[str] = Counter()

    def counting(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
        counts[path.name] += 1
        return decode_image(path, shape)

    monkeypatch.setattr(extraction, "decode_image", counting)
    return counts


def grey(paths: list[Path]) -> np.ndarray:
    """Pixels as Pillow gives them, shape (n, 227, 227, 1)."""
    return np.stack([np.asarray(Image.open(path)) for path in paths]).astype(np.float32)[..., np.newaxis]


def values(found: Features) -> np.ndarray:
    return found.take(np.arange(len(found)))


def assert_same(found: dict[str, Features], expected: dict[str, Features]) -> None:
    assert found.keys() == expected.keys()
    for cut in expected:
        assert found[cut].stored.dtype == expected[cut].stored.dtype
        assert values(found[cut]).tobytes() == values(expected[cut]).tobytes(), cut


def store_of(cache: Path, cut: str) -> Path:
    [folder] = (cache / "features").glob(f"toy-{cut}-*")
    return folder


# --- the numbers ---


@pytest.mark.parametrize("cut", CUTS)
def test_they_are_what_the_network_gives(
    cut: str, backbone: Backbone, paths: list[Path], undisturbed: tuple[dict[str, Features], Path]
) -> None:
    found = undisturbed[0][cut]
    expected = np.asarray(backbone.trunk(cut)(grey(paths), training=False))
    assert found.stored.dtype == (np.float32 if cut == TOP else np.float16)
    assert found.shape == expected.shape[1:]
    assert expected.std() > 0.1  # else anything would agree
    np.testing.assert_allclose(values(found), expected, rtol=1e-5 if cut == TOP else 1e-3, atol=1e-5)


def test_the_top_is_the_mean_of_the_last_map(
    backbone: Backbone, paths: list[Path], undisturbed: tuple[dict[str, Features], Path]
) -> None:
    last = np.asarray(backbone.network(grey(paths), training=False))
    np.testing.assert_allclose(values(undisturbed[0][TOP]), last.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_they_are_mapped_from_disk(undisturbed: tuple[dict[str, Features], Path]) -> None:
    for found in undisturbed[0].values():
        assert isinstance(found.stored, np.memmap)
        assert not found.stored.flags.writeable
        assert type(found.take(np.array([3, 1]))) in (np.ndarray, np.memmap)
        assert found.take(np.array([3, 1])).dtype == np.float32


def test_an_image_does_not_depend_on_its_neighbours(
    backbone: Backbone, paths: list[Path], undisturbed: tuple[dict[str, Features], Path], tmp_path: Path
) -> None:
    backwards = extract_at(backbone, CUTS, paths[::-1], tmp_path)
    alone = extract_at(backbone, CUTS, [paths[50]], tmp_path / "alone")
    for cut in CUTS:
        expected = values(undisturbed[0][cut])
        assert values(backwards[cut])[::-1].tobytes() == expected.tobytes()
        assert values(alone[cut]).tobytes() == expected[[50]].tobytes()


def test_a_selection_names_the_same_images(undisturbed: tuple[dict[str, Features], Path]) -> None:
    found = undisturbed[0][TOP]
    selected = found.select(np.array([9, 4, 4]))
    assert len(selected) == 3
    assert selected.stored is found.stored
    assert selected.take(np.array([2, 0])).tobytes() == values(found)[[4, 9]].tobytes()


# --- each image once ---


def test_the_second_time_nothing_is_decoded(
    backbone: Backbone, paths: list[Path], decoded: Counter[str], tmp_path: Path
) -> None:
    first = extract_at(backbone, CUTS, paths, tmp_path)
    assert decoded == Counter(path.name for path in paths)  # once, for all cuts
    assert_same(extract_at(backbone, CUTS, paths, tmp_path), first)
    assert decoded.total() == COUNT


def test_images_with_the_same_content_are_decoded_once(
    backbone: Backbone, paths: list[Path], decoded: Counter[str], tmp_path: Path
) -> None:
    twin = Path(shutil.copy(paths[2], tmp_path / "twin.jpg"))
    found = extract_at(backbone, [TOP], [paths[2], paths[0], twin, paths[2]], tmp_path / "cache")[TOP]
    assert decoded.total() == 2
    assert len(found) == 4
    got = values(found)
    assert got[0].tobytes() == got[2].tobytes() == got[3].tobytes() != got[1].tobytes()


def test_a_subset_in_another_order_reads_the_right_rows(
    backbone: Backbone,
    paths: list[Path],
    undisturbed: tuple[dict[str, Features], Path],
    filled: Path,
    decoded: Counter[str],
) -> None:
    wanted = [41, 7, 69, 0, 33]
    found = extract_at(backbone, CUTS, [paths[k] for k in wanted], filled)
    for cut in CUTS:
        assert values(found[cut]).tobytes() == values(undisturbed[0][cut])[wanted].tobytes()
    assert not decoded


def test_only_new_images_are_decoded(
    backbone: Backbone, paths: list[Path], decoded: Counter[str], tmp_path: Path
) -> None:
    extract_at(backbone, [TOP], paths[:10], tmp_path)
    decoded.clear()
    extract_at(backbone, [TOP], paths[5:15], tmp_path)
    assert sorted(decoded) == [path.name for path in paths[10:15]]


def test_names_and_folders_do_not_matter(
    backbone: Backbone,
    paths: list[Path],
    undisturbed: tuple[dict[str, Features], Path],
    filled: Path,
    decoded: Counter[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = [Path(shutil.copy(path, tmp_path / "elsewhere" / f"x-{path.name}")) for path in paths]
    assert_same(extract_at(backbone, CUTS, moved, filled), undisturbed[0])
    assert not decoded


def test_a_changed_image_is_computed_again_under_its_old_name(
    backbone: Backbone, paths: list[Path], tmp_path: Path
) -> None:
    path = Path(shutil.copy(paths[0], tmp_path / "a.jpg"))
    before = values(extract_at(backbone, [TOP], [path], tmp_path / "cache")[TOP])
    shutil.copy(paths[1], path)
    assert values(extract_at(backbone, [TOP], [path], tmp_path / "cache")[TOP]).tobytes() != before.tobytes()


@pytest.mark.parametrize(
    "other",
    [
        lambda: TOY.load("imagenet", HIRISE.image_shape),
        lambda: dataclasses.replace(TOY, preprocessing="x / 255").load("random", HIRISE.image_shape),
        lambda: dataclasses.replace(TOY, name="toy2").load("random", HIRISE.image_shape),
    ],
    ids=["weights", "preprocessing", "name"],
)
def test_another_backbone_shares_nothing(
    other: Callable[[], Backbone], paths: list[Path], filled: Path, decoded: Counter[str]
) -> None:
    network = other()
    found = extract_at(network, [TOP], paths[:4], filled)[TOP]
    assert decoded.total() == 4
    np.testing.assert_allclose(values(found), np.asarray(network.trunk(TOP)(grey(paths[:4]))), rtol=1e-5, atol=1e-5)


def test_another_cut_is_computed_for_itself(
    backbone: Backbone, paths: list[Path], decoded: Counter[str], tmp_path: Path
) -> None:
    extract_at(backbone, [TOP], paths[:4], tmp_path)
    found = extract_at(backbone, [TOP, "early"], paths[:4], tmp_path)
    assert decoded.total() == 8
    assert len(found[TOP].stored) == len(found["early"].stored) == 4  # the rows that were there are not added again


# --- interruptions and damage ---


def test_an_interrupted_extraction_continues(
    backbone: Backbone,
    paths: list[Path],
    undisturbed: tuple[dict[str, Features], Path],
    decoded: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def stops(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
        if path == paths[45]:
            raise KeyboardInterrupt
        return decode_image(path, shape)

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "decode_image", stops)
        with pytest.raises(KeyboardInterrupt):
            extract_at(backbone, CUTS, paths, tmp_path)
    decoded.clear()
    assert_same(extract_at(backbone, CUTS, paths, tmp_path), undisturbed[0])
    assert sorted(decoded) == [path.name for path in paths[32:]]  # the first pass was kept
    for cut in CUTS:
        for name in ("rows.bin", "index.bin"):
            assert (store_of(tmp_path, cut) / name).read_bytes() == (store_of(undisturbed[1], cut) / name).read_bytes()


def test_a_cut_that_is_ahead_of_the_others_gets_no_row_twice(
    backbone: Backbone, paths: list[Path], undisturbed: tuple[dict[str, Features], Path], filled: Path
) -> None:
    # A kill between two stores of one pass: the first has its rows, the others don't.
    for cut in CUTS[1:]:
        shutil.rmtree(store_of(filled, cut))
    found = extract_at(backbone, CUTS, paths, filled)
    assert_same(found, undisturbed[0])
    assert {len(found[cut].stored) for cut in CUTS} == {COUNT}


@pytest.mark.parametrize("torn", ["rows.bin", "index.bin", "both"])
def test_a_torn_tail_is_dropped(
    torn: str,
    backbone: Backbone,
    paths: list[Path],
    undisturbed: tuple[dict[str, Features], Path],
    filled: Path,
    decoded: Counter[str],
) -> None:
    folder = store_of(filled, TOP)
    for name in ("rows.bin", "index.bin") if torn == "both" else (torn,):
        with (folder / name).open("ab") as file:
            file.write(b"\x07" * 37)  # less than a record or a row
    assert_same(extract_at(backbone, CUTS, paths, filled), undisturbed[0])
    assert not decoded
    for name in ("rows.bin", "index.bin"):
        assert (folder / name).read_bytes() == (store_of(undisturbed[1], TOP) / name).read_bytes()


def test_a_row_without_its_record_is_computed_again(
    backbone: Backbone,
    paths: list[Path],
    undisturbed: tuple[dict[str, Features], Path],
    filled: Path,
    decoded: Counter[str],
) -> None:
    index = store_of(filled, TOP) / "index.bin"
    record = 64 + 4
    index.write_bytes(index.read_bytes()[: -record - 20])  # the last record, and a part of the one before
    assert_same(extract_at(backbone, CUTS, paths, filled), undisturbed[0])
    assert sorted(decoded) == [path.name for path in paths[-2:]]


@pytest.mark.parametrize("harm", ["flipped", "short", "missing"])
def test_damaged_rows_are_computed_again_and_it_is_said(
    harm: str,
    backbone: Backbone,
    paths: list[Path],
    undisturbed: tuple[dict[str, Features], Path],
    filled: Path,
    decoded: Counter[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = store_of(filled, TOP) / "rows.bin"
    data = bytearray(rows.read_bytes())
    data[len(data) // 2] ^= 0x10
    if harm == "missing":
        rows.unlink()
    else:
        rows.write_bytes(data if harm == "flipped" else data[:-1000])
    with caplog.at_level(logging.INFO, "hirise_imb"):
        assert_same(extract_at(backbone, CUTS, paths, filled), undisturbed[0])
    assert f"{rows.parent} are damaged; they are computed again" in caplog.text
    assert caplog.text.count(" are damaged;") == 1  # the other cuts are whole
    assert decoded.total() == COUNT


@pytest.mark.parametrize("flip", [0x01, 0xFF])
def test_a_damaged_index_gives_no_wrong_row(
    flip: int,
    backbone: Backbone,
    paths: list[Path],
    undisturbed: tuple[dict[str, Features], Path],
    filled: Path,
) -> None:
    index = store_of(filled, TOP) / "index.bin"
    data = bytearray(index.read_bytes())
    data[3 * 68 + 10] ^= flip  # in a digest
    index.write_bytes(data)
    assert_same(extract_at(backbone, CUTS, paths, filled), undisturbed[0])


def test_each_record_is_a_digest_and_the_checksum_of_it_and_its_row(
    paths: list[Path], undisturbed: tuple[dict[str, Features], Path]
) -> None:
    folder = store_of(undisturbed[1], TOP)
    rows, index = (folder / "rows.bin").read_bytes(), (folder / "index.bin").read_bytes()
    row = len(rows) // COUNT
    for number, digest in enumerate(extraction.image_digests(paths)):
        content = digest.encode() + rows[number * row : (number + 1) * row]
        expected = digest.encode() + struct.pack("<I", zlib.crc32(content))
        assert index[number * 68 : (number + 1) * 68] == expected


# --- what can't be done ---


def truncated(path: Path, whole: bytes) -> None:
    path.write_bytes(whole[: len(whole) // 2])


def gif(path: Path, _: bytes) -> None:
    Image.new("L", (227, 227)).save(path, "GIF")


def wrong_size(path: Path, _: bytes) -> None:
    Image.new("L", (227, 226)).save(path, "JPEG")


def colour(path: Path, _: bytes) -> None:
    Image.new("RGB", (227, 227)).save(path, "JPEG")


def absurd(path: Path, whole: bytes) -> None:
    frame = whole.index(b"\xff\xc0")  # start of frame: length, precision, height, width
    path.write_bytes(whole[: frame + 5] + struct.pack(">HH", 65000, 65000) + whole[frame + 9 :])


def empty(path: Path, _: bytes) -> None:
    path.write_bytes(b"")


def text(path: Path, _: bytes) -> None:
    path.write_text("no image")


@pytest.mark.parametrize("spoil", [truncated, gif, wrong_size, colour, absurd, empty, text])
def test_a_file_that_is_no_landmark_is_named(
    spoil: Callable[[Path, bytes], None], backbone: Backbone, paths: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad-one.jpg"
    spoil(bad, paths[0].read_bytes())
    with pytest.raises(UserError, match=r"bad-one\.jpg is .*: .*import the data again\.$"):
        extract_at(backbone, [TOP], [paths[1], bad], tmp_path / "cache")
    Image.open(paths[5]).save(bad, "JPEG")  # mended
    assert len(extract_at(backbone, [TOP], [paths[1], bad], tmp_path / "cache")[TOP]) == 2


def test_needs_room_on_the_disk(
    backbone: Backbone, paths: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    needed = 3 * (16 * 4 + 25 * 25 * 6 * 2) + (256 << 20)  # three images, float32 at the top, float16 below
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with pytest.raises(UserError, match=r"need 0\.0 GB under .*, where 0\.3 GB are free: free some, or set HIRISE_IMB"):
        extract_at(backbone, [TOP, "early"], paths[:3], tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed))
    extract_at(backbone, [TOP, "early"], paths[:3], tmp_path)


def test_features_that_are_cached_need_no_room(
    backbone: Backbone, paths: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    extract_at(backbone, ["early"], paths[:3], tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3 * 16 * 4 + (256 << 20)))
    assert len(extract_at(backbone, [TOP, "early"], paths[:3], tmp_path)[TOP]) == 3


def test_a_cache_that_is_full_enough_needs_no_room(
    backbone: Backbone, paths: list[Path], filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert len(extract_at(backbone, CUTS, paths, filled)[TOP]) == COUNT


def test_values_beyond_half_precision_are_not_stored(paths: list[Path], tmp_path: Path) -> None:
    large = TOY.load("random", HIRISE.image_shape)
    layer = large.network.get_layer("early")
    layer.set_weights([1e6 * weight for weight in layer.get_weights()])
    with np.errstate(over="ignore"), pytest.raises(UserError, match=r"map at early\) are not finite in float16: check"):
        extract_at(large, ["early"], paths[:2], tmp_path)
    assert (store_of(tmp_path, "early") / "rows.bin").stat().st_size == 0


# --- views ---


@pytest.mark.parametrize("view", ["r90", "photometric"])
def test_a_view_is_what_the_network_makes_of_changed_pixels(
    view: str, backbone: Backbone, paths: list[Path], filled: Path, decoded: Counter[str]
) -> None:
    found = extract_at(backbone, CUTS, paths[:40], filled, view=view)
    assert decoded.total() == 40  # the plain features are no help
    pixels = np.stack([VIEWS[view](image) for image in grey(paths[:40]).astype(np.uint8)])
    expected = np.asarray(backbone.trunk(TOP)(pixels.astype(np.float32), training=False))
    np.testing.assert_allclose(values(found[TOP]), expected, rtol=1e-5, atol=1e-5)
    assert_same(extract_at(backbone, CUTS, paths[:40], filled, view=view), found)
    assert decoded.total() == 40
    assert [*(filled / "features").glob(f"toy-{TOP}-{view}-*")]


def test_views_leave_plain_features_alone(
    backbone: Backbone,
    paths: list[Path],
    undisturbed: tuple[dict[str, Features], Path],
    filled: Path,
    decoded: Counter[str],
) -> None:
    extract_at(backbone, CUTS, paths[:3], filled, view="fv")
    decoded.clear()
    assert_same(extract_at(backbone, CUTS, paths, filled, view="plain"), undisturbed[0])
    assert not decoded


def test_plain_features_have_the_key_they_had_before_there_were_views(
    backbone: Backbone, undisturbed: tuple[dict[str, Features], Path]
) -> None:
    key = {"format": 1, "backbone": "toy", "weights": backbone.digest, "precision": "float32"}
    key |= {"preprocessing": "x / 127.5 - 1", "input": [227, 227, 1], "cut": "late", "dtype": "float16"}
    text = json.dumps(key, indent=1)
    folder = store_of(undisturbed[1], "late")
    assert (folder / "key.json").read_text() == f"{text}\n"
    assert folder.name == f"toy-late-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def test_cached_features_are_read_without_the_backbone(
    backbone: Backbone, paths: list[Path], undisturbed: tuple[dict[str, Features], Path], filled: Path
) -> None:
    digests = image_digests(paths)

    def read(weights: str = backbone.digest[:16], images: Sequence[str] = digests) -> Features | None:
        return read_cached_features(filled, backbone.card, weights, "float32", (227, 227, 1), TOP_MEAN, images)

    features = read()
    assert features is not None
    every = np.arange(len(paths))
    np.testing.assert_array_equal(features.take(every), undisturbed[0][TOP].take(every))
    other = ("0" if backbone.digest[0] != "0" else "1") * 16
    assert read(weights=other) is None
    assert read(images=[*digests, "0" * 64]) is None
    assert read_cached_features(filled, backbone.card, "", "bfloat16", (227, 227, 1), TOP_MEAN, digests) is None
    # An edited file names no features.
    key = store_of(filled, TOP) / "key.json"
    key.write_text(key.read_text().replace(backbone.digest, "f" * 64))
    assert read() is None
    assert read(weights="f" * 16) is None
    assert read_cached_features(filled / "none", backbone.card, "", "float32", (227, 227, 1), TOP_MEAN, []) is None


def test_an_unknown_view_is_refused(backbone: Backbone, paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^view must be one of plain, .*photometric, got 'r45'$"):
        extract_at(backbone, [TOP], paths[:1], tmp_path, view="r45")


def test_features_side_by_side() -> None:
    one, other = np.arange(12.0).reshape(4, 3), np.arange(8, dtype=np.float32).reshape(4, 2)
    whole = concatenate_features(
        [Features.of(one).select(np.array([2, 0])), Features.of(other).select(np.array([1, 3]))]
    )
    assert len(whole) == 2
    assert whole.stored.dtype == np.float32
    assert values(whole).tolist() == [[6, 7, 8, 2, 3], [0, 1, 2, 6, 7]]
    assert values(Features.of(one)).tolist() == one.tolist()


@pytest.mark.parametrize("shapes", [[], [(4, 3), (5, 3)], [(4, 3), (4, 2, 2)]])
def test_features_that_do_not_belong_together_are_refused(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="parts must be pooled features of the same images, got shapes"):
        concatenate_features([Features.of(np.zeros(shape)) for shape in shapes])


# --- colour ---

COLOUR = (64, 64, 3)


@pytest.fixture(scope="module")
def colour_paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """RGB images, all different."""
    folder = tmp_path_factory.mktemp("colour")
    rng = np.random.default_rng(2)
    paths = [folder / f"{number}.jpg" for number in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((64, 64)).save(path, "JPEG", quality=92)
    return paths


@pytest.fixture(scope="module")
def colour_backbone() -> Backbone:
    return TOY.load("random", COLOUR)


def test_a_colour_image_is_decoded_to_red_green_and_blue(colour_paths: list[Path]) -> None:
    pixels = decode_image(colour_paths[0], COLOUR)
    assert pixels.shape == COLOUR
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(colour_paths[0])))
    assert (pixels[..., 0] != pixels[..., 2]).any()


@pytest.mark.parametrize("view", ["plain", "r90", "photometric"])
def test_features_of_colour_images_are_what_the_network_gives(
    view: str, colour_backbone: Backbone, colour_paths: list[Path], tmp_path: Path
) -> None:
    found = extract_at(colour_backbone, [TOP], colour_paths, tmp_path, view=view)[TOP]
    pixels = np.stack([VIEWS[view](np.asarray(Image.open(path))) for path in colour_paths]).astype(np.float32)
    expected = np.asarray(colour_backbone.trunk(TOP)(pixels, training=False))
    assert expected.std() > 0.1
    np.testing.assert_allclose(values(found), expected, rtol=1e-5, atol=1e-5)


def test_a_grey_file_among_colour_images_is_named(colour_backbone: Backbone, tmp_path: Path) -> None:
    bad = tmp_path / "grey.jpg"
    Image.new("L", (64, 64)).save(bad, "JPEG")
    with pytest.raises(
        UserError, match=r"grey\.jpg is a 64 x 64 image of mode L, but .* 64 x 64 with three colour channels"
    ):
        extract_at(colour_backbone, [TOP], [bad], tmp_path / "cache")


def test_another_input_shape_has_a_store_of_its_own(
    backbone: Backbone, colour_backbone: Backbone, paths: list[Path], colour_paths: list[Path], tmp_path: Path
) -> None:
    extract_at(backbone, [TOP], paths[:1], tmp_path)
    extract_at(colour_backbone, [TOP], colour_paths[:1], tmp_path)
    assert len([*(tmp_path / "features").glob(f"toy-{TOP}-*")]) == 2
