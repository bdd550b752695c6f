"""Checkpoints on a disk that fails: an error or a kill at every call that writes, a limit on file size, a full disk."""

import collections
import contextlib
import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from motion_depth.checkpoints import checkpoint
from motion_depth.checkpoints.checkpoint import newest_valid, read_folder, rotate, write_checkpoint
from motion_depth.files import folders
from motion_depth.files.folders import MARK, MARK_TEXT, NEW, OLDER, clear_leftovers, leftovers

TENSORS = {"a.safetensors": {"weight": torch.arange(6.0)}, "b.safetensors": {"weight": torch.arange(1e5)}}


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs, not even cleaning up."""


class Faults:
    """Lets the n-th call that changes the disk fail; of a write, half of the bytes arrive, or none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException):
        self.count, self.at, self.error = 0, at, error
        # Deleting that fails leaves a rest, which harms nobody; a kill there must leave what the next start knows.
        for name in ("fsync", "rename", "mkdir", *(("unlink", "rmdir") if isinstance(error, Killed) else ())):
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))
        monkeypatch.setattr(folders, "_exchange", self.counted(folders._exchange))
        monkeypatch.setattr(Path, "write_bytes", self.cut(Path.write_bytes))

    def tick(self) -> None:
        self.count += 1
        if self.count == self.at or (self.count > self.at and isinstance(self.error, Killed)):
            raise self.error

    def counted(self, function):
        return lambda *args, **kwargs: (self.tick(), function(*args, **kwargs))[1]

    def cut(self, write_bytes):
        def write(path: Path, data: bytes) -> None:
            self.tick()
            write_bytes(path, data[: len(data) // 2])
            self.tick()
            write_bytes(path, data)

        return write


def save_all(folder: Path, step: int) -> None:
    """What a run does at a step: a step folder, rotation, and best/ in the place of the one before."""
    write_checkpoint(folder / f"step-{step}", TENSORS, {"step": step})
    rotate(folder, 1, step)
    write_checkpoint(folder / "best", TENSORS, {"step": step})


def points(tmp_path: Path, error: BaseException) -> Iterator[tuple[int, Path]]:
    """Every call in turn, with a folder that holds step-1/ and best/."""
    save_all(tmp_path / "count", 1)
    with pytest.MonkeyPatch.context() as patch:
        faults = Faults(patch, 10**9, error)
        save_all(tmp_path / "count", 2)
    assert faults.count > 30
    for at in range(1, faults.count + 1):
        save_all(tmp_path / str(at), 1)
        yield at, tmp_path / str(at)


def expect_whole(folder: Path) -> None:
    """Something to go on from, a best/, and nothing that looks whole and is not."""
    step, found, messages = newest_valid(folder)
    assert (step, found.config["step"], messages) in ((1, 1, []), (2, 2, []))
    assert read_folder(folder / "best").config["step"] in (1, 2)
    for path in folder.glob("[!.]*"):
        read_folder(path)


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_error_at_any_call_leaves_what_was_there_and_no_rest(tmp_path, number, exchange, monkeypatch):
    if not exchange:
        monkeypatch.setattr(folders, "_exchange", lambda *_: False)
    for at, folder in points(tmp_path, OSError()):
        with pytest.MonkeyPatch.context() as patch:
            Faults(patch, at, OSError(number, os.strerror(number)))
            with contextlib.suppress(ValueError):  # a few calls may fail unharmed, as where the disk is asked to flush
                save_all(folder, 2)
        expect_whole(folder)
        assert not list(folder.glob(".*.partial")), at
        save_all(folder, 3)
        assert read_folder(folder / "step-3").config == {"step": 3}


@pytest.mark.parametrize("exchange", [True, False])
def test_a_kill_at_any_call_leaves_what_was_there(tmp_path, exchange, monkeypatch):
    """Also where the file system cannot exchange two folders; the next start then mends what the kill left."""
    if not exchange:
        monkeypatch.setattr(folders, "_exchange", lambda *_: False)
    for at, folder in points(tmp_path, Killed()):
        with pytest.MonkeyPatch.context() as patch:
            Faults(patch, at, Killed())
            with pytest.raises(Killed):
                save_all(folder, 2)
        if exchange:
            expect_whole(folder)
        clear_leftovers(folder)
        expect_whole(folder)
        assert not list(folder.glob(".*")), at
        assert not list(folder.rglob(MARK)), at


def test_a_folder_that_was_giving_way_is_put_back_in_a_line_and_never_in_the_place_of_another(tmp_path):
    save_all(tmp_path, 1)
    working = tmp_path / ".best.01234567.partial"
    (working / NEW).mkdir(parents=True)
    (working / MARK).write_bytes(MARK_TEXT)
    (tmp_path / "best").rename(working / OLDER)
    assert clear_leftovers(tmp_path) == [f"{tmp_path / 'best'}: put back; the process that was replacing it was killed"]
    expect_whole(tmp_path)
    shutil.copytree(tmp_path / "best", working / OLDER)
    (working / MARK).write_bytes(MARK_TEXT)
    (tmp_path / "best/config.json").write_text("{}")
    assert clear_leftovers(tmp_path) == []
    assert (tmp_path / "best/config.json").read_text() == "{}"
    assert not working.exists()


@pytest.mark.parametrize("inside", ["chapter.txt", "older/config.json", MARK])
def test_a_persons_folders_are_left_alone_whatever_their_names(tmp_path, inside):
    """Also one that looks like ours in every letter, holds a copy of a checkpoint, or a file with the mark's name."""
    for name in (".thesis.1.partial", ".photos.2024.older", ".step-2.0123abcd.partial", ".best.0123abcd.partial"):
        (tmp_path / name / inside).parent.mkdir(parents=True)
        (tmp_path / name / inside).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert leftovers(tmp_path) == []
    assert clear_leftovers(tmp_path) == []
    assert sorted(tmp_path.rglob("*")) == before
    save_all(tmp_path, 1)
    save_all(tmp_path, 2)
    assert set(before) <= set(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "no room for the checkpoint step-1/, which takes"), (errno.EIO, "cannot be")]
)
def test_an_error_while_writing_is_one_sentence(tmp_path, number, message, monkeypatch):
    Faults(monkeypatch, 5, OSError(number, os.strerror(number)))
    with pytest.raises(ValueError, match=message):
        save_all(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_told_before_a_byte_is_written(tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    save_all(tmp_path, 1)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 1000, 1000))
    message = r"no room for the checkpoint step-2/, which takes 0\.5 MB \(0\.0 MB are free\)"
    with pytest.raises(ValueError, match=message):
        write_checkpoint(tmp_path / "step-2", TENSORS, {})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_limit_on_file_size_stops_a_write_in_the_middle(tmp_path):
    """A real limit of the system, in a process of its own."""
    program = (
        "import resource, sys, torch\nfrom pathlib import Path\n"
        "from motion_depth.checkpoints.checkpoint import write_checkpoint\n"
        "folder, tensors = Path(sys.argv[1]), {'a.safetensors': {'w': torch.zeros(100_000)}}\n"
        "write_checkpoint(folder / 'step-1', tensors, {'step': 1})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))\n"
        "try:\n    write_checkpoint(folder / 'step-2', tensors, {'step': 2})\n"
        "except ValueError as error:\n    print(error)\n"
    )
    root = Path(checkpoint.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, cwd=root)
    assert "no room for the checkpoint step-2/, which takes 0.5 MB (File too large)" in done.stdout, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    assert newest_valid(tmp_path)[0] == 1
    assert resource.getrlimit(resource.RLIMIT_FSIZE) != (150_000, 150_000)
