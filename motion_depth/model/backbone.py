"""What the parts know of the model that they train on: its numbers, its files, what it computes.

Axes: b clip, c channel, f latent frame, h w the token grid.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class DitFeatures(NamedTuple):
    """What a head reads of one forward, with p latents along a side of a token."""

    taps: list[Tensor]  # per tap (b, f h w, c): output of a block, on the token grid
    time_embedding: Tensor  # (b, f, c): each latent frame's own timestep embedding
    latents: Tensor  # (b, c, f, p h, p w): the noised latents that the backbone was given
    grid: tuple[int, int, int]  # (f, h, w) of the tokens
