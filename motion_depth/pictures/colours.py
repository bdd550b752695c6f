"""What scales of colours share; what colour a motion or a distance has, its readout says.

Axes: t frames, h height, w width. Maps come in as tensors on any device; colours go out as numpy uint8 RGB. A colour
depends on the value and the scale only, never on what else is in the picture. Values beyond the scale saturate; a pixel
without a value is `NO_VALUE` grey, which no value has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import matplotlib
import numpy as np
import torch
from torch import Tensor

NO_VALUE = (128, 128, 128)
ERROR_COLOURS = "magma"  # black is no error


@dataclass(frozen=True)
class Bar:
    """A legend that runs from bottom to top.

    colour: shares (1, h, w) from 0 at the bottom to 1 on top, to (1, h, w, 3). labels: on top, in the middle, below.
    """

    colour: Callable[[Tensor], np.ndarray]
    labels: tuple[str, str, str]


@dataclass(frozen=True)
class Wheel:
    """A round legend.

    colour: places (1, 2, h, w), x to the right and y down, at distance 1 on the rim, to (1, h, w, 3).
    above, below: what is written there.
    """

    colour: Callable[[Tensor], np.ndarray]
    above: str
    below: str


class Scale(Protocol):
    """What colours mean. Equal scales are equal objects (frozen dataclasses): neighbouring rows share one legend."""

    def colour(self, values: Tensor, valid: Tensor | None = None) -> np.ndarray:
        """A map of t frames, with a mask (t, h, w) or None for wherever there is a value, to (t, h, w, 3)."""

    def legend(self) -> Bar | Wheel: ...


@dataclass(frozen=True)
class ErrorScale:
    """Errors (t, h, w) from 0 (black) to max_error (pale yellow), in `unit`."""

    max_error: float
    unit: str

    def colour(self, values: Tensor, valid: Tensor | None = None) -> np.ndarray:
        values = values.detach().float().cpu()
        valid = within(values.isfinite(), valid)
        return grey_out(look_up(values.masked_fill(~valid, 0.0) / self.max_error, ERROR_COLOURS), valid)

    def legend(self) -> Bar:
        labels = (self.max_error, "≥ {:g} {}"), (self.max_error / 2, "{:.3g} {}"), (0, "{} {}")
        return Bar(
            lambda share: self.colour(share * self.max_error),
            tuple(text.format(value, self.unit) for value, text in labels),
        )


def within(has_value: Tensor, valid: Tensor | None) -> Tensor:
    """Where there is a value, within a mask if there is one; on the CPU."""
    return has_value.cpu() if valid is None else has_value.cpu() & valid.cpu()


def look_up(share: Tensor, colours: str) -> np.ndarray:
    """Colour of each share (...) of one of matplotlib's scales, clamped to 0 .. 1; (..., 3)."""
    table = matplotlib.colormaps[colours](np.arange(256), bytes=True)[:, :3]
    return table[(share.clamp(0, 1) * 255).round().to(torch.uint8).numpy()]


def grey_out(colours: np.ndarray, valid: Tensor) -> np.ndarray:
    return np.where(valid.numpy()[..., None], colours, np.uint8(NO_VALUE))


def two_digits(value: float, rounding: Callable[[float], int]) -> float:
    """Rounded to two digits, up (`math.ceil`) or down (`math.floor`)."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    # What is a two-digit number already, but for the last bits of a float32, stays as it is.
    digits = round(value / step) if math.isclose(value / step, round(value / step), rel_tol=1e-6) else value / step
    return float(f"{rounding(digits) * step:.2g}")
