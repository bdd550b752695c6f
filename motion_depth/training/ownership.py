"""One run at a time writes into an output folder.

The run's main process locks a file there (POSIX record lock) and writes into it who it is. The system lets go of the
lock when that process ends, in whatever way; unlike flock's, processes that it has forked do not keep it, and NFS knows
it on all machines. Where a shared disk does not, the file's time says that the holder lives: it sets it every BEAT
seconds, and who finds the file of another machine waits for SILENCE before taking it for dead. No clocks are compared.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

LOCK_FILE = ".running"
BEAT = 10.0  # seconds
SILENCE = 120.0  # seconds
LOOK_EVERY = 1.0  # seconds


class Occupation:
    """The right to write into an output folder; nothing is written there before `begin`, and it ends with the context.

    Args:
        folder: the output folder; made by `begin`, and removed in the end if it was and is empty.
        say: is given a line if another machine's run may still hold it.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self.folder, self.path, self.say = folder, folder / LOCK_FILE, say
        self._file: BinaryIO | None = None
        self._made: list[Path] = []
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Occupation:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._ended.set()
            if self._beating.is_alive():
                self._beating.join()
            if self._content() == self._mine:
                self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None
        with contextlib.suppress(OSError):  # not empty
            for folder in self._made:
                folder.rmdir()

    def begin(self) -> None:
        """Takes the folder. Raises ValueError if another run holds it, naming that, or if it cannot be written."""
        about = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        self._mine = json.dumps(about | {"system": _system(), "run": uuid.uuid4().hex}).encode()
        self._made = [each for each in (self.folder, *self.folder.parents) if not each.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self._take()
            os.pwrite(self._file.fileno(), self._mine, 0)
            os.ftruncate(self._file.fileno(), len(self._mine))
        except OSError as error:
            raise ValueError(f"--output_path {self.folder}: cannot be written ({error.strerror})") from None
        self._beating.start()

    def require(self) -> None:
        """Raises ValueError if another machine's run has taken the folder, because this one was silent for too long."""
        if self._file is not None and (content := self._content()) != self._mine:
            raise ValueError(
                f"--output_path {self.folder}: was taken over by {_holder(content)}, because this run gave no sign of "
                f"life for {SILENCE:.0f} seconds; it writes nothing more there"
            )

    def _take(self) -> BinaryIO:
        """The locked file, of nobody who lives. Raises ValueError if another run holds it."""
        silent = None  # the file's content when it had been silent for long enough
        while True:
            try:
                file, new = self.path.open("x+b"), True
            except FileExistsError:
                try:
                    file, new = self.path.open("r+b"), False
                except FileNotFoundError:  # its holder has just ended
                    continue
            locked, content = _lock(file), file.read()
            if locked is None:
                file.close()
                raise ValueError(self._held(content))
            if not self._is_there(file):
                file.close()
            elif new or content == silent or (locked and (not content or _owner(content).get("system") == _system())):
                return file  # empty: its maker was killed before it could write
            else:
                file.close()
                silent = self._wait_for_silence()

    def _wait_for_silence(self) -> bytes | None:
        """Raises ValueError if somebody touches the file."""
        first, end = None, time.monotonic() + SILENCE
        while time.monotonic() < end:
            try:
                with self.path.open("rb") as file:  # opened anew each time: only then does NFS look
                    found = file.read(), os.fstat(file.fileno()).st_mtime_ns
            except FileNotFoundError:
                return None
            if first is None:
                first = found
                self.say(f"{self._held(first[0])}; waiting up to {SILENCE:.0f} seconds for a sign of life")
            if found != first:
                raise ValueError(self._held(found[0]))
            time.sleep(LOOK_EVERY)
        return first[0]

    def _held(self, content: bytes) -> str:
        return (
            f"--output_path {self.folder}: {_holder(content)} writes there; wait until it has ended, or choose another "
            "folder"
        )

    def _is_there(self, file: BinaryIO) -> bool:
        """Whether the file has not been removed between opening and locking it."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _content(self) -> bytes:
        return os.pread(self._file.fileno(), 10_000, 0)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):  # a disk that does not answer for a moment
                os.utime(self._file.fileno())


def _lock(file: BinaryIO) -> bool | None:
    """Whether the file could be locked; None if another process holds it. False where files cannot be locked."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return None if error.errno in (errno.EACCES, errno.EAGAIN) else False
    return True


def _system() -> str:
    """Of the running system: processes under one see each other's locks, also from different containers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


def _owner(content: bytes) -> dict[str, object]:
    try:
        owner = json.loads(content)
    except ValueError:
        owner = None
    return {"host": "?", "pid": "?", "since": "?"} | (owner if isinstance(owner, dict) else {})


def _holder(content: bytes) -> str:
    return "another run (process {pid} on {host}, since {since})".format(**_owner(content))
