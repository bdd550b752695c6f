"""How a program of several processes ends: exit codes, and one message from the process that knows what went wrong."""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from motion_depth.stopping import Stopped

FINISHED = 0
FAILED = 1  # an error that nobody foresaw, with its traceback
REFUSED = 2  # flags, data, weights, checkpoints or the disk: one line says which and what to do
NOT_FINITE = 3  # losses or gradients are not finite; a checkpoint from before stands
STOPPED = 75  # by a signal or --max_hours; the same call goes on (sysexits.h: EX_TEMPFAIL)

# A launcher between this process and the shell hides exit codes; tools/launch.sh names a file here to be told.
REPORT_FILE = "MOTION_DEPTH_EXIT_REPORT"
# The main process speaks first: what all of them find, one of them says.
OTHERS_WAIT = 1.0  # seconds
# What gloo and NCCL say in a process whose peer has gone.
LOST_PEER = ("connection closed by peer", "connection reset", "connection refused", "broken pipe", "gloo", "nccl")


class NotFiniteError(Exception):
    """Losses or gradients stayed inf or NaN; the text says of which clips and which checkpoint stands."""


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def say(message: str) -> None:
    """One line on stderr, from the main process only, also before accelerate has started."""
    if rank() == 0:
        print(message, file=sys.stderr, flush=True)


def run_to_the_end(function: Callable[[], None]) -> int:
    """Calls a function and returns the exit code, after one process has said what went wrong."""
    if path := os.environ.get(REPORT_FILE):
        Path(f"{path}.{os.getpid()}.pid").touch()  # this process now listens for signals
    try:
        function()
    except Stopped as stop:
        say(str(stop))
        return _report(STOPPED, str(stop))
    except NotFiniteError as error:  # on all processes alike
        say(f"error: {error}")
        return _report(NOT_FINITE, str(error))
    except Exception as error:
        if _lost_peer(error):
            _print(f"rank {rank()}: ends because another process has ended ({_first_line(error)})")
            return FAILED
        return _fail(error)
    return _report(FINISHED, "")


def leave(code: int) -> None:
    """Exits. Of several processes a failed one leaves without waiting for the others, who may wait for it."""
    if code == STOPPED and os.environ.get(REPORT_FILE):
        code = FINISHED  # the report says it; a launcher would print a wall about a failure
    if code not in (FINISHED, STOPPED) and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _fail(error: Exception) -> int:
    if rank() != 0:
        try:
            time.sleep(OTHERS_WAIT)
        except Stopped:  # the main process found the same, and the launcher ends the others
            return FAILED
    where = f"rank {rank()}: " if rank() else ""
    if (message := _explained(error)) is None:
        _print("".join(traceback.format_exception(error)).rstrip())
        return _report(FAILED, f"{where}{type(error).__name__}: {error}")
    _print(f"error: {where}{message}")
    return _report(REFUSED, f"{where}{message}")


def _explained(error: Exception) -> str | None:
    """A sentence for the user; None if only a traceback can help."""
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f"out of GPU memory ({_first_line(error)}); lower --num_frames, --height or --width, or --loss_frames, "
            "and keep --batch_size 1"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({error.strerror})"
    return str(error) if isinstance(error, ValueError) else None


def _lost_peer(error: Exception) -> bool:
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not isinstance(error, RuntimeError):
        return False
    return any(words in str(error).lower() for words in LOST_PEER)


def _report(code: int, message: str) -> int:
    """Tells the script that started the launcher; the first process that reports has the cause."""
    if path := os.environ.get(REPORT_FILE):
        draft = Path(f"{path}.{os.getpid()}")
        try:
            draft.write_text(f"{code}\n{message}\n")
            os.link(draft, path)  # refuses if there is a report
        except OSError:
            pass  # the code alone then has to do
        finally:
            draft.unlink(missing_ok=True)
    return code


def _print(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
