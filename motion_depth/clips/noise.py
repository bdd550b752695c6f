"""Noise levels and noise as pure functions of (seed, position in the training sequence).

Nothing here keeps state, so a resumed run, another number of processes, or reading from a cache draws the same numbers
for the same clip.

Sigma runs from 0 (clean) to 1 (noise only); the timestep is 1000 sigma. The library's own grid for WAN (shift 5) puts
only 2 % of its steps below sigma 0.1, where the heads see the clip best, so the heads train on a mixture.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SHIFT = 5.0  # WAN's timestep shift in training and at inference
LOW_NOISE = 0.15  # the "low" component is uniform between 0 and this
STRATA = 8  # consecutive clips of the training sequence that together cover the mixture evenly
NOISE_BINS = (0.1, 0.3, 0.5, 0.7, 0.9)  # edges of the bins by which losses are reported


@dataclass(frozen=True)
class NoiseMixture:
    """Weights of three ways to draw sigma; they need not add up to 1.

    uniform: sigma ~ U(0, 1). low: sigma ~ U(0, LOW_NOISE). shifted: a step of the library's 1,000-step training grid.

    Raises:
        ValueError: a weight that is negative or not finite, or all of them zero.
    """

    uniform: float = 1.0
    low: float = 1.0
    shifted: float = 1.0

    def __post_init__(self):
        weights = self.uniform, self.low, self.shifted
        if not (min(weights) >= 0 and 0 < sum(weights) < math.inf):
            given = ",".join(map(str, weights))
            raise ValueError(f"--noise_mixture {given}: expected three finite weights, none below 0, not all 0")

    @staticmethod
    def parse(text: str) -> NoiseMixture:
        """Reads "uniform,low,shifted" weights such as "1,1,1" or "0,0,1"."""
        try:
            uniform, low, shifted = (float(part) for part in text.split(","))
        except ValueError:
            raise ValueError(
                f"--noise_mixture {text}: expected three numbers, the weights of uniform,low,shifted"
            ) from None
        return NoiseMixture(uniform, low, shifted)

    def sigma(self, u: float) -> float:
        """The sigma at quantile u in [0, 1) of the mixture's parts laid end to end."""
        weights = np.array([self.uniform, self.low, self.shifted], dtype=np.float64)
        edges = np.concatenate([[0.0], np.cumsum(weights / weights.sum())])
        part = min(int(np.searchsorted(edges, u, side="right")) - 1, 2)
        inside = (u - edges[part]) / max(edges[part + 1] - edges[part], 1e-12)
        if part == 0:
            return float(inside)
        if part == 1:
            return float(LOW_NOISE * inside)
        grid = 1.0 - int(inside * 1000) / 1000  # the library's grid: sigma_max 1 down to 1/1000, then shifted
        return float(SHIFT * grid / (1 + (SHIFT - 1) * grid))


def _generator(seed: int, position: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(purpose.encode()), seed, position])


def clip_sigma(mixture: NoiseMixture, seed: int, position: int) -> float:
    """Sigma of the clip at a position of the training sequence.

    Each group of STRATA consecutive positions draws once from each of STRATA equal slices of the mixture, in an order
    of its own. Ranks and accumulation steps take consecutive positions, so every update covers the range.
    """
    group, member = divmod(position, STRATA)
    stratum = _generator(seed, group, "strata").permutation(STRATA)[member]
    return mixture.sigma((stratum + _generator(seed, position, "sigma").random()) / STRATA)


def clip_noise(shape: tuple[int, ...], seed: int, position: int) -> Tensor:
    """Standard normal noise of a clip, float32, drawn on the CPU so that every device gets the same."""
    state = int(_generator(seed, position, "noise").integers(2**63))
    return torch.randn(shape, generator=torch.Generator().manual_seed(state))


def clip_frames(count: int, total: int, seed: int, position: int) -> Tensor:
    """`count` of the frames 0 .. total-1 of a clip, ascending. Frame 0 has no motion, but it has depth."""
    return torch.from_numpy(np.sort(_generator(seed, position, "frames").choice(total, size=count, replace=False)))


def noise_bin(sigma: float) -> str:
    """Name of the bin that a sigma falls into, such as "0.1-0.3"."""
    edges = (0.0, *NOISE_BINS, 1.0)
    index = int(np.searchsorted(NOISE_BINS, sigma, side="right"))
    return f"{edges[index]:g}-{edges[index + 1]:g}"
