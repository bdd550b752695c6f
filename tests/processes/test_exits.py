"""How one process of several ends: what it says of an error of its own, and of one that another process made."""

from collections.abc import Callable

import pytest
from torch import distributed

from motion_depth.processes.exits import FAILED, run_to_the_end
from motion_depth.processes.signals import Stopped

# As torch 2.11 to 2.14 puts them.
GLOO = "[third_party/gloo/gloo/transport/tcp"
NCCL = "NCCL error in: torch/csrc/distributed/c10d/NCCLUtils.hpp:268, {}, NCCL version 2.30.7\n{}\nLast error:\n{}"
REMOTE = "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely."
SYSTEM = "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error."
GONE = [
    RuntimeError(f"{GLOO}/pair.cc:561] Connection closed by peer [127.0.0.1]:1. Check its logs."),
    RuntimeError(f"{GLOO}/pair.cc:545] Read error [127.0.0.1]:9417: Connection reset by peer."),
    distributed.DistBackendError(
        NCCL.format("remote process exited or there was a network error", REMOTE, "socketProgress: recv failed")
    ),
    distributed.DistBackendError(
        NCCL.format("internal error", "ncclInternalError: Check failed.", "Connection closed by remote peer b<5>")
    ),
    distributed.DistNetworkError("Failed to recv, got 0 bytes. Connection was likely closed. Did the server crash?"),
]
SILENT = [
    RuntimeError(f"{GLOO}/unbound_buffer.cc:78] Timed out waiting 5000ms for recv operation to complete"),
    distributed.DistBackendError("[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=2) ran for 6"),
]
OWN = [
    distributed.DistBackendError(
        NCCL.format(
            "unhandled system error", SYSTEM, "Error while creating shared memory segment nccl-Eo (size 7340384)"
        )
    ),
    distributed.DistBackendError(NCCL.format("unhandled cuda error", "ncclUnhandledCudaError: Call failed.", "Cuda 2")),
    distributed.DistNetworkError(
        "The client socket has timed out after 60000ms while trying to connect to (a, 29500)."
    ),
    RuntimeError("Gloo connectFullMesh failed with [gloo/transport/tcp/pair.cc:144] no error"),
    RuntimeError("DataLoader worker is killed by signal: Bus error. It might be out of shared memory: broken pipe."),
    OSError("Connection reset by peer"),
]


def end(function: Exception | Callable, monkeypatch, capfd, rank: int = 0, processes: int = 2) -> str:
    """What a process says that ends with an error, or with what a function raises."""

    def fail() -> None:
        if isinstance(function, Exception):
            raise function
        function()

    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setattr("motion_depth.processes.exits.OTHERS_WAIT", 0.0)
    assert run_to_the_end(fail) == FAILED
    return capfd.readouterr().err


@pytest.mark.parametrize("error", GONE, ids=lambda error: str(error)[:60])
def test_a_lost_process_is_named_as_the_reason_with_all_that_was_said(error, monkeypatch, capfd):
    said = end(error, monkeypatch, capfd)
    assert said == f"rank 0: ends because another process has ended\n{str(error).strip()}\n"
    assert end(error, monkeypatch, capfd, processes=1).startswith("Traceback")  # one alone loses no other


@pytest.mark.parametrize("error", SILENT, ids=lambda error: str(error)[:60])
def test_of_a_process_that_does_not_answer_the_traceback_is_told_too(error, monkeypatch, capfd):
    first, *more = end(error, monkeypatch, capfd).splitlines()
    assert first == "rank 0: ends because another process has ended or has not answered for --timeout_minutes"
    assert more[0] == "Traceback (most recent call last):"
    assert str(error) in "\n".join(more)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("error", OWN, ids=lambda error: str(error)[:60])
def test_an_error_of_its_own_comes_with_text_and_traceback(error, rank, monkeypatch, capfd):
    said = end(error, monkeypatch, capfd, rank)
    assert "another process" not in said
    assert said.startswith("rank 1: Traceback" if rank else "Traceback")
    assert str(error).strip() in said


def test_what_went_wrong_before_the_connection_did_is_told(monkeypatch, capfd):
    def fail() -> None:
        try:
            raise KeyError("a cause")
        finally:
            raise GONE[0]

    said = end(fail, monkeypatch, capfd)
    assert "KeyError: 'a cause'" in said
    assert str(GONE[0]) in said


@pytest.mark.parametrize(("error", "told"), [(RuntimeError("mine"), True), (ValueError("all find this"), False)])
def test_a_process_that_is_ended_while_it_waits_tells_what_only_it_knows(error, told, monkeypatch, capfd):
    def stopped(_: float) -> None:
        raise Stopped("stopped by SIGTERM")

    monkeypatch.setattr("motion_depth.processes.exits.time.sleep", stopped)
    assert ("mine" in end(error, monkeypatch, capfd, rank=1)) == told
