"""Commands run in hostile environments: variables, streams, permissions, paths."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from study_processes import read_results

import hirise_imb
from hirise_imb.utils.files import CACHE_VARIABLE
from torture import small_study
from torture.attacks import Area, Attempt, Outcome, attack
from torture.commands import DEADLINE, LAUNCHER, Finished, environment

TESTS = Path(__file__).parents[1]

VARIABLES: Final[dict[str, Sequence[str | None]]] = {
    "KERAS_BACKEND": ("jax", "torch", "nonsense"),
    "PYTHONIOENCODING": ("latin-1", "ascii", "cp1252:strict"),
    "LC_ALL": ("C", "POSIX", "de_DE.UTF-8", "nonsense"),
    "LANG": ("de_DE", None),
    "PYTHONUTF8": ("0",),
    "PYTHONCOERCECLOCALE": ("0",),
    "PYTHONHASHSEED": ("0", "1", "random"),
    "PYTHONOPTIMIZE": ("1", "2"),
    "PYTHONWARNINGS": ("error", "always", "nonsense"),
    "PYTHONDEVMODE": ("1",),
    "PYTHONUNBUFFERED": ("1",),
    "PYTHONDONTWRITEBYTECODE": ("1",),
    "MPLBACKEND": ("nonsense", "tkagg", "module://nothing"),
    "MPLCONFIGDIR": ("/proc/nothing",),
    "SOURCE_DATE_EPOCH": ("nonsense", "-1", "99999999999999999999"),
    "TZ": ("Asia/Kathmandu", "nonsense", ":/dev/null"),
    "NUMBA_CACHE_DIR": ("/proc/nothing",),
    "OMP_NUM_THREADS": ("nonsense", "0", "-3", "64"),
    "TF_NUM_INTRAOP_THREADS": ("nonsense", "1"),
    "TF_CPP_MIN_LOG_LEVEL": ("nonsense", "0"),
    "CUDA_VISIBLE_DEVICES": ("nonsense", "-1", "7"),
    "XLA_FLAGS": ("--nonsense",),
    "HOME": ("/nonexistent", "/proc", "", None),
    "XDG_CACHE_HOME": ("/proc/nothing", ""),
    "TMPDIR": ("/nonexistent", ""),
    "COLUMNS": ("0", "1", "-5", "nonsense", "999999999"),
    "LINES": ("0", "nonsense"),
    "TERM": ("dumb", "nonsense", "", None),
    "NO_COLOR": ("1",),
    "FORCE_COLOR": ("1",),
    "GIT_DIR": ("/nonexistent",),
    "USER": ("", None),
}
"""What variables are set to; none unsets them."""

MATPLOTLIBRC = """
text.usetex: True
font.family: nonsense
font.size: 40
svg.fonttype: path
svg.hashsalt: other
figure.facecolor: red
savefig.dpi: 20
savefig.bbox: tight
path.sketch: 1, 100, 2
axes.prop_cycle: cycler("color", ["r"])
nonsense: 3
"""

CHECK: Final = ("data", "check")

LIMITED: Final = (0, 1, 2, 3)
"""Capabilities of root to change owners and to read and write what permissions forbid (linux/capability.h)."""


def run(
    words: Sequence[object],
    variables: dict[str, str | None],
    prepare: Callable[[], None] | None = None,
    cwd: Path | None = None,
    program: Sequence[str] = (str(LAUNCHER),),
) -> Finished:
    """Runs a command whose output may be in any encoding.

    Args:
        words: arguments.
        variables: changes of the environment; none unsets a variable.
        prepare: called in the process before the command starts.
        cwd: current folder of the process.
        program: what Python runs; the default knows the toy backbone and draws nothing.
    """
    env = environment(PYTHONPATH=str(Path(hirise_imb.__file__).parents[1]))
    for name, value in variables.items():
        env.pop(name, None)
        if value is not None:
            env[name] = value
    finished = subprocess.run(
        [sys.executable, *program, *map(str, words)],
        env=env,
        cwd=cwd,
        preexec_fn=prepare,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=DEADLINE,
    )
    return Finished(finished.returncode, finished.stdout, finished.stderr)


def draw_variables(draw: random.Random) -> dict[str, str | None]:
    """Draws a setting for about half of the variables."""
    chosen = [name for name in VARIABLES if draw.random() < 0.5]
    return {name: draw.choice(VARIABLES[name]) for name in chosen}


def draw_limits(draw: random.Random) -> Callable[[], None]:
    """Draws streams that are closed, a mask of permissions, and how many files may be open."""
    closed = [stream for stream in range(3) if draw.random() < 0.4]
    mask, files = draw.choice((0o022, 0o077, 0o000)), draw.choice((64, 256, 1024))

    def prepare() -> None:
        os.umask(mask)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        for stream in closed:
            os.close(stream)

    return prepare


def become_ordinary() -> None:
    """Takes root's right to ignore permissions from the programs that this process starts."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in LIMITED:
            if libc.prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
                raise OSError(ctypes.get_errno(), "prctl")


@attack(Area.ENVIRONMENT, "A study with random variables, closed streams and limits", tries=4, quick=0)
def hostile_environment(attempt: Attempt) -> Outcome:
    small_study.undisturbed(attempt)
    out, draw = attempt.folder / "out", attempt.random
    variables = draw_variables(draw)
    finished = run(small_study.words(attempt, out), variables, draw_limits(draw), attempt.folder)
    finished.expect_success()
    small_study.expect_same_report(attempt, out)
    return Outcome.SAME


@attack(Area.ENVIRONMENT, "Short commands with random variables, closed streams and limits", tries=30, quick=2)
def hostile_environment_of_short_commands(attempt: Attempt) -> Outcome:
    draw = attempt.random
    words = draw.choice(
        [("--help",), ("run", "--help"), ("strategies",), ("strategies", "focal_loss"), ("data", "check")]
    )
    if words == CHECK:
        words = (*words, str(small_study.data(attempt)))
    program = ("-m", "hirise_imb.study")
    run(words, draw_variables(draw), draw_limits(draw), attempt.folder, program).expect_success()
    if draw.random() < 0.5:
        # All that is printed stays legible in an encoding that lacks some of it.
        plain = run(words, {"PYTHONIOENCODING": "ascii"}, None, attempt.folder, program).expect_success()
        assert plain.out.isascii()
        assert len(plain.out) > 200
        assert "\\u" not in plain.out, plain.out
    return Outcome.CORRECT


@attack(Area.ENVIRONMENT, "The reader of a command's output ends before the command", tries=12, quick=1)
def output_without_reader(attempt: Attempt) -> Outcome:
    words = attempt.random.choice(
        [
            ("strategies",),
            ("completion", "bash"),
            ("completion", "zsh"),
            ("data", "check", str(small_study.data(attempt))),
        ]
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "hirise_imb.study", *words],
        env=environment(PYTHONPATH=str(Path(hirise_imb.__file__).parents[1])),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        messages = process.stderr.read()
    assert process.wait(DEADLINE) in (0, 1, 2)
    assert "Traceback" not in messages, messages
    assert "Exception ignored" not in messages, messages
    return Outcome.REFUSED


@attack(Area.ENVIRONMENT, "Figures drawn under a hostile `matplotlibrc`, and one that is no text", tries=3, quick=0)
def hostile_matplotlibrc(attempt: Attempt) -> Outcome:
    study = small_study.undisturbed(attempt) / "reports" / small_study.NAME
    program = ("-m", "hirise_imb.study")

    def make(folder: Path) -> None:
        shutil.copytree(study, folder)
        run(("report", folder), {}, None, None, program).expect_success()

    expected, report = attempt.prepare("report-with-figures", make), attempt.folder / "report"
    shutil.copytree(study, report)
    settings = attempt.folder / "matplotlibrc"  # the current folder's takes precedence
    settings.write_bytes(attempt.random.randbytes(300) + b"\xff")
    run(("report", report), {}, None, attempt.folder, program).expect_sentence("matplotlibrc")
    settings.write_text(MATPLOTLIBRC)
    variables = draw_variables(attempt.random)
    run(("report", report), variables, None, attempt.folder, program).expect_success()
    for path in expected.rglob("*"):
        if path.is_file():
            assert (report / path.relative_to(expected)).read_bytes() == path.read_bytes(), path
    return Outcome.SAME


@attack(
    Area.ENVIRONMENT,
    "A study by an ordinary user without a home, from a read-only installation",
    tries=2,
    quick=0,
)
def read_only_installation(attempt: Attempt) -> Outcome:
    small_study.undisturbed(attempt)

    def install(folder: Path) -> None:
        source = Path(hirise_imb.__file__).parent
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in folder.rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)

    installation, out = attempt.prepare("read-only", install), attempt.folder / "out"
    before = sorted(installation.rglob("*"))
    variables: dict[str, str | None] = {"PYTHONPATH": str(installation), "HOME": "/nonexistent", "USER": None}
    run(small_study.words(attempt, out), variables, become_ordinary, attempt.folder).expect_success()
    assert sorted(installation.rglob("*")) == before
    small_study.expect_same_report(attempt, out)
    return Outcome.SAME


PIECES: Final = (
    *(" ", "ü", "u\u0308", "日本", "'", '"', "[x]", "[/red]", "[bold]", "%s", "%20", "?", "#", "&", "=", ";", "*", "~"),
    *("$HOME", "{name}", "\\", "-", "--out", "<b>", "@", ",", "|", "\n", "\t", "."),
)
"""What names of folders are made of."""


def draw_name(draw: random.Random) -> str:
    """Draws a name, sometimes a very long one."""
    pieces = [draw.choice([*PIECES, "a"]) for _ in range(draw.randint(2, 6))]
    return "".join(pieces) + draw.choice(("z", "z" * 150))


@attack(Area.ENVIRONMENT, "A study in folders with hostile names: spaces, quotes, markup, line feeds", tries=4, quick=0)
def strange_paths(attempt: Attempt) -> Outcome:
    small_study.undisturbed(attempt)
    draw = attempt.random
    folder = attempt.folder / draw_name(draw)
    folder.mkdir(parents=True)  # a name with a slash is two folders
    data, out, cache = f"d{draw_name(draw)}", draw_name(draw), draw_name(draw)
    shutil.copytree(small_study.data(attempt), folder / data)
    words = [word for word in small_study.words(attempt, folder) if word not in ("--out", folder)]
    at = words.index("--data")
    words[at : at + 2] = [f"--data={data}", f"--out={out}"]
    run(words, {CACHE_VARIABLE: cache}, None, folder).expect_success()
    elsewhere = {path.name for path in folder.iterdir()} - {Path(name).parts[0] for name in (data, out, cache)}
    assert not elsewhere, f"something was written elsewhere: {elsewhere}"
    expected = read_results(small_study.undisturbed(attempt) / "reports" / small_study.NAME)
    actual = read_results(folder / out / "reports" / small_study.NAME)
    for name in expected:
        if name.endswith((".csv", ".parquet")):  # the summary names the data
            assert actual[name] == expected[name], name
    return Outcome.CORRECT
