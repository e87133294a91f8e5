"""The file-name grammar and the official constants."""

import pytest
from builders import CLASSES, parse_name, quick
from hypothesis import given
from hypothesis import strategies as st

from hirise_imb.data.dataset import ImageName
from hirise_imb.data.hirise import HIRISE, VARIANTS

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"


def words(alphabet: str, size: int) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=size, max_size=size)


SOURCES = st.builds("{}_{}_{}".format, words(LETTERS, 3), words(DIGITS, 6), words(DIGITS, 4))


def test_the_official_classes() -> None:
    assert dict(enumerate(CLASSES)) == {
        0: "other",
        1: "crater",
        2: "dark dune",
        3: "slope streak",
        4: "bright dune",
        5: "impact ejecta",
        6: "swiss cheese",
        7: "spider",
    }
    assert [CLASSES[k] for k in HIRISE.classes.rare_ids] == [name for name in CLASSES if name != "other"]


@quick
@given(SOURCES, words(DIGITS, 4), st.sampled_from(("", "r90", "r180", "r270", "fh", "fv", "brt")))
def test_a_name_of_the_grammar_is_read_into_its_parts(source: str, number: str, variant: str) -> None:
    suffix = f"-{variant}" if variant else ""
    read = parse_name(f"{source}_RED-{number}{suffix}.jpg")
    assert read == ImageName(landmark=f"{source}_RED-{number}", source=source, variant=variant)


def test_official_names() -> None:
    parsed = {
        "ESP_011623_2100_RED-0069-r90.jpg": ("ESP_011623_2100_RED-0069", "ESP_011623_2100", "r90"),
        "PSP_003470_0930_RED-0012.jpg": ("PSP_003470_0930_RED-0012", "PSP_003470_0930", ""),
        "TRA_000828_1805_RED-0001-brt.jpg": ("TRA_000828_1805_RED-0001", "TRA_000828_1805", "brt"),
    }
    for file_name, parts in parsed.items():
        assert parse_name(file_name) == ImageName(*parts)
    assert set(VARIANTS) == {"r90", "r180", "r270", "fh", "fv", "brt"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "._ESP_011623_2100_RED-0069.jpg",
        "ESP_011623_2100_RED-0069",
        "ESP_011623_2100_RED-0069.jpeg",
        "ESP_011623_2100_RED-0069.JPG",
        "ESP_011623_2100_RED-0069xjpg",
        "ESP_011623_2100_RED-0069.jpg\n",
        "ESP_011623_2100_RED-0069.jpg ",
        "a/ESP_011623_2100_RED-0069.jpg",
        "esp_011623_2100_RED-0069.jpg",
        "ES_011623_2100_RED-0069.jpg",
        "ESP_11623_2100_RED-0069.jpg",
        "ESP_011623_210_RED-0069.jpg",
        "ESP_011623_2100_RED-069.jpg",
        "ESP_011623_2100_RED-00690.jpg",
        "ESP_011623_2100_BLU-0069.jpg",
        "ESP_011623_2100_RED-0069-.jpg",
        "ESP_011623_2100_RED-0069-r45.jpg",
        "ESP_011623_2100_RED-0069-r90-fh.jpg",
        "ESP_011623_2100_RED-0069r90.jpg",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    assert parse_name(name) is None


def test_only_ascii_digits_count() -> None:
    # Arabic digits are digits to a regular expression, and no name of the archive holds one.
    assert parse_name("ESP_\u0660\u0661\u0661\u0662\u0668\u0669_1950_RED-0012.jpg") is None


@quick
@given(SOURCES, words(DIGITS, 4), st.text(max_size=4))
def test_whatever_stands_for_the_variant_it_is_a_known_one_or_the_name_is_refused(
    source: str, number: str, variant: str
) -> None:
    read = parse_name(f"{source}_RED-{number}-{variant}.jpg")
    assert (read is not None) == (variant in VARIANTS)
