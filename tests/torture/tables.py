"""Published tables that are damaged, hostile or too large."""

from __future__ import annotations

import json
import random
import resource
import time

import pytest

from hirise_imb.utils.strict_json import parse_json
from torture.attacks import Area, Attempt, Outcome, attack
from torture.commands import call

_TABLE = """class,precision,recall,f1,support
other,0.95,0.97,0.96,900
crater,0.80,0.70,0.75,150
dark dune,0.50,0.40,0.44,20
"""
_CELLS = (
    *("0.840", "1e5", "-0.5", "nan", "inf", "0." + "3" * 5000, "9" * 5000, "1.0", "", " ", "0,5", "٠.٥", "0x1", "²"),
    *("=1+1", "[red]x[/red]", "\x1b[2J", "a\rb", "<b>", '"', "\u202ex", "other", "class", "macro avg", "x" * 100_000),
)
_SECONDS = 60.0
"""Longest time of an examination that is not refused."""


@attack(Area.DATA, "A published table with damaged or hostile cells, lines, encodings and supports", tries=40)
def damage_table(attempt: Attempt) -> Outcome:
    was_refused = False
    for _ in range(25):
        path = attempt.folder / "table.csv"
        path.write_bytes(_damage(_TABLE, attempt.random))
        given = (["--supports", "1,2,3"], ["--decimals", "99"], ["--accuracy", "\x1b[2J"])
        result = call("forensics", path, *attempt.random.choice([[], [], *given]))
        assert "\x1b" not in result.out + result.err
        assert len(result.err) < 10_000
        was_refused |= result.code != 0
        if result.code:
            # One message may list several faults, each in a line.
            assert result.code == 2
            assert "error: " in result.err
            assert "Traceback" not in result.err
    return Outcome.REFUSED if was_refused else Outcome.CORRECT


def _damage(table: str, choices: random.Random) -> bytes:
    """Returns a table with one to three changes."""
    content = table.encode()
    for _ in range(choices.randint(1, 3)):
        lines = content.decode("utf-8", "replace").splitlines() or [""]
        line = choices.randrange(len(lines))
        cells = lines[line].split(",")
        match choices.randrange(7):
            case 0 | 1 | 2:
                cells[choices.randrange(len(cells))] = choices.choice(_CELLS)
                lines[line] = ",".join(cells)
            case 3:
                lines.insert(line, choices.choice([lines[line], "", ",,,,", '"', "x" * 200_000]))
            case 4:
                del lines[line]
            case 5:
                lines[line] = choices.choice(["\r", "\x00", "\ufeff", "\x0c", "\u2028"]).join([lines[line], ""])
            case 6:
                rest = content[choices.randrange(len(content) + 1) :] or b"\n"
                content = choices.choice([rest, b"\xff" + content, content.replace(b"\n", b"\r\n"), content * 50, b""])
                continue
        content = "\n".join(lines).encode("utf-8", "surrogatepass")
    return content


def _peak_memory() -> int:
    """Returns the largest memory that this process has had, in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@attack(Area.DATA, "A published table of very many classes or labels, or one that prints hardly any figure", tries=8)
def grow_table(attempt: Attempt) -> Outcome:
    classes = attempt.random.choice([8, 30, 50, 300, 2000, 100_000])
    support = attempt.random.choice([1, 10, 1000, 10**4, 10**6, 10**12])
    figure = attempt.random.choice(["", "0.5", "0.50"])
    rows = [f"c{number},{figure if number else '0.5'},{figure},{support}" for number in range(classes)]
    path = attempt.folder / "table.csv"
    path.write_text("\n".join(["class,precision,f1,support", *rows]), encoding="utf-8")
    begin, peak = time.process_time(), _peak_memory()
    result = call("forensics", path)
    assert time.process_time() - begin < _SECONDS
    # The process may have needed more for something else before.
    assert _peak_memory() - peak < 4_000_000, "it takes more than 4 GB"
    if result.code:
        result.expect_sentence()
        return Outcome.REFUSED
    return Outcome.CORRECT


@attack(
    Area.DATA,
    "JSON with NaN, huge numbers, repeated keys, deep nesting or half surrogate pairs",
    tries=5,
)
def damage_json(attempt: Attempt) -> Outcome:
    value = [0.5, {"a": [1, "x"]}, None]
    assert parse_json(json.dumps(value)) == value
    documents = (
        *(b"[NaN]", b"[-Infinity]", b"[1e999]", b"[" + b"9" * 5000 + b"]", b"[9223372036854775808]"),
        *(b'{"a": 1, "a": 2}', b"[" * 200_000, b'{"a":' * 200_000, b'["\\ud800"]', b'["\\uDFFF"]'),
        *(b"\xff\xfe[\x00]\x00", b"\xef\xbb\xbf[]", b"", b"[1", b"[01]"),
    )
    for text in (*documents, b"[1]" + bytes([attempt.random.randrange(33, 256)])):
        with pytest.raises(ValueError, match=r"^.{1,300}$"):
            parse_json(text)
    return Outcome.REFUSED
