"""Files, whatever they hold: read only if they are files, written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DRAFT = re.compile(r"\..+\.[0-9a-f]{8}(\.\w+)?")  # a file's name while `complete_file` writes it
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotAFile(OSError):
    """Something else than a file stands in a file's place; reading it could wait for ever, or never end."""

    def __init__(self, path: str | Path, found: str):
        super().__init__(errno.EINVAL, f"it is {found}, expected a file", str(path))

    def __str__(self) -> str:
        return self.strerror


def expect_file(path: str | Path) -> Path:
    """The path, of a file or of nothing; call it before a file is opened to be read.

    Raises:
        NotAFile: a folder, a pipe, a socket, a device, or a link that leads to nothing.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        if os.path.islink(path):
            raise NotAFile(path, f"a link to {os.readlink(path)}, which is not there") from None
        return Path(path)
    if kind != stat.S_IFREG:
        raise NotAFile(path, KINDS.get(kind, "no file"))
    return Path(path)


def file_size(path: str | Path) -> int:
    """Bytes of a file; 0 if there is none, or something else in its place."""
    try:
        return os.stat(expect_file(path)).st_size
    except OSError:
        return 0


@contextmanager
def complete_file(path: str | Path) -> Iterator[Path]:
    """A file beside `path` to write to, flushed and renamed to `path` if all went well and removed if not.

    A link stays a link: what it leads to is written. A file that is replaced hands on its mode.

    Raises:
        OSError: the disk or the file's permissions refuse, or no file stands there (`NotAFile`).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    target = Path(os.path.realpath(path))
    there = expect_file(target).exists()
    if there and not os.access(target, os.W_OK):  # renaming would not ask
        raise PermissionError(errno.EACCES, "is not writable", str(path))
    draft = target.with_name(f".{target.stem[:80]}.{secrets.token_hex(4)}{target.suffix}")
    try:
        yield draft
        if there:
            shutil.copymode(target, draft)
        flush(draft)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Writes a file by `complete_file`; text in UTF-8, its line ends as they are. Raises OSError."""
    with complete_file(path) as draft, draft.open("xb") as file:
        with suppress(OSError):  # where files cannot be locked, this one is never taken for left behind
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(content.encode() if isinstance(content, str) else content)


def left_behind(path: Path, begins: re.Pattern[bytes]) -> bool:
    """Whether a file is one that `write_whole` began, known by its name and first bytes, and that nobody writes.

    Raises OSError if it is being written, or where files cannot be locked: it may be.
    """
    if not DRAFT.fullmatch(path.name):
        return False
    with path.open("r+b") as file:
        if not begins.match(file.read(1 << 20)):
            return False
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True


def flush(path: Path) -> None:
    """A file's content, or a folder's names, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, value: object) -> None:
    """Writes JSON that every program reads, by `complete_file`: a number that is inf or NaN is null there."""
    write_whole(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def finite(value: object) -> object:
    """A value of JSON, with None in the place of every number in it that is inf or NaN."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
