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
from torch import distributed

from motion_depth.processes.ranks import rank, say, world_size
from motion_depth.processes.signals import Stopped

FINISHED = 0
FAILED = 1  # an error that nobody foresaw, with its traceback
REFUSED = 2  # flags, data, weights, checkpoints or the disk: one line says which and what to do
NOT_FINITE = 3  # losses or gradients are not finite; a checkpoint from before stands
STOPPED = 75  # by a signal or --max_hours; the same call goes on (sysexits.h: EX_TEMPFAIL)

# A launcher between this process and the shell hides exit codes; tools/launch.sh names a file here to be told.
REPORT_FILE = "MOTION_DEPTH_EXIT_REPORT"
# The main process speaks first: what all of them find, one of them says.
OTHERS_WAIT = 1.0  # seconds
# What gloo, NCCL and torch's store say in a process whose peer has gone. NCCL's other errors (shared memory, CUDA,
# usage), and what fails while processes look for each other, have their cause here.
PEER_GONE = (
    "connection closed by peer",
    "connection reset by peer",
    "connection closed by remote peer",
    "connection was likely closed",
    "broken pipe",
    "remote process exited or there was a network error",
)
# The same where a peer may also hang, or wait in another place; the traceback says where this process waited.
NO_ANSWER = (
    "timed out waiting",
    "application timeout caused pair closure",
    "timed out in blocking wait",
    "watchdog caught collective operation timeout",
)


class NotFiniteError(Exception):
    """Losses or gradients stayed inf or NaN; the text says of which clips and which checkpoint stands."""


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
        if (text := _lost_peer(error)) is None:
            return _fail(error)
        print(f"rank {rank()}: ends because {text}", file=sys.stderr, flush=True)
        return FAILED
    return _report(FINISHED, "")


def leave(code: int) -> None:
    """Exits. Of several processes a failed one leaves without waiting for the others, who may wait for it."""
    if code == STOPPED and os.environ.get(REPORT_FILE):
        code = FINISHED  # the report says it; a launcher would print a wall about a failure
    if code not in (FINISHED, STOPPED) and world_size() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _fail(error: Exception) -> int:
    message = _explained(error)
    if rank() != 0:
        try:
            time.sleep(OTHERS_WAIT)
        except Stopped:  # the launcher ends the others, because the main process has failed
            if message is not None:  # of the same
                return FAILED
    where = f"rank {rank()}: " if rank() else ""
    said = f"{where}{_traceback(error)}" if message is None else f"error: {where}{message}"
    print(said, file=sys.stderr, flush=True)
    if message is None:
        return _report(FAILED, f"{where}{type(error).__name__}: {error}")
    return _report(REFUSED, f"{where}{message}")


def _explained(error: Exception) -> str | None:
    """A sentence for the user; None if only a traceback can help."""
    if isinstance(error, torch.OutOfMemoryError):
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return (
            f"out of GPU memory ({first}); lower --num_frames, --height or --width, or --loss_frames, and keep "
            "--batch_size 1"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({error.strerror})"
    return str(error) if isinstance(error, ValueError) else None


def _lost_peer(error: Exception) -> str | None:
    """What to say if another process is the reason, which then says more; None if the reason is this one's own."""
    text = str(error).strip()
    spoken = isinstance(error, distributed.DistError) or any(name in text.lower() for name in ("gloo", "nccl"))
    if world_size() < 2 or not isinstance(error, RuntimeError) or not spoken:
        return None
    if any(words in text.lower() for words in NO_ANSWER):
        return f"another process has ended or has not answered for --timeout_minutes\n{_traceback(error)}"
    if any(words in text.lower() for words in PEER_GONE):
        # Something else may have gone wrong here before.
        return f"another process has ended\n{_traceback(error) if error.__context__ else text}"
    return None


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


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(error)).rstrip()
