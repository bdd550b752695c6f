"""What the processes of several machines do one after the other, must share, and must have alike."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

# How long a network file system may hide a new file from another machine: NFS keeps a folder's content for up to 60 s.
SHARED_WAIT = 70.0  # seconds


@contextlib.contextmanager
def one_at_a_time(lock: Path, waiting: str) -> Iterator[None]:
    """Processes that hold the same file enter one after the other, however long it takes.

    The system lets go of the file when a process ends, in whatever way. Where files cannot be locked or not be written
    nobody waits.

    Args:
        lock: made if it is not there, and left there.
        waiting: said once by a process that has to wait.
    """
    with contextlib.ExitStack() as stack:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(lock.open("a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if int(os.environ.get("LOCAL_RANK", "0")) < 2:  # one of the first two waits, if any does
                    print(waiting, file=sys.stderr, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass
        yield


@dataclass(frozen=True)
class Machine:
    """The processes of this machine: ranks first, first + 1, ... and whether it is the only machine."""

    first: int
    processes: int
    alone: bool

    @classmethod
    def find(cls, accelerator: Accelerator) -> Machine:
        """Collective. Launchers number the processes of a machine one after the other."""
        firsts = [rank for rank in gather_object([_first_rank(accelerator)]) if rank is not None]
        mine = max(rank for rank in firsts if rank <= accelerator.process_index)
        end = min((rank for rank in firsts if rank > mine), default=accelerator.num_processes)
        return cls(mine, end - mine, len(firsts) == 1)


def _first_rank(accelerator: Accelerator) -> int | None:
    return accelerator.process_index if accelerator.is_local_main_process else None


def sees_shared(accelerator: Accelerator, flag: str, folder: Path) -> list[str]:
    """The machines that do not see what the main process writes into a folder; [] if all of them share it. Collective.

    The folder is made if there are several machines. A file is put there for a moment.

    Raises:
        ValueError: on all processes, if the main process cannot write there.
    """
    if Machine.find(accelerator).alone:
        return []
    name, failure = f".shared-{secrets.token_hex(8)}", None
    if accelerator.is_main_process:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()
        except OSError as error:
            failure = f"{flag} {folder}: cannot be written ({error.strerror})"
    name, failure = broadcast_object_list([name, failure])
    if failure:
        raise ValueError(failure)
    found = not accelerator.is_local_main_process or _appears(folder / name)
    blind = gather_object([None if found else f"{socket.gethostname()} (rank {accelerator.process_index})"])
    if accelerator.is_main_process:
        (folder / name).unlink(missing_ok=True)
    return [machine for machine in blind if machine]


def require_shared(accelerator: Accelerator, flag: str, folder: Path, why: str) -> None:
    """Raises ValueError, on all processes, if a machine does not see what the main process writes into a folder."""
    if blind := sees_shared(accelerator, flag, folder):
        raise ValueError(
            f"{flag} {folder}: {', '.join(blind)} does not see there what rank 0 writes; give a folder that all "
            f"machines share, {why}"
        )


def require_alike(accelerator: Accelerator, found: Mapping[str, Any] | None) -> None:
    """Compares what machines have found. Collective.

    Args:
        found: by name what can be compared with `==`; only the first process of each machine is asked.

    Raises:
        ValueError: on all processes, naming the machine and what differs there from the main process's.
    """
    about = (socket.gethostname(), found) if accelerator.is_local_main_process else None
    everywhere = gather_object([about])
    for rank, (host, theirs) in [(rank, each) for rank, each in enumerate(everywhere) if each]:
        if differing := [name for name, value in everywhere[0][1].items() if theirs[name] != value]:
            raise ValueError(
                f"{', '.join(differing)}: found another on {host} (rank {rank}) than on {everywhere[0][0]} (rank 0); "
                "expected the same settings, and the same files or copies of them, on every machine"
            )


def _appears(path: Path) -> bool:
    end = time.monotonic() + SHARED_WAIT
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
