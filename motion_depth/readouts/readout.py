"""What every predicted quantity must say of itself; motion.py and depth.py are examples, docs/extending.md the recipe.

Axes: b clip, t frame, c channel, h w pixel at the clip's resolution.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from motion_depth.data.clip_frame import ClipFrame
from motion_depth.pictures.colours import ErrorScale, Scale
from motion_depth.readouts.targets import Target, Targets

Predictions = Mapping[str, Tensor]  # by the names of `Readout.decode`, of all quantities


@dataclass(frozen=True)
class Statistics:
    """What a training set looks like; `Readout.statistics` says what each quantity has.

    Attributes:
        scales: what the first prediction costs; a loss term is divided by its own.
        numbers: where the heads start, and what is told of the data.
        maps: (h, w) each, by name.
    """

    scales: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)

    def to_json(self) -> dict:
        """Everything but the maps, which are saved as tensors."""
        return {**self.numbers, "scales": self.scales}

    @staticmethod
    def from_json(values: dict, maps: dict[str, Tensor]) -> Statistics:
        return Statistics(values["scales"], {name: each for name, each in values.items() if name != "scales"}, maps)


class Readout(ABC):
    """A quantity that a head predicts at every pixel. Names of losses, metrics, statistics and predictions are its own
    among all quantities, so they begin with its name or are well known.
    """

    name: ClassVar[str]  # of its head, its file <name>_head.safetensors and its flag --<name>_loss_weight
    kinds: ClassVar[tuple[str, ...]]  # of files that a target is made of, besides pictures
    channels: ClassVar[int]  # of the head's raw output
    map_channels: ClassVar[tuple[int, ...]]  # of a target's map, (t, *map_channels, h, w)
    meaning: ClassVar[str]  # of the map's numbers, with unit; written into config.json
    loss_weight: ClassVar[float] = 1.0  # default of --<name>_loss_weight
    scales: ClassVar[tuple[str, ...]]  # names of `Statistics.scales`
    numbers: ClassVar[Mapping[str, tuple[float, float]]] = {}  # names of `Statistics.numbers`, lowest and highest
    maps: ClassVar[tuple[str, ...]] = ()  # names of `Statistics.maps`
    means: ClassVar[Mapping[str, tuple[str, str]]]  # metric -> its sum and its count, for those that are plain means
    columns: ClassVar[tuple[str, ...]]  # metrics in the tables of the report
    headline: ClassVar[Mapping[str, str]]  # metric -> its label, of those that are printed; the first is `scored`
    unit: ClassVar[str]  # of these, "" for none
    nothing: ClassVar[str]  # what is the case where no pixel counts
    plot: ClassVar[str]  # title of the plot of `scored`
    baselines: ClassVar[Mapping[str, str]]  # trivial predictions: name -> what they say, "baseline" first

    # ------------------------------------------------------------------------------------------ data

    def needs(self, frame: ClipFrame) -> list[tuple[str, int]]:
        """Kind and number of every file that `target` reads for a frame."""
        return [(kind, frame.number) for kind in self.kinds]

    def target(self, frame: ClipFrame) -> Target:
        """What the head should say of one frame: (*map_channels, h, w) float32, 0 where it is not valid; (h, w) bool.

        Unless a quantity says otherwise, what its first kind's file holds, resized by taking the nearest pixel; valid
        where it is finite. A cached target is made anew when this or `needs` changes.
        """
        array = rearrange(torch.from_numpy(frame.array(self.kinds[0])), "h w ... -> ... h w")
        values = frame.crop.nearest(array).reshape(*self.map_channels, *frame.crop.target)
        valid = values.isfinite().flatten(0, -3).all(dim=0) if self.map_channels else values.isfinite()
        return Target(values.masked_fill(~valid, 0.0), valid)

    # ------------------------------------------------------------------------------------------ training

    @abstractmethod
    def decode(self, raw: Tensor, statistics: Statistics) -> dict[str, Tensor]:
        """A head's raw output (b, t, channels, h, w) to named predictions; of zeros it makes the first prediction."""

    @abstractmethod
    def losses(
        self, predictions: Predictions, targets: Targets, scales: Mapping[str, float], balanced: bool
    ) -> dict[str, Tensor]:
        """Loss terms (b,) by name, each times its weight; their sum is the quantity's loss and starts near 1.

        Args:
            scales: see `Statistics.scales`.
            balanced: whether moving and static pixels weigh the same, where a quantity tells them apart.
        """

    @abstractmethod
    def measure(self, targets: Targets) -> dict[str, Tensor]:
        """What `statistics` needs of one clip, unbatched, in float32 on the CPU."""

    @abstractmethod
    def statistics(self, clips: Sequence[dict[str, Tensor]]) -> Statistics:
        """Its part of the training set's statistics. Raises ValueError if there is nothing to predict.

        Args:
            clips: of `measure`, at least one.
        """

    def describe(self, numbers: Mapping[str, float]) -> str | None:
        """What is told of the training data before a run, None for nothing."""
        return None

    # ------------------------------------------------------------------------------------------ metrics

    @property
    def scored(self) -> str:
        """The metric that stands for the quantity: in val/score and in the plots of the report."""
        return next(iter(self.headline))

    @abstractmethod
    def sums(self, predictions: Predictions, targets: Targets) -> dict[str, Tensor]:
        """Sums of errors and numbers of pixels per frame, (b, t) float64 each."""

    @abstractmethod
    def baseline_sums(self, targets: Targets, maps: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Baseline -> sums of that trivial prediction, see `sums`; it may have fewer of them.

        Args:
            maps: see `Statistics.maps`, at the targets' size.
        """

    def metrics(self, sums: Mapping[str, float]) -> dict[str, float | None]:
        """Sums over any set of frames to metrics; None where no pixel counts. Only those whose sums are there."""
        return {
            name: float(sums[total] / sums[count]) if sums[count] else None
            for name, (total, count) in self.means.items()
            if total in sums
        }

    # ------------------------------------------------------------------------------------------ pictures and files

    @abstractmethod
    def view(self, predictions: Predictions) -> Target:
        """The predicted map as a target's is, and where the head says that there is one. Any leading axes."""

    @abstractmethod
    def has_value(self, target: Target) -> Tensor:
        """(t, h, w) bool on the CPU: where a map of one clip shows something, within its mask."""

    @abstractmethod
    def scale(self, target: Target) -> Scale:
        """The scale of colours that suits a map of one clip."""

    @abstractmethod
    def error(self, predicted: Tensor, truth: Target, scale: Scale) -> tuple[Tensor, ErrorScale]:
        """How far a map of one clip is from the truth, (t, h, w) on the CPU, and the scale that the error is shown on.

        Args:
            scale: of the truth.
        """

    @abstractmethod
    def arrays(self, predictions: Predictions) -> dict[str, np.ndarray]:
        """What the file <name>.npz holds of one clip's predictions (t, ...)."""
