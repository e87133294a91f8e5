"""Finding the data that a study names."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from builders import SPLIT_FILE, valid_lines, write_data

from hirise_imb.data import manifest, resolve, synthetic
from hirise_imb.data.dataset import Archive
from hirise_imb.data.hirise import HIRISE
from hirise_imb.data.resolve import draw_landmarks, import_landmarks, resolve_data
from hirise_imb.utils.errors import UserError
from hirise_imb.utils.files import file_mask


class Drawn:
    """Stands for `synthetic.write`: a tiny data folder instead of the sample, and a count of calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.dies = False

    def __call__(self, folder: Path, seed: int = 0) -> Path:
        self.calls += 1
        made = write_data(folder / "hirise-map-proj-v3_2", valid_lines())
        if self.dies:
            raise KeyboardInterrupt
        return made


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    writer = Drawn()
    monkeypatch.setattr(synthetic, "write", writer)
    return writer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_data(tmp_path / "landmarks", valid_lines())


@pytest.fixture
def zipped(folder: Path, tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "landmarks.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
    return tmp_path / "landmarks.zip"


def seen(folder: Path) -> list[str]:
    """Names in a folder; hidden ones are only locks here."""
    hidden = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert all(name.endswith(".lock") for name in hidden), hidden
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def same_data(found: Path, expected: Path) -> bool:
    tables = [manifest.read_manifest(path, HIRISE).table for path in (found, expected)]
    return bool(tables[0].equals(tables[1]))


# --- synthetic ---


def test_the_sample_is_drawn_once(drawn: Drawn, cache: Path, folder: Path) -> None:
    found = resolve_data("synthetic", HIRISE)
    assert same_data(found, folder)
    assert cache in found.parents
    assert resolve_data("synthetic", HIRISE) == found
    assert drawn.calls == 1


def test_another_version_of_the_sample_is_drawn_again(drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    before = resolve_data("synthetic", HIRISE)
    monkeypatch.setattr(synthetic, "VERSION", synthetic.VERSION + 1)
    assert resolve_data("synthetic", HIRISE) != before
    assert drawn.calls == 2


def test_an_interrupted_drawing_leaves_nothing(drawn: Drawn, cache: Path) -> None:
    drawn.dies = True
    with pytest.raises(KeyboardInterrupt):
        resolve_data("synthetic", HIRISE)
    assert seen(cache) == []
    drawn.dies = False
    assert (resolve_data("synthetic", HIRISE) / SPLIT_FILE).is_file()
    assert drawn.calls == 2


def test_a_killed_drawing_is_not_taken_for_the_sample(drawn: Drawn, cache: Path) -> None:
    script = (
        "import os\nfrom hirise_imb.data import HIRISE, resolve, synthetic\n"
        "def dies(folder, seed):\n (folder / 'half').touch()\n os._exit(9)\n"
        "synthetic.write = dies\nresolve.resolve_data('synthetic', HIRISE)"
    )
    assert subprocess.run([sys.executable, "-c", script], env=os.environ).returncode == 9
    assert (resolve_data("synthetic", HIRISE) / SPLIT_FILE).is_file()
    assert drawn.calls == 1


# --- folders, zips, variables ---


def test_a_folder_is_used_where_it_is(folder: Path, tmp_path: Path) -> None:
    assert resolve_data(str(folder), HIRISE) == folder
    assert resolve_data(str(tmp_path), HIRISE) == folder  # one level above


def test_a_zip_is_unpacked_into_the_cache_once(zipped: Path, folder: Path, cache: Path) -> None:
    found = resolve_data(str(zipped), HIRISE)
    assert cache in found.parents
    assert same_data(found, folder)
    stamp = found.stat().st_mtime_ns
    assert resolve_data(str(zipped), HIRISE) == found
    assert found.stat().st_mtime_ns == stamp


def test_a_variable_names_a_path(folder: Path, zipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_LANDMARKS", str(folder))
    assert resolve_data("$MY_LANDMARKS", HIRISE) == folder
    monkeypatch.setenv("MY_LANDMARKS", str(zipped))
    assert same_data(resolve_data("$MY_LANDMARKS", HIRISE), folder)


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_named(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if value is not None:
        monkeypatch.setenv("MY_LANDMARKS", value)
    with pytest.raises(UserError, match=r"environment variable MY_LANDMARKS is not set: set it to a zip, a folder"):
        resolve_data("$MY_LANDMARKS", HIRISE)


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        resolve_data(str(tmp_path / "nowhere"), HIRISE)


def test_a_cache_that_is_a_file_is_named(drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HIRISE_IMB_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file can't be written to"):
        resolve_data("synthetic", HIRISE)
    assert drawn.calls == 0


# --- the official archive ---


def test_hirise_must_have_been_fetched(cache: Path) -> None:
    with pytest.raises(
        UserError, match=r"not in .*hirise: get it with `hirise-imb data fetch`, or with `hirise-imb data import FILE`"
    ):
        resolve_data("hirise", HIRISE)
    assert seen(cache) == []


@pytest.fixture
def official(zipped: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """The little zip passes for the official archive."""
    content = zipped.read_bytes()
    archive = Archive(
        name="official.zip",
        address="http://localhost:9/official.zip",
        size=len(content),
        md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
        page="",
    )
    monkeypatch.setattr(resolve, "HIRISE", dataclasses.replace(HIRISE, archive=archive))
    return archive


def test_the_official_archive_becomes_hirise_when_imported(official: Archive, zipped: Path, folder: Path) -> None:
    name = import_landmarks(zipped)
    assert name == "hirise"
    found = resolve_data(name, HIRISE)
    assert same_data(found, folder)
    zipped.unlink()  # nothing needs it any more
    assert resolve_data("hirise", HIRISE) == found


def test_it_becomes_hirise_when_fetched(official: Archive, zipped: Path, folder: Path, cache: Path) -> None:
    (cache / "archives").mkdir()
    shutil.copy(zipped, cache / "archives" / official.name)  # downloaded before
    found = resolve.fetch_archive()
    assert same_data(found, folder)
    assert resolve_data("hirise", HIRISE) == found


def test_another_zip_does_not_become_hirise(official: Archive, zipped: Path) -> None:
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr("notes.txt", "mine")
    assert import_landmarks(zipped) == str(zipped)
    assert resolve_data(str(zipped), HIRISE).name != "hirise"
    with pytest.raises(UserError, match="not in"):
        resolve_data("hirise", HIRISE)


def test_a_folder_that_is_imported_stays_where_it_is(folder: Path) -> None:
    assert import_landmarks(folder) == str(folder)
    assert resolve_data(str(folder), HIRISE) == folder


class TestDraw:
    """New synthetic landmarks in a folder of the user's."""

    def test_another_seed_gives_other_landmarks(self, tmp_path: Path, whole_sample: Path) -> None:
        folder = draw_landmarks(tmp_path / "new", 1)
        table, sample = (manifest.read_manifest(place, HIRISE).table for place in (folder, whole_sample))
        assert not set(table["source"]) & set(sample["source"])
        assert set(table["label"]) == set(sample["label"])
        assert (table["split"] == "test").sum() == 500
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~file_mask()

    def test_an_existing_folder_is_left_alone(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="exists"):
            draw_landmarks(tmp_path, 1)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("seed", [0, -1])
    def test_the_seed_of_the_demo_is_refused(self, tmp_path: Path, seed: int) -> None:
        with pytest.raises(UserError, match="1 or more"):
            draw_landmarks(tmp_path / "new", seed)

    def test_an_interruption_leaves_nothing(self, tmp_path: Path, drawn: Drawn) -> None:
        drawn.dies = True
        with pytest.raises(KeyboardInterrupt):
            draw_landmarks(tmp_path / "new", 1)
        assert list(tmp_path.iterdir()) == []
