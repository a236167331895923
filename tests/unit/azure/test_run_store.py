# Copyright (c) 2026, the azbatch.cmk authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The run's shared store: values and locks in files, and removal of the files of killed runs."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.azbatch.cmk.plugins.module_utils._azure import run_store
from ansible_collections.azbatch.cmk.plugins.module_utils._azure.run_store import RunFiles, begin_run
from ansible_collections.azbatch.cmk.plugins.module_utils._core.errors import Refused

FORK = multiprocessing.get_context("fork")


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


def replaced_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def names_taken(folder: Path) -> None:
    """Prevent the creation of the store's files with folders of the same names."""
    for ending in ("json", "lock"):
        (folder / f"{run_store._hash(('name',))}.{ending}").mkdir()


DAMAGES = [removed, replaced_by_a_file, names_taken]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / f"ansible-local-{os.getpid()}abcdefgh"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture(params=DAMAGES, ids=lambda damage: damage.__name__)
def damaged(request: pytest.FixtureRequest, folder: Path) -> Path:
    request.param(folder)
    return folder


def test_a_stored_value_is_loaded_by_another_task(folder: Path) -> None:
    RunFiles(str(folder)).store({"a": 1}, "some", "name")

    assert RunFiles(str(folder)).load("some", "name") == {"a": 1}
    assert RunFiles(str(folder)).load("other") is None
    assert [stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()] == [0o600]


@pytest.mark.parametrize("content", ['{"a": ', "\0\0\0"], ids=["half", "zeros"])
def test_a_broken_file_holds_no_value(folder: Path, content: str) -> None:
    RunFiles(str(folder)).store(1, "name")
    (file,) = folder.iterdir()
    file.write_text(content)

    assert RunFiles(str(folder)).load("name") is None


def test_without_its_folder_a_run_stores_nothing_and_does_not_fail(damaged: Path) -> None:
    files = RunFiles(str(damaged))

    files.store(1, "name")
    assert files.load("name") is None


def test_a_folder_that_cannot_be_written_to_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run cannot store its later changes there, so the values may be out of date."""
    files = RunFiles(str(folder))
    files.store(1, "name")
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)

    assert files.load("name") is None


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all further writes fail as on a full disk."""
    monkeypatch.setattr(run_store, "_private", lambda _path, flags: os.open("/dev/full", flags & ~os.O_TRUNC))


def test_a_failed_store_removes_all_values(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value may be the note of a change, so earlier reads must not be used."""
    files = RunFiles(str(folder))
    files.store("read before", "vault")
    full(monkeypatch)
    files.store("changed", "written", "vault")

    assert files.load("vault") is None
    assert list(folder.iterdir()) == []


def add_one(folder: str, counter: str) -> None:
    for _time in range(50):
        with RunFiles(folder).locked("name"):
            file = Path(counter)
            number = int(file.read_text())
            file.write_text("")
            file.write_text(str(number + 1))


def test_one_task_holds_a_lock_at_a_time(folder: Path, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    tasks = [FORK.Process(target=add_one, args=(str(folder), str(counter))) for _task in range(4)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join(60)
    assert [task.exitcode for task in tasks] == [0] * 4
    assert counter.read_text() == "200"


def test_a_lock_ends_with_an_error(damaged: Path) -> None:
    """And a task may hold two locks."""
    files = RunFiles(str(damaged))
    for _time in range(2):
        with pytest.raises(KeyError), files.locked("name"), files.locked("other"):
            raise KeyError


def test_a_lock_yields_whether_others_have_held_it(folder: Path) -> None:
    waited = list[bool]()

    def wait() -> None:
        with RunFiles(str(folder)).locked("name") as may_have_waited:
            waited.append(may_have_waited)

    wait()
    with RunFiles(str(folder)).locked("name"):
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(0.2)
        assert waited == [False]
    waiting.join(60)
    wait()

    assert waited == [False, True, False]


@pytest.mark.parametrize("damage", [removed, replaced_by_a_file, full])
def test_a_run_whose_folder_is_unusable_is_refused(
    folder: Path, damage: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = RunFiles(str(folder))
    files.require_usable()
    RunFiles(None).require_usable()
    damage(monkeypatch if damage is full else folder)

    with pytest.raises(Refused) as refused:
        files.require_usable()
    assert refused.value.code == "temporary_folder_unusable"


# Files of killed runs


@pytest.fixture
def ended() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_by(process: int, beside: Path, ending: str = "abcd1234") -> Path:
    """The folder of a run, with a value and a lock of the store, and a file of another program."""
    folder = beside.with_name(f"ansible-local-{process}{ending}")
    folder.mkdir(mode=0o700)
    files = RunFiles(str(folder))
    files.store("secret", "token")
    with files.locked("token"):
        pass
    (folder / f"{'a' * 64}.123-456").write_text("half a token")
    (folder / "of_others.json").write_text("{}")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def begin(folder: Path) -> None:
    """Call begin_run in a separate process, because the process keeps the mark until it ends."""
    process = FORK.Process(target=begin_run, args=(str(folder),))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_files_of_a_running_run_are_kept(folder: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        left = left_by(process.pid, folder)
        begin(folder)
        assert len(names(left)) == 4
    finally:
        process.communicate()


def test_files_of_a_run_with_a_worker_that_goes_on_are_kept(folder: Path, ended: int) -> None:
    left = left_by(ended, folder)
    mark = os.open(left, os.O_RDONLY)
    fcntl.flock(mark, fcntl.LOCK_SH)
    begin(folder)
    assert len(names(left)) == 4

    os.close(mark)
    begin(folder)
    assert len(names(left)) == 1


def test_a_run_marks_its_folder_until_it_ends(folder: Path) -> None:
    def run(pipe: Any) -> None:
        begin_run(str(folder))
        pipe.send("marked")
        pipe.recv()

    here, there = FORK.Pipe()
    process = FORK.Process(target=run, args=(there,))
    process.start()
    here.recv()
    other = os.open(folder, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    here.send("end")
    process.join(60)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


def test_links_are_not_followed(folder: Path, ended: int, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    elsewhere = left_by(ended, tmp_path / "elsewhere" / "x")
    (tmp_path / f"ansible-local-{ended}linkfold").symlink_to(elsewhere)
    inside = left_by(ended, folder)
    (inside / f"{'b' * 64}.json").symlink_to(elsewhere / "of_others.json")
    begin(folder)

    assert len(names(elsewhere)) == 4
    assert (inside / f"{'b' * 64}.json").is_symlink()


def test_folders_of_other_names_are_left_alone(folder: Path, ended: int) -> None:
    # The suffix "s" is too short even if it follows the digits of a long process id.
    others = [left_by(ended, folder, ending) for ending in ("s", "ABCD1234", "abcd12345-")]
    begin(folder)

    assert [len(names(other)) for other in others] == [4, 4, 4]


def test_folders_of_other_users_are_left_alone(folder: Path, ended: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = left_by(ended, folder)
    us = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: us + 1)
    begin(folder)

    assert len(names(left)) == 4
