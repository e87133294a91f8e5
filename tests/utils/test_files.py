"""Paths that name no file that can be read to its end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import check_regular_file, digest_of, is_file


def test_a_path_that_no_file_system_can_have_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    assert is_file(tmp_path / "data")
    assert not is_file(tmp_path / "nowhere")
    assert not is_file(tmp_path / (1000 * "x"))


def test_files_folders_and_absent_paths_are_left_to_their_readers(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    for path in (tmp_path, tmp_path / "data", tmp_path / "nowhere", tmp_path / (1000 * "x")):
        check_regular_file(path)


@pytest.mark.parametrize("read", [check_regular_file, lambda path: digest_of(path, "sha256")], ids=["check", "digest"])
def test_a_pipe_is_refused_before_it_is_read(read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(UserError) as refused:
        read(path)
    assert str(refused.value) == f"{path} is a pipe, a socket or a device: name a regular file."


def test_a_device_is_refused() -> None:
    with pytest.raises(UserError, match="/dev/null is a pipe, a socket or a device"):
        check_regular_file(Path("/dev/null"))
