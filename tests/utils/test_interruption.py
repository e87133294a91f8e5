"""Interruptions that something swallows, changes, repeats or ignores; each in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")

PREPARE = """
import os, signal, sys, time
from hirise_imb.utils import interruption

def ask(number=signal.SIGINT):
    os.kill(os.getpid(), number)

interruption.install_handlers()
"""
LINE = "interrupted: what was finished is saved; the same command continues from there.\n"


def run(body: str, ignored: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs a program with the handlers installed, with SIGINT ignored or not when it starts."""
    disposition = signal.SIG_IGN if ignored else signal.SIG_DFL
    return subprocess.run(
        [sys.executable, "-c", PREPARE + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, disposition),
    )


@pytest.mark.parametrize(
    "body",
    [
        "ask()",
        "ask(signal.SIGTERM)",
        # In a callback of C code, which prints exceptions and goes on.
        """
        class Deleted:
            def __del__(self):
                ask()
        Deleted()
        time.sleep(60)
        """,
        # By a library that takes any exception for a failure of its own.
        """
        try:
            ask()
        except:
            pass
        time.sleep(60)
        """,
        """
        try:
            ask()
        except KeyboardInterrupt:
            pass
        raise RuntimeError("the callback failed")
        """,
        """
        try:
            ask()
        except KeyboardInterrupt as error:
            raise RuntimeError("the callback failed") from error
        """,
        # By a library that logs whatever passes through it.
        """
        import logging
        try:
            ask()
        except BaseException:
            logging.getLogger("library").exception("A connection could not be closed")
            raise
        """,
        # Twice at the same time.
        """
        try:
            ask(signal.SIGTERM)
        finally:
            ask(signal.SIGTERM)
            time.sleep(0.01)
        """,
    ],
    ids=["Ctrl-C", "SIGTERM", "in a callback", "swallowed", "followed by an error", "another error", "logged", "twice"],
)
def test_an_interruption_ends_the_process_with_one_line(body: str) -> None:
    finished = run(body)
    assert (finished.returncode, finished.stdout, finished.stderr) == (130, "", LINE)


def test_what_is_left_has_time_to_clean_up() -> None:
    finished = run("""
        try:
            ask()
        finally:
            begin = time.monotonic()
            while time.monotonic() < begin + 2.5:  # longer than a swallowed interruption waits
                time.sleep(0.1)
            print("clean")
    """)
    assert (finished.returncode, finished.stdout, finished.stderr) == (130, "clean\n", LINE)


def test_a_later_second_one_ends_the_process_at_once() -> None:
    begin = time.monotonic()
    finished = run("""
        try:
            ask()
        finally:
            time.sleep(0.8)
            ask()
            time.sleep(60)
    """)
    assert time.monotonic() - begin < 30
    message = "interrupted: ended at once; what was finished is saved; the same command continues from there.\n"
    assert (finished.returncode, finished.stderr) == (130, message)


def test_a_worker_is_interrupted_once() -> None:
    finished = run("""
        interruption.install_handlers(worker=True)
        with interruption.end_at_interruption():
            try:
                ask(signal.SIGTERM)
            finally:
                time.sleep(0.8)
                ask(signal.SIGTERM)
                print("clean")
        time.sleep(1.5)
        print("end")
    """)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "clean\nend\n", "")


def test_a_program_in_the_background_ignores_the_keyboard() -> None:
    finished = run("ask()", ignored=True)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


def test_other_errors_are_printed_as_always() -> None:
    finished = run("raise RuntimeError('ours')")
    assert finished.returncode == 1
    assert finished.stderr.endswith("RuntimeError: ours\n")
    assert "Traceback" in finished.stderr
