"""Definitions of studies that are hostile, absurd or damaged."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from hirise_imb.config import StudyDefinition, load_definition
from hirise_imb.search import strategies_to_search
from hirise_imb.strategies import STRATEGIES
from hirise_imb.training.context import load_manifest
from torture import small_study
from torture.attacks import Area, Attempt, Outcome, attack
from torture.commands import call
from torture.refusals import read_or_refuse

_NUMBERS = ("trials", "fine_tuning_trials", "trial_seeds", "inner_seeds", "outer_folds", "repeats", "refits", "seed")
_TEXTS = ("name", "data", "dataset", "backbone", "weights", "features", "precision", "images", "metric")
_TABLES = ("[strategies.focal_loss]\n", "[strategies.oversampling]\n", "[strategies.plain]\n")

_MARKUP = ("<script>alert(1)</script>", "[red]x[/red]", "=1+1", "\\u001b[2J", "\\u202e", "[/]")
_COSTS = ("nan", "inf", "-1", "1e308", "9" * 5000, "x")

_VALUES: tuple[Callable[[random.Random], str], ...] = (
    lambda rng: "9" * rng.choice([5, 19, 25, 4300, 4301, 20_000]),
    lambda rng: f"-{rng.getrandbits(200)}",
    lambda rng: f"0x{'f' * rng.choice([16, 17, 10_000])}",
    lambda rng: rng.choice(["nan", "-inf", "inf", "1e999", "-0.0", "1e-400", "true", "0b1", "0o7"]),
    lambda rng: rng.choice(["1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "9999-12-31T23:59:59.999999+23:59"]),
    lambda rng: "[" * (depth := rng.choice([1, 17, 400, 3000])) + "]" * depth,
    lambda rng: "{a = " * (depth := rng.choice([1, 17, 400])) + "1" + "}" * depth,
    lambda rng: f'["{"a" * 10}", 1, [2], {{b = 3}}]',
    lambda rng: "{low = nan, high = inf}",
    lambda rng: f"{{low = {rng.choice(['1', '-1e308', '1e308', '0', '9' * 18])}}}",
    lambda rng: rng.choice(
        ['""', '" "', '"a\\u0000b"', '"..\\\\.."', '"/dev/null"', '"~"', '"$"', '"$HOME"', '"$X\\u0000"']
    ),
    lambda rng: f'"{rng.choice(_MARKUP)}"',
    lambda rng: f'"{"a" * rng.choice([101, 5000, 100_000])}"',
    lambda rng: '"recall_at_precision:' + rng.choice(["nan", "inf", "1e999", "-1", "0", "", "1", "9" * 5000]) + '"',
    lambda rng: f'["crater, other, {rng.choice(_COSTS)}"]',
    lambda rng: (
        '["' + '", "'.join(rng.choices([*STRATEGIES, "plain", "PLAIN", "", "a b"], k=rng.randint(1, 40))) + '"]'
    ),
    lambda rng: '["given-split", "given-split"]',
)


def _read(attempt: Attempt, path: Path) -> Outcome:
    """Reads a definition as `run` does, up to its strategies and its data."""

    def read() -> bool:
        definition = load_definition(path, {})
        text = definition.to_toml()
        again = attempt.folder / "again.toml"
        again.write_text(text, encoding="utf-8")
        assert load_definition(again, {"name": definition.name}) == definition
        strategies_to_search(definition)
        if definition.data == str(small_study.data(attempt)):
            load_manifest(definition)
        return True

    return Outcome.CORRECT if read_or_refuse(read) else Outcome.REFUSED


@attack(
    Area.DATA,
    "Definition with a value of another type, thousands of digits or brackets, NaN, dates, markup, absurd numbers",
    tries=300,
    quick=2,
)
def odd_definition(attempt: Attempt) -> Outcome:
    rng = attempt.random
    lines = [f'data = "{small_study.data(attempt)}"\n'] if rng.random() < 0.7 else []
    keys = [key.name for key in fields(StudyDefinition)]
    chosen = rng.choices([*_NUMBERS, *_TEXTS, *keys, "trails", "x.y", '""'], k=rng.randint(1, 2))
    lines += [f"{key} = {rng.choice(_VALUES)(rng)}\n" for key in dict.fromkeys(chosen)]
    if rng.random() < 0.5:
        for table in rng.sample(_TABLES, rng.randint(1, 3)):
            parameter = rng.choice(
                ["gamma", "weights", "scheme", "learning_rate", "x", "a." * rng.choice([1, 2000]) + "b"]
            )
            lines.append(f"{table}{parameter} = {rng.choice(_VALUES)(rng)}\n")
    path = attempt.folder / "study.toml"
    path.write_text("".join(lines), encoding="utf-8")
    return _read(attempt, path)


@attack(Area.DATA, "Bytes of a definition changed, removed or repeated at random", tries=300)
def definition_bytes_changed(attempt: Attempt) -> Outcome:
    rng = attempt.random
    content = bytearray(rng.choice(sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))).read_bytes())
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(content))
        match rng.randrange(4):
            case 0:
                content[place] = rng.choice([0, 9, 34, 44, 61, 91, 93, 123, 255, rng.randrange(256)])
            case 1:
                del content[place : place + rng.randint(1, 60)]
            case 2:
                content[place:place] = content[place : place + rng.randint(1, 60)]
            case 3:
                content[place:place] = rng.choice([b"\xef\xbb\xbf", b"\r", b"[", b"\0", b'"""', b"=", b"\xff", b"_9"])
    path = attempt.folder / "study.toml"
    path.write_bytes(content)
    return _read(attempt, path)


@attack(Area.DATA, "Absurd numbers on the command line", tries=40)
def absurd_numbers(attempt: Attempt) -> Outcome:
    rng = attempt.random
    option = rng.choice(
        [
            "trials",
            "fine-tuning-trials",
            "trial-seeds",
            "inner-seeds",
            "outer-folds",
            "repeats",
            "refits",
            "seed",
            "workers",
        ]
    )
    numbers = [-1, 2**32, 400_000_000_000, 10**18, 10**4000, "9" * 5000, "1e3", "nan", "٣٣٣٣٣٣٣٣٣٣٣", "", "0x10"]
    number = rng.choice(numbers if option == "seed" else [*numbers, 400_000_000])
    call("run", f"--{option}={number}", "--out", attempt.folder, "--dry-run").expect_sentence()
    assert not list(attempt.folder.iterdir())
    return Outcome.REFUSED
