"""The forensics command: what it prints, and that a table with faults is refused in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hirise_imb
from hirise_imb.cli.main import main

PUBLISHED = Path(hirise_imb.__file__).parent / "forensics" / "published.csv"
SUPPORTS = ("--supports", "1482,89,66,49,16,7,42,42")

GOOD = "class,precision,recall,f1\ncat,0.90,0.90,0.90\ndog,0.80,0.80,0.80\n"

Command = Callable[..., str]


@pytest.fixture
def prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command, which must succeed and fit the terminal; return what it prints."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: object) -> str:
        assert main(["forensics", *map(str, arguments)]) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        assert [line for line in printed.out.splitlines() if len(line) > 80] == []
        return printed.out

    return call


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command, which must be refused: exit code 2, one sentence, nothing else. Return the sentence."""

    def call(*arguments: object) -> str:
        assert main(["forensics", *map(str, arguments)]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("error: ") == 1
        assert printed.err.startswith("error: ")
        assert printed.err.endswith(".\n")
        assert "Traceback" not in printed.err
        return printed.err[7:]

    return call


def flat(text: str) -> str:
    """Printed text without line ends and repeated spaces."""
    return " ".join(text.split())


def row(text: str, name: str) -> list[str]:
    """The cells of the row of a class."""
    return next(line for line in text.splitlines() if line.startswith(f"{name} ")).removeprefix(name).split()


# --- what is printed ---


def test_the_published_table_with_its_supports(prints: Command) -> None:
    text = prints(PUBLISHED, *SUPPORTS)
    assert "Verdict: no better than a shuffled pairing." in text
    assert "No joint solution has clearly more hits than random pairings" in flat(text)
    assert "together 1,793 predictions" in flat(text)
    assert row(text, "other") == ["1,482", "0.823", "0.858", "0.840", "1,271–1,272", "1,544–1,546", "1,276–1,278"]
    assert row(text, "crater") == ["89", "0.014", "0.011", "0.012", "1", "71–74", "3.5–3.7"]
    assert row(text, "dark dune") == ["66", "0.016", "0.015", "0.016", "1", "61–63", "2.2–2.3"]
    assert row(text, "slope streak") == ["49", "0.057", "0.041", "0.048", "2", "35", "1.0"]
    assert row(text, "swiss cheese") == ["42", "0.023", "0.024", "0.024", "1", "43", "1.0"]
    # n m / N by hand: other 1,544, crater 71, dark dune 61 and 39 impact ejecta against other 1,546, crater 74, dark
    # dune 63 and 32 spiders.
    assert row(text, "hits")[:2] == ["1,276–1,277", "1,284.1–1,286.5"]
    assert row(text, "rare hits")[0] == "5"
    assert row(text, "macro recall") == ["0.119", "0.125"]


def test_a_typo_is_no_error_but_a_verdict_that_names_class_and_figure(
    prints: Command, write: Callable[[str], Path]
) -> None:
    text = PUBLISHED.read_text(encoding="utf-8")
    assert "0.041" in text
    out = prints(write(text.replace("0.041", "0.047")), *SUPPORTS)
    assert "Verdict: inconsistent with these supports." in out
    # 2 / 49 = 0.0408 and 3 / 49 = 0.0612.
    assert "Slope streak: recall 0.047 is not a possible share of 49 labels; the nearest are 0.041 and 0.061." in flat(
        out
    )
    assert row(out, "slope streak") == ["49", "0.057", "0.047", "0.048", "none", "none", "–"]
    assert "kappa" not in out


def test_a_wrong_support_is_a_verdict(prints: Command) -> None:
    out = prints(PUBLISHED, "--supports", "1482,89,66,66,16,7,42,42")
    assert "Verdict: inconsistent with these supports." in out
    assert "Slope streak: recall 0.041 is not a possible share of 66 labels" in flat(out)


def test_a_good_table_is_better_than_chance(prints: Command, write: Callable[[str], Path]) -> None:
    out = prints(write(GOOD), "--supports", "100,50")
    assert "Verdict: better than chance." in out
    assert row(out, "cat") == ["100", "0.90", "0.90", "0.90", "90", "100", "66.7"]


@pytest.mark.parametrize(
    ("option", "right", "wrong"),
    [
        ("--accuracy", "0.712", "0.823"),
        ("--macro-precision", "0.117", "0.119"),
        ("--macro-recall", "0.119", "0.125"),
        ("--macro-f1", "0.118", "0.121"),
    ],
)
def test_an_average_goes_with_the_rows_or_not(prints: Command, option: str, right: str, wrong: str) -> None:
    assert "Verdict: no better" in prints(PUBLISHED, *SUPPORTS, option, right)
    out = flat(prints(PUBLISHED, *SUPPORTS, option, wrong))
    assert "Verdict: inconsistent with these supports." in out
    assert f"{option[2:].replace('-', ' ').capitalize()} {wrong} is out of reach: the rows allow" in out


def test_long_names_and_many_classes_fit_80_columns(prints: Command, write: Callable[[str], Path]) -> None:
    rows = [f"{'a class with a name without end ' * 3}{n},0.{n},0.{n},0.{n},{10**4 + n}" for n in range(12)]
    rows += [f"{'x' * 90},,,,3"]
    out = prints(write("class,precision,recall,f1,support\n" + "\n".join(rows) + "\n"))
    # Names are folded, not cut.
    assert flat(out).count("a class with") == 36
    assert out.count("x") >= 90
    assert "Verdict: " in out


def test_zero_is_printed_without_a_sign(prints: Command, write: Callable[[str], Path]) -> None:
    printed = prints(write("class,recall,support\na,0.00,10\nb,0.00,10\n"))
    assert row(printed, "macro recall")[:2] == ["0.000", "0.500"]


def test_brackets_in_a_class_name_are_printed(prints: Command, write: Callable[[str], Path]) -> None:
    out = prints(write("class,recall,support\na[/x],0.5,10\n[bold]b[/bold],0.47,10\n"))
    assert "a[/x] " in out
    assert "[bold]b[/bold] " in out
    assert "[bold]b[/bold]: recall 0.47 is not a possible share of 10 labels" in flat(out)


def test_the_command_needs_no_tensorflow() -> None:
    script = (
        "import contextlib, io, json, sys\nfrom hirise_imb.study import main\ntext = io.StringIO()\n"
        "with contextlib.redirect_stdout(text):\n    code = main(json.loads(sys.argv[1]))\n"
        "heavy = {'tensorflow', 'keras', 'optuna', 'matplotlib'} & set(sys.modules)\n"
        "print(json.dumps([code, sorted(heavy), 'Verdict: no better than' in text.getvalue()]))"
    )
    words = json.dumps(["forensics", str(PUBLISHED), *SUPPORTS])
    done = subprocess.run([sys.executable, "-c", script, words], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0, [], True]
    assert done.stderr == ""


# --- what is refused ---


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (GOOD.replace("0.90,0.90\n", "1.90,0.90\n"), (), ["recall of 'cat'", "'1.90'", "above 1"]),
        (GOOD.replace("0.80,0.80\n", "n/a,0.80\n"), (), ["recall of 'dog'", "'n/a'", "not a number"]),
        (GOOD.replace("0.90", "90%"), (), ["precision of 'cat'", "'90%'", "not a number"]),
        (GOOD.replace("0.90", "90"), (), ["precision of 'cat'", "'90'", "not percentages"]),
        (GOOD, ("--supports", "100"), ["2 classes", "--supports gives 1;", "cat, dog"]),
        (GOOD, ("--supports", "100,50,3"), ["2 classes", "--supports gives 3;", "cat, dog"]),
        (GOOD, ("--supports", "100,"), ["--supports", "''"]),
        (GOOD, ("--supports", "100,-5"), ["--supports", "'-5'"]),
        (GOOD, ("--supports", "100,5.5"), ["--supports", "'5.5'"]),
        (GOOD, ("--supports", "0,1"), ["they must be 2 to 1,000,000 together"]),
        (GOOD, ("--supports", f"{10**11},10"), ["100,000,000,010", "1,000,000"]),
        (f"class,f1,support\na,0.5,{'9' * 199}\nb,0.5,4\n", None, ["1,000,000"]),
        ("class,f1,support\na,0.5,4\nMacro_Avg,0.5,4\n", None, ["'Macro_Avg' is not a class"]),
        ("class,f1,support\n\n\na,0.5,4\nb,0.5\n", None, ["2 cells in line 5"]),
        (GOOD, None, ["no column `support`", "--supports"]),
        ("class,f1,support\na,0.5,4\nb,0.5,4\n", (), ["has a column `support`", "--supports"]),
        ("class,f1,support\na,0.5,4\nb,0.5,many\n", None, ["support of 'b'", "'many'"]),
        ("class,f1,support\na,0.5,4\nb,0.5,4.5\n", None, ["support of 'b'", "'4.5'"]),
        ("class,f1,support\na,0.5,4\nb,0.5,\n", None, ["support of 'b'", "''"]),
        ("class,score\na,0.5\nb,0.5\n", (), ["column 'score'", "precision, recall, f1"]),
        ("name,f1\na,0.5\nb,0.5\n", (), ["column 'name'", "class"]),
        ("f1\n0.5\n0.5\n", (), ["column `class`", "precision, recall, f1"]),
        ("class,f1,F1-score\na,0.5,0.5\nb,0.5,0.5\n", (), ["column twice"]),
        (GOOD.replace("dog", "cat"), (), ["'cat' appears twice"]),
        (GOOD.replace("dog", ""), (), ["no name"]),
        (GOOD.replace("dog", "macro avg"), (), ["'macro avg' is not a class", "option"]),
        (GOOD.replace("dog", "accuracy"), (), ["'accuracy' is not a class"]),
        (GOOD.replace("dog,0.80", "dog"), (), ["3 cells in line 3", "4 columns"]),
        (GOOD.replace("0.90\n", "0.90,0.90\n"), (), ["5 cells in line 2", "4 columns"]),
        ("", (), ["two or more classes"]),
        ("class,f1\na,0.5\n", (), ["two or more classes"]),
        (GOOD, ("--decimals", "1"), ["precision of 'cat'", "'0.90'", "more than 1 decimals"]),
        (GOOD, ("--decimals", "11"), ["decimals is 11", "0 to 10"]),
        (GOOD, ("--decimals", "-1"), ["decimals is -1", "0 to 10"]),
        (GOOD, ("--accuracy", "87 %"), ["--accuracy is '87 %'", "not a number"]),
        (GOOD, ("--macro-f1", "85"), ["--macro-f1 is '85'", "not percentages"]),
    ],
)
def test_a_table_with_a_fault_is_refused(
    refused: Command, write: Callable[[str], Path], text: str, options: tuple[str, ...] | None, said: list[str]
) -> None:
    path = write(text)
    supports = () if options is None or "--supports" in options else ("--supports", "100,50")
    sentence = refused(path, *supports, *(options or ()))
    for words in said:
        assert words in sentence
    # Faults of an option name the option, all others the file.
    assert str(path) in sentence or sentence.startswith(("--accuracy", "--macro-f1", "The number of decimals"))


def test_all_faults_are_told_at_once(refused: Command, write: Callable[[str], Path]) -> None:
    text = "class,precision,recall,f1,support\ncat,1.5,x,0.9,3\ncat,0.5,,2,none\n"
    lines = refused(write(text)).splitlines()
    assert len(lines) == 5
    faults = ["appears twice", "precision of 'cat', '1.5'", "recall of 'cat', 'x'", "f1 of 'cat', '2'", "support of"]
    assert [fault for fault, line in zip(faults, lines, strict=True) if fault not in line] == []


def test_what_is_no_table_is_refused(refused: Command, tmp_path: Path) -> None:
    assert "There is no table" in refused(tmp_path / "missing.csv", *SUPPORTS)
    assert "not a CSV file" in refused(tmp_path, *SUPPORTS)
    path = tmp_path / "latin.csv"
    path.write_bytes("class,f1\ncaf\xe9,0.5\nb,0.5\n".encode("latin-1"))
    assert "not a CSV file in UTF-8" in refused(path, *SUPPORTS)
    path.write_bytes("class,f1\na,0.5\nb,0.5\n".encode("utf-16"))
    assert "not a CSV file in UTF-8" in refused(path, *SUPPORTS)
    assert "not a CSV file" in refused(Path(hirise_imb.__file__).parent, *SUPPORTS)


def test_a_word_for_the_number_of_decimals_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["forensics", str(PUBLISHED), *SUPPORTS, "--decimals", "three"])
    assert "--decimals" in capsys.readouterr().err
