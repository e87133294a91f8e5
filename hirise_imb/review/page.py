"""Writes the review page: a single HTML file on which a person labels the candidates, without any server."""

from __future__ import annotations

import base64
import hashlib
import shlex
import string
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from hirise_imb.data.additions import COLUMNS, FORMULA_STARTS, TEXT_MARK
from hirise_imb.data.dataset import ClassSet
from hirise_imb.data.images import encode_data_url
from hirise_imb.features.neighbours import Neighbour
from hirise_imb.reporting.formatting import percent, plural, score
from hirise_imb.reporting.html.parts import breakable
from hirise_imb.review.queue import Proposal, Review
from hirise_imb.utils.files import ensure_folder, write_atomically, write_text

PAGE, TABLE = "review.html", "queue.csv"
"""Names of the files."""

COMMAND_KEYS = "dnsu"
"""Keys that save (d for download), go to the next class, skip and undo; no class has one of them."""

CLASS_KEYS = "123456789" + "".join(letter for letter in string.ascii_lowercase if letter not in COMMAND_KEYS)
"""Keys of the classes, in the order of their ids; further classes have a button alone."""

_CROP, _THUMBNAIL = 227, 96
"""Largest width and height of a candidate, and those of its neighbours, in pixels."""


@dataclass(frozen=True)
class Bar:
    """The probability of a class."""

    name: str
    text: str
    width: int
    """Width of the bar in per cent."""
    own: bool
    """Whether the image is proposed for this class."""


@dataclass(frozen=True)
class Picture:
    """A neighbour on the page."""

    name: str
    source: str
    similarity: str
    address: str


@dataclass(frozen=True)
class Card:
    """A candidate on the page."""

    place: int
    """Position on the page, from 0."""
    title: str
    id: str
    source: str
    address: str
    bars: tuple[Bar, ...]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Section:
    """The candidates of a class."""

    number: int
    name: str
    aside: str
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class ClassButton:
    """A button that labels the current candidate."""

    label: int
    name: str
    key: str
    """Key that does the same; empty if there is none."""


@dataclass(frozen=True)
class ReviewView:
    """The content of the page."""

    title: str
    headline: str
    notes: tuple[str, ...]
    sections: tuple[Section, ...]
    buttons: tuple[ClassButton, ...]
    digest: str
    command: str
    """Command that adds the labels to a data set."""
    settings: dict[str, Any]
    """What the script of the page needs to know."""


def write_review(review: Review, folder: Path) -> Path:
    """Writes the page and a table of the queue, and returns the path of the page."""
    ensure_folder(folder)
    text = _environment().get_template("review.html.jinja").render(vars(view_of(review)))
    write_atomically(folder / PAGE, lambda path: write_text(path, f"{text}\n"))
    table = queue_table(review)
    write_atomically(folder / TABLE, lambda path: table.to_csv(path, index=False, lineterminator="\n"))
    return folder / PAGE


def queue_table(review: Review) -> pd.DataFrame:
    """Returns a row for each candidate, in the order of the page."""
    classes = review.classes
    rows = [
        {
            "id": guard_text(one.id),
            "source": guard_text(one.source),
            "candidate_for": guard_text(classes[one.label]),
            "probability": round(float(one.calibrated[one.label]), 4),
            "value": round(one.value, 4),
            "nearest": guard_text(one.neighbours[0].image if one.neighbours else ""),
        }
        for one in review.proposals
    ]
    return pd.DataFrame(rows)


def guard_text(text: str) -> str:
    """Returns the cell of a CSV file that a spreadsheet program shows as this text."""
    return TEXT_MARK + text if text.startswith(FORMULA_STARTS) else text


def view_of(review: Review) -> ReviewView:
    """Returns the content of the page."""
    classes = review.classes
    cards = [_card(place, one, classes) for place, one in enumerate(review.proposals)]
    places = {
        label: [place for place, one in enumerate(review.proposals) if one.label == label] for label in classes.rare_ids
    }
    sections = [
        Section(
            number,
            classes[label],
            describe_candidates(review, label),
            tuple(cards[place] for place in places[label]),
        )
        for number, label in enumerate(classes.rare_ids)
    ]
    buttons = [
        ClassButton(label, name, CLASS_KEYS[label] if label < len(CLASS_KEYS) else "")
        for label, name in enumerate(classes)
    ]
    return ReviewView(
        title=f"Review of {plural(len(cards), 'candidate')}",
        headline=f"Which of these landmarks are rare? {review.facts.model_name} proposes "
        f"{plural(len(cards), 'candidate')} of {plural(review.images, 'image')} that nobody has labelled.",
        notes=_notes(review),
        sections=tuple(sections),
        buttons=tuple(buttons),
        digest=review.digest,
        command=_next_command(review),
        settings={
            "digest": review.digest,
            "classes": list(classes.names),
            "keys": {button.key: button.label for button in buttons if button.key},
            "images": [[one.id, one.source] for one in review.proposals],
            "columns": COLUMNS,
            "formulaStarts": FORMULA_STARTS,
            "textMark": TEXT_MARK,
        },
    )


def describe_candidates(review: Review, label: int) -> str:
    """Returns the number of candidates of a class, and how many of them are more likely than not to belong to it."""
    probabilities = [one.calibrated[label] for one in review.proposals if one.label == label]
    likely = sum(p >= 0.5 for p in probabilities)
    return f"{plural(len(probabilities), 'candidate')}, {likely} with a probability of 0.5 or more"


def _next_command(review: Review) -> str:
    """Returns the command that adds the labels to the training data."""
    data = shlex.quote(review.training.name) if review.training else "DATA"
    return f"hirise-imb data add LABELS.csv --data {data} --images {shlex.join(review.places)} --out FOLDER"


def _notes(review: Review) -> tuple[str, ...]:
    """Returns sentences on how the queue was made."""
    notes = [
        "Candidates of a class are in the order of their expected value: their calibrated probability, up to twice as "
        f"much where the model is uncertain. At most {review.per_source} of a class are from one source. "
        "Near-duplicates are shown once, and so is an image that could belong to several classes."
    ]
    if review.training:
        origin = ", which the model was trained on," if review.training.is_of_model else ""
        notes.append(
            f"Next to a candidate are the nearest landmarks of its class in {review.training.name}{origin} with the "
            "cosine similarity of their features."
        )
    else:
        notes.append("The landmarks that the model was trained on are not shown: name them with --data.")
    if review.training and review.labelled:
        notes.append(f"{plural(review.labelled, 'image')} of {review.training.name} were left out.")
    if review.errors:
        notes.append(f"{plural(review.errors, 'image')} could not be predicted.")
    return tuple(notes)


def _card(place: int, one: Proposal, classes: ClassSet) -> Card:
    order = np.argsort(-one.calibrated, kind="stable")
    shown = [int(label) for label in order[:4]]
    if one.label not in shown:
        shown[-1] = one.label
    return Card(
        place,
        title=f"Candidate {place + 1}: {classes[one.label]}, probability {score(one.calibrated[one.label])}",
        id=one.id,
        source=one.source,
        address=encode_data_url(one.pixels, _CROP),
        bars=tuple(
            Bar(
                classes[label],
                f"{percent(float(one.calibrated[label]))} %",
                max(1, round(100 * float(one.calibrated[label]))),
                label == one.label,
            )
            for label in shown
        ),
        pictures=tuple(_picture(neighbour) for neighbour in one.neighbours),
    )


def _picture(neighbour: Neighbour) -> Picture:
    return Picture(
        neighbour.image, neighbour.source, score(neighbour.similarity), encode_data_url(neighbour.pixels, _THUMBNAIL)
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        # The stylesheet of reports serves this page too.
        loader=ChoiceLoader([PackageLoader("hirise_imb.review"), PackageLoader("hirise_imb.reporting.html")]),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    script = environment.get_template("review.js.jinja").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "script": Markup(script),
        # The hash allows this script and no other, whatever the names contain that the page shows.
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
    }
    return environment
