"""Means and sums over the pixels that count, shared by losses, metrics and statistics."""

from __future__ import annotations

import torch
from einops import reduce
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor, pattern: str = "b ... -> b") -> Tensor:
    """Mean of values where mask holds, over the axes that the einops pattern drops.

    Where no value counts the mean is 0 with zero gradient. Values outside the mask may be anything, NaN too: they
    are never multiplied. (A NaN that came of differentiable operations would still spoil their gradient, so losses take
    invalid targets out before they compute with them.)
    """
    total = reduce(torch.where(mask, values, 0.0), pattern, "sum")
    return total / reduce(mask.to(values.dtype), pattern, "sum").clamp(min=1)


def count(mask: Tensor) -> Tensor:
    """(..., h, w) bool to how many hold, (...) float64."""
    return mask.sum(dim=(-2, -1)).double()


def total(values: Tensor, mask: Tensor) -> Tensor:
    """Sum of values (..., h, w) where mask holds, (...) float64."""
    return torch.where(mask, values, 0.0).sum(dim=(-2, -1), dtype=torch.float64)


def hits(hit: Tensor, compared: Tensor, mask: Tensor) -> Tensor:
    """How often a comparison holds within the mask; NaN if what was compared is NaN there, which compares as False."""
    return total(torch.where(compared.isnan(), compared, hit.to(compared.dtype)), mask)
