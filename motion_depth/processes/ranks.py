"""Which process of how many this is, as the launcher says in the environment; also before accelerate has started."""

import os
import sys


def rank() -> int:
    """Number of this process in the run; 0 is the main process."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world_size() -> int:
    """Processes of the run; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """Processes of the run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def say(message: str) -> None:
    """One line on stderr, from the main process only."""
    if rank() == 0:
        print(message, file=sys.stderr, flush=True)
