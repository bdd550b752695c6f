"""All of a DiT's weights trained: float32 masters that compute in the DiT's own type, saved as stock DiffSynth loads.

A bfloat16 weight keeps 8 bits: at the learning rates of fine-tuning most updates would round to nothing. So what trains
is float32, and every layer reads it rounded, at the moment it computes: the forward is, to the last bit, that of the
bfloat16 file that is saved. Autocast would do otherwise: it runs norms in float32, which no inference does.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor, nn

from motion_depth.model.backbone import Dit
from motion_depth.model.lora import is_behind

SAVED = torch.bfloat16  # the type of the file, in which names and shapes are the release's: stock DiffSynth knows it


def tune_fully(dit: Dit, dtype: torch.dtype, last_block: int | None = None) -> Dit:
    """Makes a DiT's weights train, in place, as float32 masters.

    Args:
        dtype: that it computes in.
        last_block: what comes behind this block stays frozen, in `dtype`; None: all trains.
    """
    for name, parameter in dit.named_parameters():
        trains = not is_behind(name, last_block)
        parameter.requires_grad_(trains)
        parameter.data = parameter.data.to(torch.float32 if trains else dtype)
    if dtype != torch.float32:
        for layer in dit.modules():
            if names := tuple(name for name, value in layer._parameters.items() if value is not None):
                layer.__class__ = _reading(type(layer), names, dtype)
    dit.computes_in = dtype
    return dit


@cache  # one class for all layers of a kind, so that all blocks share what torch.compile makes of one
def _reading(kind: type[nn.Module], names: tuple[str, ...], dtype: torch.dtype) -> type[nn.Module]:
    """A kind of layer that reads its weights in another type; their names and what is stored stay as they are."""

    def reader(name: str) -> property:
        return property(lambda layer: layer._parameters[name].to(dtype))

    return type(kind.__name__, (kind,), {name: reader(name) for name in names} | {"reads_as_stored": kind})


def read_as_stored(dit: Dit) -> None:
    """Undoes the rounding on reading, for who brings the weights in the type that computes by himself (sharding.py)."""
    for layer in dit.modules():
        layer.__class__ = getattr(layer, "reads_as_stored", type(layer))


def is_tuned(dit: nn.Module) -> bool:
    """Whether all of a DiT's weights train, or as many of them as take part."""
    return hasattr(dit, "computes_in")


def compute_type(dit: nn.Module) -> torch.dtype:
    """What a DiT computes in, and takes its inputs in."""
    return getattr(dit, "computes_in", next(dit.parameters()).dtype)


@torch.no_grad()
def load_dit(dit: Dit, weights: Mapping[str, Tensor], source: str) -> None:
    """Puts others, by the same names, in the place of a DiT's weights. Raises ValueError for those of another DiT."""
    own = dit.state_dict(keep_vars=True)
    found, expected = ({name: tuple(value.shape) for name, value in each.items()} for each in (weights, own))
    if wrong := sorted(name for name in own | weights if found.get(name) != expected.get(name)):
        raise ValueError(
            f"{source}: weights of another DiT ({len(wrong)} tensors differ, the first is {wrong[0]}: found "
            f"{found.get(wrong[0], 'none')}, expected {expected.get(wrong[0], 'none')})"
        )
    for name, value in weights.items():
        own[name].copy_(value)
