"""Folders that are written whole or not at all, replaced and deleted at once, and what a killed process left of that.

All of it happens in a working folder beside the place, `.NAME.0123abcd.partial`, that holds MARK: only what holds it is
ever taken for a leftover. In it the new folder is written, and whatever gives way gets a name there.
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from motion_depth.files.atomic import flush

WORKING = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial")
MARK = ".unfinished"
MARK_TEXT = b"A folder that is being written, replaced or deleted. If that was interrupted, the next run clears it.\n"
NEW, OLDER, GONE = "new", "older", "gone"  # in a working folder


@contextmanager
def complete_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to, which takes its place if all went well and is removed if not. Flush its files yourself.

    An older folder of that name and the new one change places, at once where the file system can. A link of that name
    gives way; what it leads to stays as it is.

    Raises:
        OSError: the disk or the parent's permissions refuse; what was there is whole.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _working_folder(folder) as working:
        draft = working / NEW
        draft.mkdir()
        yield draft
        flush(draft)
        if not os.path.lexists(folder):
            os.rename(draft, folder)
        elif not _exchange(draft, folder):
            os.rename(folder, working / OLDER)
            os.rename(draft, folder)  # a kill between these two is mended by `clear_leftovers`
        flush(folder.parent)


def remove_folder(folder: Path) -> None:
    """Deletes a folder, out of sight first: a kill in the middle leaves no half one. One that cannot go stays."""
    with suppress(OSError), _working_folder(folder) as working:
        os.rename(folder, working / GONE)


def leftovers(parent: Path) -> list[Path]:
    """Working folders that a killed process left. What only has such a name is not ours."""
    candidates = sorted(parent.glob(".*.partial")) if parent.is_dir() else []
    return [path for path in candidates if WORKING.fullmatch(path.name) and _is_ours(path)]


def clear_leftovers(parent: Path) -> list[str]:
    """Removes what a killed process left half-done, and says what it mended.

    Only for the process that holds the parent folder: what another one is writing looks the same.
    """
    messages = []
    for working in leftovers(parent):
        if folder := _put_back(working):
            messages.append(f"{folder}: put back; the process that was replacing it was killed")
        _remove(working)
    return messages


@contextmanager
def _working_folder(folder: Path) -> Iterator[Path]:
    working = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    working.mkdir()
    try:
        (working / MARK).write_bytes(MARK_TEXT)
        flush(working / MARK)
        yield working
    finally:
        with suppress(OSError):
            _put_back(working)
            _remove(working)


def _put_back(working: Path) -> Path | None:
    """The folder that gave way to one that never came, if there is such a one, in its place again. Raises OSError."""
    folder = working.with_name(WORKING.fullmatch(working.name)[1])
    if os.path.lexists(folder) or not os.path.lexists(working / OLDER):
        return None
    os.rename(working / OLDER, folder)
    return folder


def _remove(working: Path) -> None:
    """Deletes a working folder, the mark last: a kill, or an error, on the way leaves one that is known as ours."""
    with suppress(OSError):
        for path in working.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MARK:
                path.unlink()
        (working / MARK).unlink(missing_ok=True)
        working.rmdir()


def _is_ours(working: Path) -> bool:
    """Whether it is marked; the mark may be cut. A kill before or after it leaves an empty folder: nothing is lost."""
    try:
        marked = not os.listdir(working) or MARK_TEXT.startswith((working / MARK).read_bytes())
        return marked and not working.is_symlink()
    except OSError:
        return False


def _exchange(one: Path, other: Path) -> bool:
    """Lets two folders change names in one step. False if the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of Linux
    return rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
