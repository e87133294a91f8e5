"""The words of a report for landmarks, sources and scores, which differ between the designs of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

NO_SOURCES = (
    "This data set names no sources: each image counts as a source of its own, so confidence intervals and tests hold "
    "for images only, not for new observations."
)
"""What reports and plans say about a data set without sources."""


@dataclass(frozen=True)
class Terms:
    """The words of one design."""

    nested: bool
    """Whether the design is a nested cross-validation."""
    where: str
    """Where scores were measured, such as `on the test split`."""
    landmark: str
    """Name of a landmark that was tested."""
    source: str
    """Name of a source that was tested."""
    tested: str
    """What was tested, such as `the test split`."""
    drawn: str
    """Name of the classes that a resample may draw."""
    whole: str
    """Where a class has its F1 if no resample is drawn."""
    whole_short: str
    """The same, for headings."""
    inner: str
    """Name of the scores in a cross-validation of the pool, as an adjective: `validation`."""
    outer: str
    """Name of the scores of tested landmarks, as an adjective: `test`."""
    inner_short: str
    """Heading of a narrow column of `inner` scores."""
    best: str
    """How a strategy is the best one, such as `on validation`."""
    pool: str
    """What the chosen recipes were fitted on."""
    inner_curve: str
    """Name of the curves of held-out landmarks."""
    outer_curve: str
    """Name of the curves of tested landmarks."""
    unseen: str
    """What no fit saw, such as `the test split`."""
    stopped_on: str
    """What the published baseline was stopped on."""
    held_out: str
    """Name of the folds of the cross-validation that scores a recipe."""
    division: str
    """Where a recipe was chosen, as an addition such as ` in each outer fold`; empty if there is one place."""
    several: str
    """What classes of several sources are."""


GIVEN_SPLIT = Terms(
    nested=False,
    where="on the test split",
    landmark="test landmark",
    source="test source",
    tested="the test split",
    drawn="every class of the test split",
    whole="on the whole test split",
    whole_short="on the whole split",
    inner="validation",
    outer="test",
    inner_short="val",
    best="on validation",
    pool="the training and validation splits together",
    inner_curve="validation",
    outer_curve="test",
    unseen="the test split",
    stopped_on="the validation split",
    held_out="held-out folds",
    division="",
    several="those with more than one source in the test split",
)

NESTED_CV = Terms(
    nested=True,
    where="in the outer folds",
    landmark="landmark",
    source="source",
    tested="all splits",
    drawn="every class",
    whole="on all sources",
    whole_short="on all sources",
    inner="inner",
    outer="outer",
    inner_short="inner",
    best="by inner score",
    pool="all other outer folds",
    inner_curve="inner folds",
    outer_curve="outer fold",
    unseen="the outer fold that it applies to",
    stopped_on="an inner fold",
    held_out="inner folds",
    division=" in each outer fold",
    several="those with more than one source",
)


def choose_terms(*, nested: bool) -> Terms:
    """Returns the words of a nested cross-validation, or of the given split."""
    return NESTED_CV if nested else GIVEN_SPLIT
