"""Several processes that form a group on this machine, and may stand for several machines."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

LIMIT = 60  # seconds


def in_processes(function: Callable[[Accelerator], Any], machines: Sequence[int]) -> list[Any]:
    """Calls a function in as many processes, forked from this one, and returns what each returns or raises.

    Args:
        machines: how many processes each machine has.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    total, places = sum(machines), [(local, size) for size in machines for local in range(size)]

    def run(rank: int) -> None:
        torch.set_num_threads(1)  # a forked process has none of its parent's threads
        local, size = places[rank]
        numbers = {"RANK": rank, "WORLD_SIZE": total, "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": size}
        os.environ.update({name: str(number) for name, number in numbers.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true")
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        accelerator = Accelerator()
        assert accelerator.num_processes == total
        try:
            results.put((rank, function(accelerator)))
        except Exception as error:
            results.put((rank, error))
        accelerator.wait_for_everyone()

    processes = [context.Process(target=run, args=(rank,)) for rank in range(total)]
    for process in processes:
        process.start()
    try:
        found = dict(results.get(timeout=LIMIT) for _ in processes)
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    return [found[rank] for rank in range(total)]
