"""What a data set's description promises, and refuses."""

from __future__ import annotations

import dataclasses

import pytest

from hirise_imb.data.dataset import ClassSet, DataCard, ImageName, Layout, NameGrammar, SourceColumn
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.registry import DATASETS

MINERALS = ClassSet(("olivine", "pyroxene", "dust"), majority="dust")
GRAMMAR = NameGrammar(
    r"(?P<landmark>(?P<source>s\d)_\d)(?P<variant>[lr])?\.jpg", "<SOURCE>_<N>[<variant>].jpg", ("l", "r")
)


class TestClassSet:
    def test_positions_are_class_ids(self) -> None:
        assert len(MINERALS) == 3
        assert list(MINERALS) == ["olivine", "pyroxene", "dust"]
        assert [MINERALS[label] for label in range(3)] == list(MINERALS)

    def test_all_classes_but_the_majority_are_rare(self) -> None:
        assert MINERALS.majority_id == 2
        assert MINERALS.rare_ids == (0, 1)

    def test_without_a_majority_all_classes_are_rare(self) -> None:
        classes = ClassSet(("a", "b"))
        assert classes.majority_id is None
        assert classes.rare_ids == (0, 1)

    @pytest.mark.parametrize("names", [(), ("alone",), ("twice", "other", "twice")])
    def test_two_or_more_different_names_are_needed(self, names: tuple[str, ...]) -> None:
        with pytest.raises(ValueError, match=r"^names must be two or more different classes"):
            ClassSet(names)

    def test_the_majority_is_one_of_them(self) -> None:
        with pytest.raises(ValueError, match=r"^majority must be None or one of .*'dune'"):
            ClassSet(("a", "b"), majority="dune")


class TestNameGrammar:
    def test_parses_the_parts(self) -> None:
        assert GRAMMAR.parse("s1_2.jpg") == ImageName("s1_2", "s1", "")
        assert GRAMMAR.parse("s1_2r.jpg") == ImageName("s1_2", "s1", "r")

    def test_matches_whole_names_only(self) -> None:
        assert GRAMMAR.parse("s1_2.jpg.jpg") is None
        assert GRAMMAR.parse("xs1_2.jpg") is None

    @pytest.mark.parametrize("group", ["landmark", "source", "variant"])
    def test_needs_every_group(self, group: str) -> None:
        with pytest.raises(ValueError, match=f"^pattern lacks the groups {group}: "):
            NameGrammar(GRAMMAR.pattern.replace(f"?P<{group}>", ""), GRAMMAR.form)


def test_with_a_source_column_there_are_no_variants() -> None:
    assert SourceColumn().variants == ()


class TestDatasetSpec:
    def test_the_shape_of_an_image(self) -> None:
        assert HIRISE.image_shape == (227, 227, 1)
        assert dataclasses.replace(HIRISE, image_size=64, channels=3).image_shape == (64, 64, 3)

    @pytest.mark.parametrize(("size", "channels"), [(0, 1), (-64, 3), (64, 2), (64, 4)])
    def test_an_impossible_image_is_refused(self, size: int, channels: int) -> None:
        with pytest.raises(ValueError, match=f"1 or 3 channels, got {size} and {channels}$"):
            dataclasses.replace(HIRISE, image_size=size, channels=channels)

    def test_needs_no_archive(self) -> None:
        spec = DataCard(
            name="minerals",
            title="Minerals",
            classes=MINERALS,
            image_size=64,
            channels=3,
            identity=SourceColumn(),
            layout=Layout("labels.txt", "split.txt", "classes.csv", "images"),
            citation="",
            licence="",
        )
        assert spec.archive is None
        assert spec.layout.files == ("labels.txt", "split.txt", "classes.csv")

    def test_data_sets_are_registered_by_name(self) -> None:
        assert DATASETS["hirise-v3_2"] is HIRISE
        assert all(name == spec.name for name, spec in DATASETS.items())
