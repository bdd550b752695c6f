"""torch.compile of the parts that repeat: the DiT's blocks and the heads. Regional, so that it takes seconds, not
minutes: all blocks share one compiled graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import nn
from torch._dynamo.utils import counters, get_compilation_metrics


class CompileCounts(NamedTuple):
    """What torch.compile has done in this process so far."""

    graphs: int
    graph_breaks: int
    recompiles: int

    def __str__(self) -> str:
        return f"compile: {self.graphs} graphs, {self.graph_breaks} graph breaks, {self.recompiles} recompiles"


def compile_parts(blocks: nn.ModuleList, heads: Iterable[nn.Module], backend: str = "inductor") -> None:
    """Lets torch compile each module in place, when it is first called; names of parameters stay as they are.

    Args:
        backend: of torch.compile; inductor needs a C++ compiler on a CPU, and Triton on a GPU.
    """
    for module in (*blocks, *heads):
        module.compile(backend=backend)


def compile_counts() -> CompileCounts:
    """Graph breaks split what could be one graph; a recompile is a second graph of the same code, for other shapes."""
    metrics = [each for each in get_compilation_metrics() if each.compile_id and not each.fail_type]
    again = [each for each in metrics if not str(each.compile_id).split("_")[0].endswith("/0")]
    return CompileCounts(counters["stats"]["unique_graphs"], sum(counters["graph_break"].values()), len(again))
