"""What a whole table allows, against going through every joint solution; and verdicts on tables of known origin."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from builders import quick
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from hirise_imb.forensics import LEVEL, METRICS, Finding, PublishedTable, Rounded, Verdict, examine
from hirise_imb.utils.errors import UserError

HIRISE = (1482, 89, 66, 49, 16, 7, 42, 42)
Number = int | Fraction
Counts = list[tuple[int, int, int]]  # Hits, predictions and labels of each class.


def share(part: int, whole: int) -> Fraction:
    return Fraction(part, whole) if whole else Fraction(0)


def round_to(value: Fraction, decimals: int, *, half_up: bool = False) -> Rounded:
    scaled = value * 10**decimals
    return Rounded(int(scaled + Fraction(1, 2)) if half_up else round(scaled), decimals)


def prints_as(figure: Rounded | None, value: Fraction) -> bool:
    return figure is None or abs(value * 10**figure.decimals - figure.units) <= Fraction(1, 2)


def shares(hits: int, predicted: int, support: int) -> dict[str, Fraction]:
    return {
        "precision": share(hits, predicted),
        "recall": share(hits, support),
        "f1": share(2 * hits, support + predicted),
    }


def counts_of(confusion: np.ndarray) -> Counts:
    """Of a confusion matrix with labels down and predictions across."""
    sides = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    return list(zip(*(side.tolist() for side in sides), strict=True))


def print_table(
    counts: Counts, decimals: int, *, metrics: Iterable[str] = METRICS, half_up: bool = False
) -> PublishedTable:
    """The table that has these counts behind it."""
    figures = {
        metric: tuple(
            round_to(shares(*row)[metric], decimals, half_up=half_up) if metric in metrics else None for row in counts
        )
        for metric in METRICS
    }
    return PublishedTable(tuple(f"class {k}" for k in range(len(counts))), figures, tuple(n for _, _, n in counts))


def averages(counts: Counts) -> dict[str, Fraction]:
    classes = len(counts)
    means = {metric: sum((shares(*row)[metric] for row in counts), Fraction(0)) / classes for metric in METRICS}
    total = sum(n for _, _, n in counts)
    return {"accuracy": share(sum(t for t, _, _ in counts), total)} | {f"macro_{m}": means[m] for m in METRICS}


def kappa(hits: int, chance: int, total: int) -> float:
    """`chance` is the sum of labels x predictions."""
    return (total * hits - chance) / (total**2 - chance) if total**2 > chance else 0.0


def kappa_of(counts: Counts) -> float:
    return kappa(sum(t for t, _, _ in counts), sum(m * n for _, m, n in counts), sum(n for _, _, n in counts))


def full(*rows: tuple[str | None, str | None, str | None, int]) -> PublishedTable:
    """A table as it would be typed."""
    columns = zip(*(row[:3] for row in rows), strict=True)
    figures = {
        metric: tuple(Rounded.read(text) if text else None for text in column)
        for metric, column in zip(METRICS, columns, strict=True)
    }
    return PublishedTable(tuple("abcdefgh"[: len(rows)]), figures, tuple(row[3] for row in rows))


def reason(finding: Finding, verdict: Verdict) -> str:
    assert finding.verdict is verdict, finding.reason
    assert finding.joint_ranges is not None or verdict is Verdict.INCONSISTENT
    return finding.reason


# --- all joint solutions, gone through ---


@st.composite
def tiny(draw: st.DrawFn) -> tuple[PublishedTable, dict[str, Rounded]]:
    """A table of few images, right or with typos, with all its figures or some of them, and perhaps its accuracy."""
    classes = draw(st.integers(2, 4))
    lines = st.lists(st.integers(0, classes - 1), max_size=6)
    confusion = np.array([np.bincount(draw(lines), minlength=classes) for _ in range(classes)], int)
    confusion[0, 0] += max(0, 2 - int(confusion.sum()))
    counts, decimals = counts_of(confusion), draw(st.integers(1, 3))
    metrics = draw(st.sets(st.sampled_from(METRICS), min_size=1))
    table = print_table(counts, decimals, metrics=metrics, half_up=draw(st.booleans()))
    figures = {metric: list(column) for metric, column in table.figures.items()}
    cells = st.tuples(st.sampled_from(sorted(metrics)), st.integers(0, classes - 1))
    for metric, place in draw(st.sets(cells, max_size=2)):
        figures[metric][place] = draw(st.none() | st.integers(0, 10**decimals).map(lambda u: Rounded(u, decimals)))
    reported = {"accuracy": round_to(averages(counts)["accuracy"], decimals)} if draw(st.booleans()) else {}
    columns = {metric: tuple(column) for metric, column in figures.items()}
    return PublishedTable(table.classes, columns, table.support), reported


def rows_allowed(table: PublishedTable) -> list[list[tuple[int, int]]]:
    """Of each class, every (hits, predictions) that prints as its row."""
    return [
        [
            (t, m)
            for m in range(table.total + 1)
            for t in range(min(m, n) + 1)
            if m - t <= table.total - n
            and all(prints_as(table.figures[metric][k], value) for metric, value in shares(t, m, n).items())
        ]
        for k, n in enumerate(table.support)
    ]


def sum_choices(terms: Sequence[Iterable[tuple[Number, ...]]], total: int) -> set[tuple[Number, ...]]:
    """Every sum of one term of each class whose first place, the predictions, is no more than the total."""
    ways: set[tuple[Number, ...]] = {(0,) * 4}
    for choices in terms:
        choices = set(choices)
        ways = {tuple(map(sum, zip(one, other, strict=False))) for one in ways for other in choices}
        ways = {way for way in ways if way[0] <= total}
    return ways


@settings(quick, max_examples=30)
@given(tiny())
# Where kappa is best is found in several steps, here in more than one: for the smallest, and for the largest.
@example((full((None, None, None, 8), (None, None, "0.3", 12), ("0.5", None, None, 5)), {}))
@example((full((None, "0.0", None, 7), (None, None, "0.5", 36), (None, None, None, 8)), {}))
def test_ranges_are_those_of_all_joint_solutions(case: tuple[PublishedTable, dict[str, Rounded]]) -> None:
    check_ranges(*case)


@pytest.mark.slow
@settings(quick, max_examples=120)
@given(tiny())
def test_ranges_of_many_tables_are_those_of_all_joint_solutions(
    case: tuple[PublishedTable, dict[str, Rounded]],
) -> None:
    check_ranges(*case)


def check_ranges(table: PublishedTable, reported: dict[str, Rounded]) -> None:
    rows, total, support = rows_allowed(table), table.total, table.support
    # Predictions, hits and labels x predictions of each solution; and its predictions, hits and recalls.
    chance = sum_choices([[(m, t, n * m) for t, m in row] for row, n in zip(rows, support, strict=True)], total)
    ways = [(int(h), int(c)) for p, h, c in chance if p == total]
    recall = sum_choices([[(m, t, share(t, n)) for t, m in row] for row, n in zip(rows, support, strict=True)], total)
    recalls = [(int(h), float(r) / len(rows)) for p, h, r in recall if p == total]
    finding = examine(table)
    if not ways:
        reason(finding, Verdict.INCONSISTENT)
        return
    joined = finding.joint_ranges
    assert joined is not None
    for k, margins in enumerate(joined.margins):
        others = {p for (p,) in sum_choices([{(m,) for _, m in row} for row in rows[:k] + rows[k + 1 :]], total)}
        pairs = itertools.product(range(total + 1), range(total + 1))
        assert {pair for pair in pairs if pair in margins} == {(t, m) for t, m in rows[k] if total - m in others}
    kappas = [kappa(hits, products, total) for hits, products in ways]
    assert joined.hits == (min(h for h, _ in ways), max(h for h, _ in ways))
    assert joined.kappa == pytest.approx((min(kappas), max(kappas)), abs=1e-9)
    by_chance = [c / total for _, c in ways]
    assert joined.chance == pytest.approx((min(by_chance), max(by_chance)), abs=1e-9)
    assert joined.macro_recall == pytest.approx((min(r for _, r in recalls), max(r for _, r in recalls)), abs=1e-9)
    for side in (joined.lowest, joined.highest):
        solution = side.solution
        assert solution.predicted.sum() == total
        pairs_there = zip(solution.hits.tolist(), solution.predicted.tolist(), strict=True)
        assert all(pair in margins for pair, margins in zip(pairs_there, joined.margins, strict=True))
        chances = int((solution.predicted * np.array(support)).sum())
        assert side.kappa == pytest.approx(kappa(int(solution.hits.sum()), chances, total), abs=1e-12)
    head = support.index(max(support))
    excess = [[(m, (k != head) * (t - Fraction(n * m, total))) for t, m in rows[k]] for k, n in enumerate(support)]
    rare = [float(value) for predicted, value in sum_choices(excess, total) if predicted == total]
    for terms, found in (
        ([[(m, (k != head) * t) for t, m in row] for k, row in enumerate(rows)], joined.rare_hits),
        (
            [[(m, (k != head) * Fraction(n * m, total)) for _, m in rows[k]] for k, n in enumerate(support)],
            joined.rare_chance,
        ),
    ):
        sums = [float(value) for predicted, value in sum_choices(terms, total) if predicted == total]
        assert found == pytest.approx((min(sums), max(sums)), abs=1e-9)
    beyond = [side.rare.observed - side.rare.mean for side in (joined.lowest, joined.highest)]
    assert beyond == pytest.approx([min(rare), max(rare)], abs=1e-9)
    for figure in reported.values():
        ways = [(h, c) for h, c in ways if prints_as(figure, share(h, total))]
        recalls = [(h, r) for h, r in recalls if prints_as(figure, share(h, total))]
        told = examine(table, reported)
        # An accuracy narrows the ranges; they hold every solution that meets it, and may hold more.
        if told.verdict is Verdict.INCONSISTENT:
            assert not ways
            continue
        narrowed = told.joint_ranges
        assert narrowed is not None
        assert joined.hits[0] <= narrowed.hits[0] <= narrowed.hits[1] <= joined.hits[1]
        assert all(prints_as(figure, share(hits, total)) for hits in narrowed.hits)
        assert narrowed.kappa[0] >= joined.kappa[0] - 1e-9
        assert narrowed.kappa[1] <= joined.kappa[1] + 1e-9
        for hits, product in ways:
            assert narrowed.hits[0] <= hits <= narrowed.hits[1]
            assert narrowed.kappa[0] - 1e-9 <= kappa(hits, product, total) <= narrowed.kappa[1] + 1e-9
        for _, value in recalls:
            assert narrowed.macro_recall[0] - 1e-9 <= value <= narrowed.macro_recall[1] + 1e-9


# --- tables of known origin ---


def random_confusion(random: np.random.Generator) -> np.ndarray:
    """2 to 12 classes of 1 to 10,000 labels; from hardly right to nearly always."""
    classes = int(random.integers(2, 13))
    support = np.exp(random.uniform(0, np.log(random.choice([30, 1000, 10_000])), classes)).round().astype(int)
    support[0] += support.sum() < 2
    right = random.choice([0, random.random(), 0.95])
    return np.array(
        [
            random.multinomial(n, right * np.eye(classes)[k] + (1 - right) * random.dirichlet(np.ones(classes)))
            for k, n in enumerate(support)
        ]
    )


@pytest.mark.parametrize("block", [0, *(pytest.param(block, marks=pytest.mark.slow) for block in range(1, 6))])
def test_a_true_table_holds_its_counts_and_is_not_called_shuffled(block: int) -> None:
    related = 0
    for seed in range(35 * block, 35 * block + 35):
        random = np.random.default_rng(seed)
        counts = counts_of(random_confusion(random))
        decimals, up = int(random.integers(2, 5)), bool(random.integers(2))
        metrics = METRICS if seed % 2 else random.choice(METRICS, int(random.integers(1, 4)), replace=False).tolist()
        true = averages(counts)
        given = [name for name in true if random.random() < 0.5]
        reported = {name: round_to(true[name], decimals, half_up=up) for name in given}
        if seed % 3 == 0 and "macro_f1" in reported:
            means = true["macro_precision"], true["macro_recall"]
            reported["macro_f1"] = round_to(
                2 * means[0] * means[1] / sum(means) if sum(means) else Fraction(0), decimals, half_up=up
            )
        finding = examine(print_table(counts, decimals, metrics=metrics, half_up=up), reported, seed=seed)
        joined = finding.joint_ranges
        assert joined is not None, (seed, finding.reason)
        for (hits, predicted, _), alone, margins in zip(counts, finding.margins, joined.margins, strict=True):
            assert (hits, predicted) in alone
            assert (hits, predicted) in margins
        assert joined.hits[0] <= sum(t for t, _, _ in counts) <= joined.hits[1]
        assert joined.kappa[0] - 1e-9 <= kappa_of(counts) <= joined.kappa[1] + 1e-9
        assert joined.macro_recall[0] - 1e-9 <= true["macro_recall"] <= joined.macro_recall[1] + 1e-9
        if kappa_of(counts) > 0.3:
            related += 1
            assert finding.verdict is not Verdict.SHUFFLED, (seed, finding.reason)
    assert related > 10


def hirise_confusion(random: np.random.Generator) -> np.ndarray:
    """Right in 97 of 100 others and in half of the rare; wrong ones go mostly to the largest class."""
    wrong = (np.array(HIRISE) / 1793 + 0.01) * (1 - np.eye(8))
    wrong /= wrong.sum(axis=1, keepdims=True)
    right = np.array([0.97] + [0.5] * 7)[:, None]
    return random.multinomial(HIRISE, right * np.eye(8) + (1 - right) * wrong)


@functools.cache
def judge_shuffled_pairing(seed: int) -> Verdict:
    """Returns the verdict about a table of shuffled labels; the cache spares the longer of two tests the first ones."""
    random = np.random.default_rng(1000 + seed)
    confusion = hirise_confusion(random)
    labels, predicted = (np.repeat(np.arange(8), confusion.sum(axis=axis)) for axis in (1, 0))
    shuffled = np.zeros((8, 8), int)
    np.add.at(shuffled, (random.permutation(labels), predicted), 1)
    return examine(print_table(counts_of(shuffled), 4), seed=seed).verdict


@pytest.mark.parametrize("tables", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_shuffled_pairings_are_called_so_as_often_as_is_said(tables: int) -> None:
    verdicts = [judge_shuffled_pairing(seed) for seed in range(tables)]
    # More hits, or more rare hits, or fewer hits: each in one of LEVEL pairings, so that these many are called else.
    better, other = (int(stats.binom.ppf(0.999, tables, times * LEVEL)) for times in (2, 3))
    assert verdicts.count(Verdict.BETTER) <= better
    assert verdicts.count(Verdict.SHUFFLED) >= tables - other
    assert Verdict.INCONSISTENT not in verdicts
    assert other < tables / 20


@pytest.mark.parametrize("decimals", [2, 3, 4])
def test_the_same_predictions_with_labels_aligned_are_better_than_chance(decimals: int) -> None:
    counts = counts_of(hirise_confusion(np.random.default_rng(0)))
    assert "has more hits than random pairings" in reason(examine(print_table(counts, decimals)), Verdict.BETTER)


# --- verdicts ---


def test_rare_hits_alone_can_tell_a_table_from_a_shuffled_one() -> None:
    # 14 rare hits where chance gives 5 +- 2.1; with 828 hits in all, where chance gives 815 +- 5, less is told.
    confusion = np.array([[814, 36, 50], [36, 14, 0], [50, 0, 0]])
    finding = examine(print_table(counts_of(confusion), 4))
    assert finding.joint_ranges is not None
    assert finding.joint_ranges.lowest.trace.p_above > LEVEL > finding.joint_ranges.lowest.rare.p_above
    assert "more hits of the rare classes than" in reason(finding, Verdict.BETTER)


def test_classes_numbered_differently_are_undecided() -> None:
    # Each class is called by the name of the next.
    confusion = np.roll(np.diag([300, 200, 100, 50]), 1, axis=1)
    said = reason(examine(print_table(counts_of(confusion), 3)), Verdict.UNDECIDED)
    assert "fewer hits than random pairings" in said
    assert said.endswith("): the classes of predictions and labels may be numbered differently")


@pytest.mark.parametrize(
    ("confusion", "seed", "kappa"),
    [([[254, 55], [44, 25]], 1, "0.174"), ([[243, 66], [65, 4]], 4, "-0.155")],
    ids=["more hits", "fewer hits"],
)
def test_a_p_value_at_the_level_is_not_below_it(confusion: list[list[int]], seed: int, kappa: str) -> None:
    finding = examine(print_table(counts_of(np.array(confusion)), 4), seed=seed)
    assert finding.joint_ranges is not None
    trace = finding.joint_ranges.lowest.trace
    assert min(trace.p_above, trace.p_below) == LEVEL
    said = reason(finding, Verdict.UNDECIDED)
    assert "nothing distinguishes it from a shuffled pairing" in said
    assert f"(kappa {kappa}; standard deviation" in said


def test_rare_hits_tell_a_table_whose_hits_are_at_the_level() -> None:
    confusion = np.array([[820, 36, 50], [36, 16, 0], [50, 0, 0]])
    finding = examine(print_table(counts_of(confusion), 4), seed=12)
    assert finding.joint_ranges is not None
    lowest = finding.joint_ranges.lowest
    assert lowest.trace.p_above == LEVEL > lowest.rare.p_above
    assert "more hits of the rare classes than" in reason(finding, Verdict.BETTER)


def test_one_decimal_is_too_little() -> None:
    confusion = np.array([[850, 50], [45, 5]])
    finding = examine(print_table(counts_of(confusion), 1, metrics=["recall"]))
    said = reason(finding, Verdict.UNDECIDED)
    assert finding.joint_ranges is not None
    low, high = finding.joint_ranges.kappa
    assert f"allow a shuffled pairing and a better one (kappa {low:.3f} to {high:.3f})" in said
    assert reason(examine(print_table(counts_of(confusion), 4)), Verdict.SHUFFLED)


def test_one_decimal_of_rare_hits_is_too_little() -> None:
    # Up to 14 rare hits, or 8 of which chance gives 5: the hits of all, up to 828, are no more than chance may give.
    finding = examine(full(("0.9044", "0.9044", "0.9044", 900), (None, "0.2", None, 50), (None, "0.0", None, 50)))
    assert finding.joint_ranges is not None
    high = finding.joint_ranges.highest
    assert high.trace.p_above > LEVEL > high.rare.p_above
    assert finding.joint_ranges.lowest.rare.p_above > LEVEL
    assert (finding.joint_ranges.lowest.rare.observed, high.rare.observed) == (8, 14)
    assert "a better one" in reason(finding, Verdict.UNDECIDED)


@pytest.mark.parametrize(
    ("right", "verdict"),
    [
        (150, Verdict.SHUFFLED),  # kappa 0, with a standard deviation of 0.041 over shuffled pairings
        (167, Verdict.UNDECIDED),  # kappa 0.113: p = 0.004
    ],
)
def test_a_table_of_600_images_is_called_shuffled_only_if_kappa_is_small(right: int, verdict: Verdict) -> None:
    confusion = np.array([[right, 300 - right], [300 - right, right]])
    reason(examine(print_table(counts_of(confusion), 4)), verdict)


def test_few_images_are_too_little() -> None:
    finding = examine(full(*[("0.667", "0.667", "0.667", 3)] * 2))
    assert "too few images or figures" in reason(finding, Verdict.UNDECIDED)
    assert finding.joint_ranges
    assert finding.joint_ranges.kappa == pytest.approx((1 / 3, 1 / 3))


def test_a_recall_that_is_no_share_is_named_with_those_near_it() -> None:
    said = reason(examine(full((None, "0.500", None, 7), (None, "0.5", None, 6))), Verdict.INCONSISTENT)
    assert said == "a: recall 0.500 is not a possible share of 7 labels; the nearest are 0.429 and 0.571"
    # Above the last share but one lies 1; each class is told.
    both = reason(examine(full((None, "0.99", None, 7), (None, "0.21", None, 3))), Verdict.INCONSISTENT)
    assert both.startswith(
        "a: recall 0.99 is not a possible share of 7 labels; the nearest are 0.86 and 1.00; b: recall 0.21 is not "
    )


def test_a_row_whose_figures_do_not_go_together_is_named() -> None:
    said = reason(examine(full(("0.50", "0.50", "0.60", 10), ("0.50", None, None, 10))), Verdict.INCONSISTENT)
    assert said == "a: no counts of hits and predictions give precision 0.50, recall 0.50, f1 0.60 with 10 labels"


@pytest.mark.parametrize(
    ("row", "printed"),
    [(("0.50", None, "0.90", 10), "precision 0.50, f1 0.90 with 10"), ((None, "0.50", None, 0), "recall 0.50 with 0")],
)
def test_a_row_without_recall_or_without_labels_can_be_impossible(
    row: tuple[str | None, str | None, str | None, int], printed: str
) -> None:
    said = reason(examine(full(row, (None, None, None, 10))), Verdict.INCONSISTENT)
    assert said == f"a: no counts of hits and predictions give {printed} labels"


def test_predictions_that_do_not_add_up_are_reported() -> None:
    rows = (("0.50", "0.50", "0.50", 10), ("0.50", "0.33", "0.40", 15))  # 5 hits of 10 predictions each
    table = full(*rows)
    finding = examine(table)
    assert finding.table is table
    assert [entry.predictions for entry in finding.margins] == [(10, 10), (10, 10)]
    said = reason(finding, Verdict.INCONSISTENT)
    assert said.startswith("the rows imply 20 ")
    assert said.endswith("predictions in total, but there are 25 labels")
    # A row without figures takes the rest.
    assert examine(full(*rows, (None, None, None, 5))).joint_ranges is not None


def test_predictions_that_step_over_the_number_of_labels_are_reported() -> None:
    # Half of the predictions are hits, so each class has an even number of them, from 2 to 10.
    rows = [("0.5000", None, None, 5), ("0.5000", None, None, 6)]
    said = reason(examine(full(*rows)), Verdict.INCONSISTENT)
    assert said == "the rows allow no predictions that add up to 11, the number of labels"
    assert examine(full(rows[0], ("0.5000", None, None, 5))).joint_ranges is not None


# Hits, predictions and labels of two classes; four decimals leave no others. Of the averages, 0.6213 and 0.6012 are the
# next ones up, and 0.65268 is the F1 of mean precision and mean recall.
TWO: Counts = [(50, 55, 80), (15, 45, 20)]


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("accuracy", "0.6500", "0.6501"),
        ("macro_precision", "0.6212", "0.6213"),
        ("macro_recall", "0.6875", "0.6876"),
        ("macro_f1", "0.6011", "0.6012"),
        ("macro_f1", "0.6527", "0.6526"),
        ("macro_f1", "0.65", "0.64"),
    ],
)
def test_an_average_is_that_of_the_rows(name: str, right: str, wrong: str) -> None:
    table = print_table(TWO, 4)
    assert examine(table, {name: Rounded.read(right)}).verdict is Verdict.UNDECIDED
    said = reason(examine(table, {name: Rounded.read(wrong)}), Verdict.INCONSISTENT)
    assert said.startswith(f"{name.replace('_', ' ')} {wrong} is out of reach: the rows allow 0.6")
    # What the rows say by themselves is said all the same.
    alone = examine(table)
    assert alone.verdict is Verdict.UNDECIDED
    assert said.endswith("; the rows alone are inconclusive")
    reported = examine(table, {name: Rounded.read(wrong)}).joint_ranges
    assert reported is not None
    assert alone.joint_ranges is not None
    assert (reported.hits, reported.kappa) == (alone.joint_ranges.hits, alone.joint_ranges.kappa)


@pytest.mark.parametrize(("share", "wrong"), [("0.50", "0.90"), ("0.00", "1.00")])
def test_both_kinds_of_macro_f1_are_told_where_precision_is_recall(share: str, wrong: str) -> None:
    table = full(*[(share, share, share, 10)] * 2)
    said = reason(examine(table, {"macro_f1": Rounded.read(wrong)}), Verdict.INCONSISTENT)
    assert said.startswith(
        f"macro f1 {wrong} is out of reach: the rows allow {share}0000 as the mean of F1, "
        f"{share}0000 as the F1 of mean precision and recall; "
    )
    assert examine(table, {"macro_f1": Rounded.read(share)}).verdict is not Verdict.INCONSISTENT


def test_each_average_out_of_reach_is_named_before_the_verdict_on_the_rows() -> None:
    counts: Counts = [(90, 95, 100), (95, 105, 100)]
    averages = {"accuracy": Rounded(10, 2), "macro_recall": Rounded(99, 2)}
    said = reason(examine(print_table(counts, 4), averages), Verdict.INCONSISTENT)
    first, second, rows = said.split("; ")
    assert first.startswith("accuracy 0.10 is out of reach")
    assert second.startswith("macro recall 0.99 is out of reach")
    assert rows == "the rows alone are better than chance"


def test_a_table_that_allows_too_many_counts_is_refused() -> None:
    # A row without figures allows any number of predictions up to that of the labels.
    rows = [(None, None, None, support) for support in (999_996, 1, 1, 1, 1)]
    with pytest.raises(UserError, match="more than 4,000,000 numbers of predictions of its 5 classes with 1,000,000"):
        examine(full(*rows))


def test_an_accuracy_between_two_counts_is_reported() -> None:
    table = full((None, "0.6", None, 80), (None, "0.8", None, 20))
    said = reason(examine(table, {"accuracy": Rounded.read("0.655")}), Verdict.INCONSISTENT)
    assert said.startswith("accuracy 0.655 is not a possible share of 100 images; ")


def test_averages_narrow_the_ranges() -> None:
    # With as many labels in each class chance gives a third, whatever is predicted. Recalls of 0.65 to 0.75 print so.
    table = full(*[(None, "0.7", None, 20)] * 3)
    reported = [{}, {"accuracy": Rounded(68, 2)}, {"macro_recall": Rounded(68, 2)}]
    wide, hits, recall = (examine(table, figures).joint_ranges for figures in reported)
    assert wide is not None
    assert hits is not None
    assert recall is not None
    assert wide.hits == (39, 45)
    assert wide.kappa == pytest.approx((0.475, 0.625))
    # 40 / 60 is 0.67, 42 / 60 is 0.70.
    assert hits.hits == (41, 41)
    assert hits.kappa == pytest.approx((0.525, 0.525))
    assert (hits.lowest.trace.observed, hits.highest.trace.observed) == (41, 41)
    assert recall.macro_recall == pytest.approx((0.675, 0.685))


def test_the_random_pairings_follow_from_the_seed() -> None:
    table = print_table(counts_of(np.array([[30, 10], [8, 12]])), 3)
    one, same, other = (examine(table, seed=seed).joint_ranges for seed in (1, 1, 2))
    assert one is not None
    assert same is not None
    assert other is not None
    assert (one.lowest.trace, one.lowest.rare) == (same.lowest.trace, same.lowest.rare)
    assert one.lowest.trace.p_above != other.lowest.trace.p_above
    assert one.lowest.rare.p_above != other.lowest.rare.p_above
