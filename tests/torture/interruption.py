"""Commands are interrupted at random moments and given again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from study_processes import read_results

from hirise_imb.training.array_file import DamagedFile, read_verified, write_verified
from hirise_imb.utils.files import CACHE_VARIABLE
from torture import small_study
from torture.attacks import Area, Attempt, Outcome, attack
from torture.commands import DEADLINE, Finished, environment, finish, start

PROGRAMS = Path(__file__).with_name("interrupted_programs.py")
MOMENTS = 10
"""Interruptions of one attempt, one after the other, before the command may end."""
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
MESSAGE = re.compile(r"interrupted: .+; the same command continues from there\.")
LOG_LINE = re.compile(r"\d\d:\d\d:\d\d .+")


# --- a process, its interruption, and what it leaves ---


def wait_for_handlers(process: subprocess.Popen[str]) -> None:
    """Waits until a process handles SIGTERM: before, the interpreter starts, and no code of the suite has run."""
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
        if caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.002)
    raise AssertionError(f"the command ended before it handled signals\n{finish(process).err}")


def descendants(pid: int) -> list[int]:
    """Returns the processes that a process has started, and those that they have started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    children = [int(word) for word in text.split()]
    return [*children, *(inner for child in children for inner in descendants(child))]


def is_running(pid: int) -> bool:
    """Returns whether a process runs; one that has ended and nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def interrupt(process: subprocess.Popen[str], number: signal.Signals, seconds: float, *, group: bool = False) -> bool:
    """Interrupts a process after some seconds, and checks how it ends; returns whether it had not ended before.

    Args:
        process: a process that has just been started.
        number: signal.
        seconds: time after which the signal is sent, from when the process handles it.
        group: whether the whole group of processes gets it, as from the keyboard of a terminal.
    """
    wait_for_handlers(process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    family = descendants(process.pid)
    if process.poll() is None:
        if group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    finished = finish(process)
    expect_interruption(finished, number)
    end = time.monotonic() + DEADLINE
    while orphans := [pid for pid in family if is_running(pid)]:
        assert time.monotonic() < end, f"{len(orphans)} processes go on without their parent"
        time.sleep(0.05)
    return finished.code != 0


def expect_interruption(finished: Finished, number: signal.Signals) -> None:
    """Fails unless a process ended by itself, or by the signal and with one line that says how to go on."""
    assert "Traceback" not in finished.out + finished.err, finished.err
    if finished.code == 0:
        return
    if number == signal.SIGKILL:
        assert finished.code == -signal.SIGKILL, f"exit code {finished.code}\n{finished.err}"
        return
    assert finished.code == 130, f"exit code {finished.code}\n{finished.err}"
    *lines, last = finished.err.splitlines()
    assert MESSAGE.fullmatch(last), finished.err
    assert all(map(LOG_LINE.fullmatch, lines)), finished.err


def expect_no_leftovers(*folders: Path) -> None:
    """Fails if there are temporary files."""
    left = [path for folder in folders for path in folder.rglob(".*.part*")]
    assert not left, f"left: {', '.join(map(str, left))}"


# --- a study ---


def undisturbed_seconds(attempt: Attempt) -> dict[str, float]:
    """Returns how long a study takes undisturbed: in a new folder, and where only the report is missing."""

    def make(folder: Path) -> None:
        folder.mkdir()
        out = folder / "out"
        env = environment(**{CACHE_VARIABLE: str(folder / "cache")})
        seconds = {}
        for name in ("new", "report"):
            begin = time.monotonic()
            finish(start(*small_study.words(attempt, out), env=env)).expect_success()
            seconds[name] = time.monotonic() - begin
            shutil.rmtree(out / "reports")
        (folder / "seconds.json").write_text(json.dumps(seconds))

    small_study.undisturbed(attempt)  # compiles what is compiled once
    seconds: dict[str, float] = json.loads((attempt.prepare("seconds", make) / "seconds.json").read_text())
    return seconds


def copy_undisturbed(attempt: Attempt) -> Path:
    """Copies the undisturbed study and its cache for the attempt; returns its output folder."""
    out = small_study.undisturbed(attempt)
    shutil.copytree(out, attempt.folder / "out")
    shutil.copytree(out.with_name("cache"), os.environ[CACHE_VARIABLE], dirs_exist_ok=True)
    return attempt.folder / "out"


def prepare_state(attempt: Attempt) -> tuple[Path, float]:
    """Returns the output folder of a study from which something is still to be done, and about how long that takes."""
    seconds = undisturbed_seconds(attempt)
    out = copy_undisturbed(attempt)
    match attempt.random.choice(["extraction", "search", "refit", "report"]):
        case "extraction":
            shutil.rmtree(out)
            shutil.rmtree(os.environ[CACHE_VARIABLE])
            return out, seconds["new"]
        case "search":
            shutil.rmtree(out)
            return out, seconds["new"]
        case "refit":
            shutil.rmtree(out / "reports")
            shutil.rmtree(out / "studies" / f"{small_study.NAME}.runs")
            return out, seconds["report"]
        case _:
            shutil.rmtree(out / "reports")
            return out, seconds["report"]


def interrupt_repeatedly(attempt: Attempt, number: signal.Signals) -> Outcome:
    """Interrupts a study at random moments, one after the other, and then lets it end."""
    out, seconds = prepare_state(attempt)
    for _ in range(MOMENTS):
        process = start(*small_study.words(attempt, out))
        if not interrupt(process, number, attempt.random.uniform(0, seconds)):
            small_study.expect_same_report(attempt, out)
            shutil.rmtree(out / "reports")  # so that there is something to interrupt
    small_study.run(attempt, out).expect_success()
    small_study.expect_same_report(attempt, out)
    expect_no_leftovers(out, Path(os.environ[CACHE_VARIABLE]))
    return Outcome.SAME


@attack(Area.INTERRUPTION, f"`kill -9` of a run at {MOMENTS} random moments, then the same command", tries=5, quick=0)
def kill_run(attempt: Attempt) -> Outcome:
    return interrupt_repeatedly(attempt, signal.SIGKILL)


@attack(Area.INTERRUPTION, f"Ctrl-C of a run at {MOMENTS} random moments, then the same command", tries=5, quick=0)
def interrupt_run(attempt: Attempt) -> Outcome:
    return interrupt_repeatedly(attempt, signal.SIGINT)


@attack(Area.INTERRUPTION, f"SIGTERM to a run at {MOMENTS} random moments, then the same command", tries=5, quick=0)
def terminate_run(attempt: Attempt) -> Outcome:
    return interrupt_repeatedly(attempt, signal.SIGTERM)


@attack(
    Area.INTERRUPTION,
    "`kill -9`, Ctrl-C or SIGTERM of a run with two processes: none is left, and the same command goes on",
    tries=8,
    quick=0,
)
def interrupt_workers(attempt: Attempt) -> Outcome:
    seconds = undisturbed_seconds(attempt)["new"]
    copy_undisturbed(attempt)
    out = attempt.folder / "new"
    words = [*small_study.words(attempt, out), "--workers", 2]
    number = attempt.random.choice(SIGNALS)
    # The terminal sends Ctrl-C to all processes; `kill` sends its signal to one.
    group = number == signal.SIGINT or (number == signal.SIGTERM and attempt.random.random() < 0.5)
    interrupt(start(*words, session=True), number, attempt.random.uniform(0, seconds), group=group)
    small_study.run(attempt, out).expect_success()
    small_study.expect_same_report(attempt, out)
    return Outcome.SAME


@attack(
    Area.INTERRUPTION,
    "`kill -9` between the writing of a file, whole or half, and its renaming; half of them are fits",
    tries=10,
    quick=1,
)
def kill_at_file(attempt: Attempt) -> Outcome:
    out = copy_undisturbed(attempt)
    suffix, count = attempt.random.choice([(".npz", 40), ("", 200)])
    shutil.rmtree(out / "reports")
    shutil.rmtree(out / "studies" / f"{small_study.NAME}.runs")
    program = [str(PROGRAMS), "kill-at-file", str(attempt.random.randrange(count)), suffix]
    process = start(*small_study.words(attempt, out), program=program)
    expect_interruption(finish(process), signal.SIGKILL)
    small_study.run(attempt, out).expect_success()
    small_study.expect_same_report(attempt, out)
    expect_no_leftovers(out)
    assert count_accesses(out) == count_accesses(small_study.undisturbed(attempt))
    return Outcome.SAME


# --- other commands ---


@attack(
    Area.INTERRUPTION, "`kill -9`, Ctrl-C or SIGTERM of `report` or `predict`, then the same command", tries=12, quick=0
)
def interrupt_command(attempt: Attempt) -> Outcome:
    command = attempt.random.choice(["report", "predict"])
    words, read = other_command(attempt, command, attempt.folder)

    def make(folder: Path) -> None:
        folder.mkdir()
        begin = time.monotonic()
        finish(start(*other_command(attempt, command, folder)[0])).expect_success()
        (folder / "seconds").write_text(str(time.monotonic() - begin))

    expected = attempt.prepare(f"undisturbed-{command}", make)
    seconds = float((expected / "seconds").read_text())
    interrupt(start(*words), attempt.random.choice(SIGNALS), attempt.random.uniform(0, seconds))
    finish(start(*words)).expect_success()
    assert read() == other_command(attempt, command, expected)[1]()
    expect_no_leftovers(attempt.folder)
    return Outcome.SAME


def other_command(
    attempt: Attempt, command: str, folder: Path
) -> tuple[list[object], Callable[[], Mapping[str, bytes]]]:
    """Returns the arguments of a command that writes into a folder, and what reads its results."""
    out = small_study.undisturbed(attempt)
    if command == "report":
        report = folder / small_study.NAME
        if not report.exists():
            shutil.copytree(out / "reports" / small_study.NAME, report)
        return ["report", report], lambda: read_results(report)
    images = next(small_study.data(attempt).rglob("*.jpg")).parent
    path = folder / "all.parquet"
    model = out / "reports" / small_study.NAME / "models" / "baseline"
    return ["predict", model, images, "--out", path], lambda: {"predictions": path.read_bytes()}


@attack(Area.INTERRUPTION, "Ctrl-C or SIGTERM while a command is imported and started", tries=50, quick=2)
def interrupt_start(attempt: Attempt) -> Outcome:
    run: list[object] = ["run", "--data", small_study.data(attempt), "--out", attempt.folder]
    commands: list[list[object]] = [run, ["plan"], ["--help"]]
    words = attempt.random.choice(commands)
    # Most moments are in the first tenth of a second, in which an interruption used to be a traceback.
    seconds = 3 * attempt.random.random() ** 2
    interrupt(start(*words, toy=False), attempt.random.choice([signal.SIGINT, signal.SIGTERM]), seconds)
    return Outcome.CORRECT


@attack(
    Area.INTERRUPTION,
    f"`kill -9`, Ctrl-C or SIGTERM of a download and its unpacking at {MOMENTS} random moments, then the same command",
    tries=5,
)
def interrupt_download(attempt: Attempt) -> Outcome:
    data = small_study.data(attempt)
    content = Path(shutil.make_archive(str(attempt.folder / "landmarks"), "zip", data)).read_bytes()
    with serve(content) as address:
        program = [str(PROGRAMS), "fetch", address, str(len(content)), hashlib.md5(content).hexdigest()]
        for _ in range(MOMENTS):
            process = start(program=program)
            if not interrupt(process, attempt.random.choice(SIGNALS), attempt.random.uniform(0, 2)):
                shutil.rmtree(os.environ[CACHE_VARIABLE])
        finish(start(program=program)).expect_success()
    unpacked = Path(os.environ[CACHE_VARIABLE]) / "hirise"
    assert read_files(unpacked) == read_files(data)
    expect_no_leftovers(unpacked.parent)
    return Outcome.SAME


@contextlib.contextmanager
def serve(content: bytes) -> Iterator[str]:
    """Serves a file slowly, with range requests; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", str(len(content) - first))
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client was killed
                for place in range(first, len(content), step := max(1, len(content) // 100)):
                    self.wfile.write(content[place : place + step])
                    time.sleep(0.01)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/landmarks.zip"
        finally:
            server.shutdown()
            thread.join()


def read_files(folder: Path) -> dict[str, bytes]:
    """Returns all files of a folder but hidden ones."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# --- stored fits ---


@attack(
    Area.DISK,
    "Stored fits and their models truncated, with a flipped bit, garbage, exchanged, or with pickled objects",
    tries=5,
    quick=0,
)
def damage_fits(attempt: Attempt) -> Outcome:
    out = copy_undisturbed(attempt)
    paths = sorted((out / "studies" / f"{small_study.NAME}.runs").rglob("*.npz"))
    damaged = attempt.random.sample(paths, 8)
    for path in damaged:
        damage(attempt, path, attempt.random.choice(paths))
    changed = [path for path in damaged if path.read_bytes() != path.with_suffix(".before").read_bytes()]
    finished = small_study.run(attempt, out).expect_success()
    for path in changed:
        assert path.name in finished.err, f"nothing is said about {path.name}\n{finished.err}"
    small_study.expect_same_report(attempt, out)
    assert count_accesses(out) == count_accesses(small_study.undisturbed(attempt))
    return Outcome.REPAIRED


def count_accesses(out: Path) -> object:
    """Returns what a study reports about accesses of the test split, but for times."""
    path = out / "reports" / small_study.NAME / "given-split" / "environment.json"
    accesses = json.loads(path.read_text(encoding="utf-8"))["test_access"]
    return {name: count for name, count in accesses.items() if name not in ("first", "last")}


def damage(attempt: Attempt, path: Path, other: Path) -> None:
    """Damages a file in a random way, and keeps what it was in a file next to it."""
    content = path.read_bytes()
    path.with_suffix(".before").write_bytes(content)
    match attempt.random.choice(["truncated", "flipped", "garbage", "exchanged", "pickled"]):
        case "truncated":
            path.write_bytes(content[: attempt.random.randrange(len(content))])
        case "flipped":
            path.write_bytes(flip_bit(attempt, content))
        case "garbage":
            path.write_bytes(attempt.random.randbytes(len(content)))
        case "exchanged":
            path.write_bytes(other.read_bytes())
        case _:
            np.savez(path, seed=np.array([print], dtype=object))


def flip_bit(attempt: Attempt, content: bytes) -> bytes:
    """Returns a content with one bit flipped."""
    changed = bytearray(content)
    changed[attempt.random.randrange(len(content))] ^= 1 << attempt.random.randrange(8)
    return bytes(changed)


@attack(Area.DISK, "One bit of a file of arrays flipped, or its end cut off, with and without a digest", tries=300)
def damage_arrays(attempt: Attempt) -> Outcome:
    arrays = {"a": np.arange(attempt.random.randrange(40)), "b": np.array(["x", "yz"]), "c": np.eye(3, dtype="f4")}
    path = attempt.folder / "fit.npz"
    has_digest = attempt.random.random() < 0.5
    if has_digest:
        write_verified(path, arrays)
    else:
        np.savez(path, allow_pickle=False, **arrays)  # as earlier versions did
    content = path.read_bytes()
    cut = attempt.random.random() < 0.2
    path.write_bytes(content[: attempt.random.randrange(len(content))] if cut else flip_bit(attempt, content))
    try:
        stored = read_verified(path)
    except DamagedFile:
        return Outcome.REPAIRED
    assert not has_digest, "a damaged file was read"
    # What is not an array, such as the date of a member of a zip, may be altered.
    assert all(np.array_equal(stored[name], arrays[name]) for name in arrays)
    return Outcome.CORRECT
