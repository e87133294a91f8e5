"""Printed figures and the counts behind one row: against counting, the published table, and mlscorecheck."""

from __future__ import annotations

import importlib.resources
import itertools
import logging
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from builders import quick
from hypothesis import given, settings
from hypothesis import strategies as st
from mlscorecheck.check.binary import check_1_testset_no_kfold

from hirise_imb.forensics import METRICS, Finding, PublishedTable, Rounded, Verdict, examine, read
from hirise_imb.forensics.margins import class_margins
from hirise_imb.utils.errors import UserError

SUPPORTS = "1482,89,66,49,16,7,42,42"
CLASSES = ("other", "crater", "dark dune", "slope streak", "bright dune", "impact ejecta", "swiss cheese", "spider")

Row = tuple[Rounded | None, Rounded | None, Rounded | None]
Pairs = set[tuple[int, int]]


def printed(share: Fraction, decimals: int, *, half_up: bool = False) -> Rounded:
    """A share rounded without floating point."""
    scaled = share * 10**decimals
    return Rounded(int(scaled + Fraction(1, 2)) if half_up else round(scaled), decimals)


def shares(hits: int, predicted: int, support: int) -> tuple[Fraction, Fraction, Fraction]:
    """Precision, recall and F1, 0 where there is nothing to divide by."""
    pairs = ((hits, predicted), (hits, support), (2 * hits, predicted + support))
    one, two, three = (Fraction(part, whole) if whole else Fraction(0) for part, whole in pairs)
    return one, two, three


def of_row(row: Row, support: int, total: int) -> PublishedTable:
    """A table of two classes, the second without figures."""
    figures = {metric: (figure, None) for metric, figure in zip(METRICS, row, strict=True)}
    return PublishedTable(("one", "rest"), figures, (support, total - support))


def counted(row: Row, support: int, total: int) -> Pairs:
    """Every (hits, predictions) that a row allows: all pairs are gone through."""
    pairs = set()
    for predicted in range(total + 1):
        for hits in range(min(support, predicted) + 1):
            if predicted - hits > total - support:
                continue
            near = (
                figure is None or abs(share * 10**figure.decimals - figure.units) <= Fraction(1, 2)
                for figure, share in zip(row, shares(hits, predicted, support), strict=True)
            )
            if all(near):
                pairs.add((hits, predicted))
    return pairs


def found(row: Row, support: int, total: int) -> Pairs:
    margins = class_margins(of_row(row, support, total), 0)
    rows = zip(margins.predicted.tolist(), margins.fewest.tolist(), margins.most.tolist(), strict=True)
    return {(hits, predicted) for predicted, fewest, most in rows for hits in range(fewest, most + 1)}


@st.composite
def rows(draw: st.DrawFn, most: int = 30) -> tuple[Row, int, int]:
    """A printed row with its support and the test size; now and then with a typo, or with cells left empty."""
    support, rest = draw(st.integers(0, most)), draw(st.integers(1, most))
    hits = draw(st.integers(0, support))
    predicted = hits + draw(st.integers(0, rest))
    decimals = draw(st.integers(0, 4))
    up = draw(st.booleans())
    row: list[Rounded | None] = [printed(s, decimals, half_up=up) for s in shares(hits, predicted, support)]
    for place in draw(st.sets(st.integers(0, 2), max_size=2)):
        typo = st.integers(0, 10**decimals).map(lambda units: Rounded(units, decimals))
        row[place] = draw(st.none() | typo)
    return (row[0], row[1], row[2]), support, support + rest


# --- figures ---


@pytest.mark.parametrize(
    ("text", "decimals", "units", "places", "again"),
    [
        ("0.840", None, 840, 3, "0.840"),
        ("0.84", None, 84, 2, "0.84"),
        ("0.84", 3, 840, 3, "0.840"),
        (".5", None, 5, 1, "0.5"),
        ("1", None, 1, 0, "1"),
        ("1.", 2, 100, 2, "1.00"),
        ("1.00", 2, 100, 2, "1.00"),
        ("0", 4, 0, 4, "0.0000"),
        ("0.8571428571428571", None, 8571428571, 10, "0.8571428571"),
        ("0.12345678995", None, 1234567900, 10, "0.1234567900"),
    ],
)
def test_a_figure_is_read_with_its_zeros(text: str, decimals: int | None, units: int, places: int, again: str) -> None:
    figure = Rounded.read(text, decimals)
    assert (figure.units, figure.decimals, str(figure)) == (units, places, again)
    assert Fraction(figure.high - figure.low, figure.scale) == Fraction(1, 10**places)
    assert Fraction(figure.high + figure.low, 2 * figure.scale) == Fraction(units, 10**places)


@pytest.mark.parametrize(
    ("text", "decimals", "message"),
    [
        ("1.01", None, "above 1"),
        ("1.0000000000000001", None, "above 1"),
        ("84", None, "percentages"),
        ("84.0 %", None, "not a number"),
        ("0,84", None, "not a number"),
        ("-0.1", None, "not a number"),
        ("1e-3", None, "not a number"),
        ("nan", None, "not a number"),
        (".", None, "not a number"),
        ("", None, "^is not a number; give a share such as 0.840$"),
        ("0.840", 2, "more than 2 decimals"),
    ],
)
def test_what_is_no_share_is_refused(text: str, decimals: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rounded.read(text, decimals)


def test_a_figure_holds_what_rounds_to_it_either_way_and_no_more() -> None:
    figure = Rounded(12, 3)
    assert figure.holds(0.0125, 0.0125)
    assert figure.holds(0.0115, 0.0115)
    assert figure.holds(0.0, 1.0)
    assert not figure.holds(0.0125001, 0.2)
    assert not figure.holds(0.0, 0.0114999)


# --- one row ---


@settings(quick, max_examples=150)
@given(rows())
def test_a_row_allows_the_counts_that_print_so_and_no_others(case: tuple[Row, int, int]) -> None:
    row, support, total = case
    expected = counted(row, support, total)
    assert found(row, support, total) == expected
    margins = class_margins(of_row(row, support, total), 0)
    assert margins.support == support
    for pair in ((hits, predicted) for hits in range(support + 2) for predicted in range(total + 2)):
        assert (pair in margins) == (pair in expected)
    if expected:
        assert margins.hits == (min(t for t, _ in expected), max(t for t, _ in expected))
        assert margins.predictions == (min(m for _, m in expected), max(m for _, m in expected))


@pytest.fixture
def quiet_mlscorecheck() -> Iterator[None]:
    """It logs every step."""
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet_mlscorecheck")
def test_a_row_is_possible_where_mlscorecheck_says_so() -> None:
    random = np.random.default_rng(0)
    answers = []
    for _ in range(400):
        support, rest = (int(n) for n in random.integers(2, 80, 2))
        hits = int(random.integers(1, support + 1))
        predicted = hits + int(random.integers(0, rest + 1))
        decimals = int(random.integers(1, 4))
        row = [printed(share, decimals) for share in shares(hits, predicted, support)]
        if random.random() < 0.6:
            place = int(random.integers(3))
            row[place] = Rounded(max(0, row[place].units + int(random.choice([-2, -1, 1, 2]))), decimals)
        # Where 0 is printed mlscorecheck leaves out no predictions at all, and takes any number of them where the
        # scores have nothing to divide by; here such a row prints as 0. So rows with a 0 are not compared.
        if any(figure.units == 0 for figure in row):
            continue
        scores = {name: f.units / 10**decimals for name, f in zip(("ppv", "sens", "f1"), row, strict=True)}
        # Its own tolerance would let in counts past the half unit: shares here lie 1e-6 or more away from it, or on it.
        report = check_1_testset_no_kfold(
            {"p": support, "n": rest}, scores, eps=0.5 / 10**decimals, numerical_tolerance=1e-9
        )
        possible = bool(found((row[0], row[1], row[2]), support, support + rest))
        assert possible == (not report["inconsistency"]), (support, rest, [str(figure) for figure in row])
        answers.append(possible)
    # Both answers are compared often.
    assert min(answers.count(True), answers.count(False)) > 60


# --- the published table ---


@pytest.fixture(scope="module")
def published() -> Finding:
    with importlib.resources.as_file(importlib.resources.files("hirise_imb.forensics") / "published.csv") as path:
        return examine(read(path, SUPPORTS))


def test_the_published_table_leaves_the_counts_that_were_found_by_hand(published: Finding) -> None:
    assert published.table.classes == CLASSES
    assert published.table.total == 1793
    assert published.joint_ranges is not None
    rows = dict(zip(CLASSES, published.joint_ranges.margins, strict=True))
    assert {name: (row.hits, row.predictions) for name, row in rows.items() if row.hits[1]} == {
        "other": ((1271, 1272), (1544, 1546)),
        "crater": ((1, 1), (71, 74)),
        "dark dune": ((1, 1), (61, 63)),
        "slope streak": ((2, 2), (35, 35)),
        "swiss cheese": ((1, 1), (43, 43)),
    }
    assert {name for name, row in rows.items() if row.hits == (0, 0)} == {"bright dune", "impact ejecta", "spider"}
    assert published.joint_ranges.hits == (1276, 1277)


def test_71_craters_are_a_tie_that_only_half_to_even_prints_so(published: Finding) -> None:
    # 2 x 1 / (89 + 71) is exactly 0.0125, printed as 0.012.
    assert shares(1, 71, 89)[2] == Fraction(1, 80)
    assert (printed(Fraction(1, 80), 3).units, printed(Fraction(1, 80), 3, half_up=True).units) == (12, 13)
    assert published.joint_ranges is not None
    assert [m for m in range(1794) if (1, m) in published.joint_ranges.margins[1]] == [71, 72, 73, 74]
    rest = {m: [f.units for f in (printed(s, 3, half_up=True) for s in shares(1, m, 89))] for m in (72, 73, 74)}
    assert list(rest.values()) == [[14, 11, 12]] * 3


def test_the_published_table_is_no_better_than_a_shuffled_pairing(published: Finding) -> None:
    assert published.verdict is Verdict.SHUFFLED
    assert published.joint_ranges is not None
    low, high = published.joint_ranges.kappa
    assert -0.05 < low <= high < 0.02
    # Every solution, with what is left over in the class without hits that chance favours least, or most.
    row = tuple(Rounded(units, 3) for units in (823, 858, 840))
    pairs = itertools.product(range(1260, 1280), range(1530, 1560))
    other = [(t, m) for t, m in pairs if tuple(printed(share, 3) for share in shares(t, m, 1482)) == row]
    kappas, recalls = [], set()
    for (t, m), crater, dune in itertools.product(other, range(71, 75), range(61, 64)):
        rest = 1793 - m - crater - dune - 35 - 43
        recalls.add((Fraction(t, 1482) + Fraction(1, 89) + Fraction(1, 66) + Fraction(2, 49) + Fraction(1, 42)) / 8)
        for support in (7, 42):
            chance = m * 1482 + crater * 89 + dune * 66 + 35 * 49 + 43 * 42 + rest * support
            kappas.append((1793 * (t + 5) - chance) / (1793**2 - chance))
    assert (low, high) == pytest.approx((min(kappas), max(kappas)), abs=1e-12)
    assert published.joint_ranges.macro_recall == pytest.approx((float(min(recalls)), float(max(recalls))), abs=1e-12)


# --- files ---


def test_a_table_as_scikit_learn_writes_it_is_read(write: Callable[[str], Path]) -> None:
    table = read(write(",precision,recall,f1-score,support\na,0.50,0.25,0.33,4.0\nb,1.0,0.9,0.95,89\n"))
    assert (table.classes, table.support, table.total) == (("a", "b"), (4, 89), 93)
    assert table.figures == {
        "precision": (Rounded(50, 2), Rounded(10, 1)),
        "recall": (Rounded(25, 2), Rounded(9, 1)),
        "f1": (Rounded(33, 2), Rounded(95, 2)),
    }


def test_empty_cells_columns_in_any_order_a_mark_at_the_start_and_empty_lines(write: Callable[[str], Path]) -> None:
    table = read(write("\ufeffF1 , Class,Recall\n 0.5 ,a,\n\n,b,\n,,\n"), supports=" 3, 4")
    assert (table.classes, table.support) == (("a", "b"), (3, 4))
    assert table.figures == {"precision": (None, None), "recall": (None, None), "f1": (Rounded(5, 1), None)}


def test_lost_zeros_count_again_where_the_decimals_are_said(write: Callable[[str], Path]) -> None:
    path = write("class,recall\na,0.5\nb,1\n")
    assert read(path, "100,100").figures["recall"] == (Rounded(5, 1), Rounded(1, 0))
    assert read(path, "100,100", 2).figures["recall"] == (Rounded(50, 2), Rounded(100, 2))
    wide, narrow = (class_margins(read(path, "100,100", decimals), 0) for decimals in (None, 2))
    assert (wide.hits, narrow.hits) == ((45, 55), (50, 50))


def test_a_message_lists_all_faults_and_counts_the_rest(write: Callable[[str], Path]) -> None:
    path = write("class,f1,support\n" + "".join(f"c{n},{n}.5,{n}x\n" for n in range(2, 9)))
    with pytest.raises(UserError) as caught:
        read(path)
    lines = str(caught.value).splitlines()
    assert "'c2', '2.5', is above 1" in lines[0]
    assert lines[-1].strip() == "... and 4 more."
    assert len(lines) == 11


def many(classes: int) -> str:
    return "class,f1,support\n" + "".join(f"c{k},0.5,2\n" for k in range(classes))


@pytest.mark.parametrize("decimals", [0, 10])
def test_the_fewest_and_the_most_decimals_are_read(write: Callable[[str], Path], decimals: int) -> None:
    table = read(write("class,f1\na,1\nb,0\n"), "1,1", decimals)
    assert table.figures["f1"] == (Rounded(10**decimals, decimals), Rounded(0, decimals))


@pytest.mark.parametrize("supports", ["1,1", "0,2", "999993,7"])
def test_the_smallest_and_the_largest_supports_are_read(write: Callable[[str], Path], supports: str) -> None:
    assert read(write("class,f1\na,0.5\nb,0.5\n"), supports).support == tuple(map(int, supports.split(",")))


def test_as_many_classes_and_characters_as_are_allowed_are_read(write: Callable[[str], Path]) -> None:
    assert len(read(write(many(150))).classes) == 150
    name = "a" * 200
    assert read(write(f"class,f1\n{name},0.5\nb,0.5\n"), "1,1").classes == (name, "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (many(151), "has 151 classes, and a table may have up to 150: merge classes of few labels."),
        (many(2) + "a" * 201 + ",0.5,2\n", "has a cell of more than 200 characters in line 4: shorten it."),
        (
            f"class,{'9' * 201},{'9' * 201}\na,1,1\nb,1,1\n",
            "has a cell of more than 200 characters in line 1: shorten it.",
        ),
        ("class,f1,F1\na,0.5,0.5\nb,0.5,0.5\n", "names a column twice: class, f1, f1."),
        (",f1,support\n,0.5,3\nb,0.5,3\n", "can't be used: a class has no name."),
    ],
)
def test_a_table_that_is_no_good_is_refused(write: Callable[[str], Path], text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value) == f"{path} {message}"


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a CSV file in UTF-8 \(Is a directory\): name another file\.$"):
        read(tmp_path)
    path = tmp_path / "latin.csv"
    path.write_bytes("class,f1\ncaf\xe9,0.5\nb,0.5\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"in UTF-8 \('utf-8' codec can't decode byte 0xe9 .*\): name another file\.$"):
        read(path)
