"""Folders that are written under a temporary name and then take their place, and what a killed process left of them.

A folder with a temporary name holds MARK: only what holds it is ever taken for a leftover.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import secrets
import shutil
from pathlib import Path

HIDDEN = re.compile(r"\.(.+)\.[0-9a-f]{8}\.(partial|older|gone)")
MARK = ".unfinished"
MARK_TEXT = b"A folder that is being written, replaced or deleted. If that was interrupted, the next run clears it.\n"


def hidden(folder: Path, kind: str) -> Path:
    """A temporary name beside a folder; kind: "partial", "older" or "gone"."""
    return folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.{kind}")


def mark(folder: Path) -> None:
    """Before anything is written into a folder with a temporary name, or a folder gets one."""
    write_flushed(folder / MARK, MARK_TEXT)


def put_in_place(draft: Path, folder: Path) -> None:
    """Renames. An older folder of that name and the new one change places, at once where the file system can.

    A link of that name gives way; what it leads to stays as it is.
    """
    if folder.is_symlink():
        folder.unlink()
    if not folder.exists():
        os.rename(draft, folder)
    else:
        mark(folder)  # both have it now, whichever of them a kill leaves under a temporary name
        if not _exchange(draft, folder):
            older = hidden(folder, "older")
            os.rename(folder, older)  # a kill between these two is mended by `clear_leftovers`
            try:
                os.rename(draft, folder)
            except OSError:
                os.rename(older, folder)
                raise
            os.rename(older, draft)
    flush(folder.parent)
    remove(draft)  # holds the older one by now, if there was one
    with contextlib.suppress(OSError):  # it says nothing about a folder that has its name; the next start removes it
        (folder / MARK).unlink()


def remove(folder: Path) -> None:
    """Deletes a marked folder, the mark last: a kill, or an error, on the way leaves a folder that is known as ours."""
    if folder.is_symlink() or not _is_ours(folder):
        return
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MARK:
                path.unlink()
        (folder / MARK).unlink(missing_ok=True)
        folder.rmdir()


def leftovers(parent: Path) -> list[Path]:
    """Folders that a killed process left under a temporary name. What only has such a name is not ours."""
    candidates = sorted(parent.glob(".*")) if parent.is_dir() else []
    return [path for path in candidates if HIDDEN.fullmatch(path.name) and _is_ours(path)]


def clear_leftovers(parent: Path) -> list[str]:
    """Removes what a killed process left half-done, and says what it mended.

    Only for the process that holds the parent folder: what another one is writing looks the same.
    """
    messages = []
    for path in leftovers(parent):
        name, kind = HIDDEN.fullmatch(path.name).groups()
        folder = parent / name
        if kind == "older" and not folder.exists():
            os.rename(path, folder)
            messages.append(f"{folder}: put back; the process that was replacing it was killed")
        else:
            remove(path)
    for left in parent.glob(f"[!.]*/{MARK}"):
        if _is_ours(left.parent):
            left.unlink()
    return messages


def _is_ours(folder: Path) -> bool:
    """Whether it is marked; the mark may be cut. A kill before or after it leaves an empty folder: nothing is lost."""
    try:
        inside = os.listdir(folder)
        return not inside or (MARK in inside and MARK_TEXT.startswith((folder / MARK).read_bytes()))
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


def write_flushed(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def flush(path: Path) -> None:
    """A folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
