"""A study is interrupted at random moments and started again."""

from __future__ import annotations

import contextlib
import signal
import subprocess

from torture import small_study
from torture.attacks import Area, Attempt, Outcome, attack
from torture.commands import finish, start


@attack(Area.INTERRUPTION, "`kill -9` of a run at a random moment, then the same command", tries=50, quick=2)
def kill_run(attempt: Attempt) -> Outcome:
    small_study.undisturbed(attempt)
    process = start(*small_study.words(attempt, attempt.folder))
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(attempt.random.uniform(0, 12))
    process.send_signal(signal.SIGKILL)
    finish(process)
    small_study.run(attempt, attempt.folder).expect_success()
    small_study.expect_same_report(attempt, attempt.folder)
    return Outcome.SAME
