"""What the processes of several machines do one after the other, must share, and must have alike."""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from motion_depth.processes.ranks import local_rank

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
        with contextlib.suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(lock.open("a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if local_rank() < 2:  # one of the first two waits, if any does
                    print(waiting, file=sys.stderr, flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
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
        mine = accelerator.process_index
        firsts = [
            each for each in gather_object([mine if accelerator.is_local_main_process else None]) if each is not None
        ]
        first = max(each for each in firsts if each <= mine)
        end = min((each for each in firsts if each > first), default=accelerator.num_processes)
        return cls(first, end - first, len(firsts) == 1)


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
    sees = not accelerator.is_local_main_process or _appears(folder / name)
    blind = gather_object([None if sees else f"{socket.gethostname()} (rank {accelerator.process_index})"])
    if accelerator.is_main_process:
        (folder / name).unlink(missing_ok=True)
    return [machine for machine in blind if machine]


def _appears(path: Path) -> bool:
    end = time.monotonic() + SHARED_WAIT
    while not (appeared := path.exists()) and time.monotonic() <= end:
        time.sleep(0.1)
    return appeared


def require_shared(accelerator: Accelerator, flag: str, folder: Path, why: str) -> None:
    """Raises ValueError, on all processes, if a machine does not see what the main process writes into a folder."""
    if blind := sees_shared(accelerator, flag, folder):
        raise ValueError(
            f"{flag} {folder}: {', '.join(blind)} does not see there what rank 0 writes; give a folder that all "
            f"machines share, {why}"
        )


def require_alike(accelerator: Accelerator, facts: Mapping[str, object] | None) -> None:
    """Compares what each machine has read or was given. Collective.

    Args:
        facts: by name what can be compared with `==`; only the first process of each machine is asked.

    Raises:
        ValueError: on all processes, naming the machine and what differs there from the main process's.
    """
    about = (socket.gethostname(), facts) if accelerator.is_local_main_process else None
    everywhere = gather_object([about])
    host, expected = everywhere[0]
    for rank, (other, theirs) in [(rank, each) for rank, each in enumerate(everywhere) if each]:
        if differing := [name for name, value in expected.items() if theirs[name] != value]:
            raise ValueError(
                f"{', '.join(differing)}: not the same on {other} (rank {rank}) as on {host} (rank 0); expected the "
                "same settings, and the same files or copies of them, on every machine"
            )
