"""The training data: a CSV's scenes, and the dataset that walks over their clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import NamedTuple

import numpy as np
from diffsynth.core.data.unified_dataset import UnifiedDataset

from motion_depth.clips.clip import (
    LoadImageSequenceWithMotionWrapper,
    MotionDepthClip,
    create_motion_data_operator,
)
from motion_depth.data.layouts import find_scenes, open_scene
from motion_depth.data.scene import Scene
from motion_depth.files.tables import read_metadata
from motion_depth.latents import is_integer

__all__ = [
    "ClipId",
    "LoadError",
    "LoadImageSequenceWithMotionWrapper",
    "MotionDepthClip",
    "MotionDepthDataset",
    "Scene",
    "create_motion_data_operator",
    "find_scenes",
    "open_scene",
    "raise_load_errors",
]


class ClipId(NamedTuple):
    """A clip's place in the data: the CSV row (from 0), its scene, and the window of that scene (from 0)."""

    row: int
    scene: str
    window: int


@dataclass(frozen=True)
class LoadError:
    """What a loader's worker hands over instead of a clip that it cannot load."""

    message: str


class MotionDepthDataset(UnifiedDataset):
    """Clips in training order, for positions 0, 1, 2, ... without an end; `len` is one epoch.

    Every pass over the CSV takes each row once, in an order of its own; `repeat` passes are an epoch. A row's visits
    walk its scene's windows, each once, then again in another order. All of it follows from the seed alone, whatever
    the number of workers and wherever a run begins.

    Args:
        base_path: the folder of the scenes, the operator's.
        metadata_path: CSV, see `read_metadata`.
        operator: from `create_motion_data_operator`.
        repeat: visits of each row in an epoch, at least 1.
        seed: of the order, at least 0.
        reduce: applied to each item where it is loaded, in the worker.

    Raises:
        ValueError: on construction, for the CSV, and for scenes that are missing, inconsistent or too short.
    """

    def __init__(
        self,
        base_path: str | Path,
        metadata_path: str | Path,
        operator: LoadImageSequenceWithMotionWrapper,
        repeat: int = 1,
        seed: int = 0,
        reduce: Callable[[dict[str, object]], object] | None = None,
    ):
        if not is_integer(repeat) or repeat < 1:
            raise ValueError(f"--dataset_repeat: found {repeat!r}, expected a whole number from 1 on")
        if not is_integer(seed) or seed < 0:
            raise ValueError(f"--seed: found {seed!r}, expected a whole number from 0 on")
        if Path(base_path).resolve() != operator.base_path.resolve():
            raise ValueError(f"base_path: found {base_path}, expected the operator's {operator.base_path}")
        super().__init__(base_path, metadata_path, repeat, ("video",), operator)
        self.operator, self.seed, self.reduce = operator, seed, reduce
        self.windows = [self._count_windows(number, row["video"]) for number, row in enumerate(self.data, start=1)]

    def load_metadata(self, metadata_path: str | Path) -> None:
        """Called by the base class's constructor, in the place of its own reader, which takes any columns."""
        self.data = read_metadata(metadata_path)
        if taken := {"position", "window"} & self.data[0].keys():
            raise ValueError(f"{metadata_path}: found the column {taken.pop()}, which items have of their own")

    def clip_at(self, position: int) -> ClipId:
        """Which clip stands at a position: a pure function of the seed, the CSV and the scenes' lengths."""
        visit, place = divmod(_position(position), len(self.data))
        row = int(_permutation(len(self.data), self.seed, 0, visit)[place])
        lap, step = divmod(visit, self.windows[row])
        window = int(_permutation(self.windows[row], self.seed, 1, row, lap)[step])
        return ClipId(row, self.data[row]["video"], window)

    def describe(self, position: int) -> str:
        """The clip at a position, for messages."""
        _, scene, window = self.clip_at(position)
        return f"clip {position} (scene {scene}, window {window})"

    def __getitem__(self, position: int) -> object:
        """The item at a position, which may lie in any epoch.

        Returns:
            The CSV row with `video` replaced by the MotionDepthClip, and `position` and `window` (int) added; with
            `reduce`, what it makes of this. If there is a ValueError on the way, a LoadError.
        """
        row, scene, window = self.clip_at(position)
        try:
            clip = self.operator((scene, window))
            item = self.data[row] | {"video": clip, "position": _position(position), "window": window}
            return item if self.reduce is None else self.reduce(item)
        except ValueError as error:
            return LoadError(f"{self.describe(position)}: {error}")

    def _count_windows(self, number: int, scene: str) -> int:
        try:
            return self.operator.num_windows(scene)
        except ValueError as error:
            raise ValueError(f"{self.metadata_path} row {number}: {error}") from None


def raise_load_errors(batch: object) -> object:
    """Return a loader's batch, or raise the first LoadError in it: call this in the main process.

    The exception then begins there. Raised in a worker, it would reach the user inside two tracebacks.

    Args:
        batch: an item, or a list or tuple of items (`collate_fn=list`).
    """
    for item in batch if isinstance(batch, list | tuple) else [batch]:
        if isinstance(item, LoadError):
            raise ValueError(item.message)
    return batch


def _permutation(length: int, *seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(length)


def _position(position: int) -> int:
    """A position as an int. Raises IndexError for a negative one: positions have a begin and no end."""
    if position < 0:
        raise IndexError(f"position {position}: expected 0 or more")
    return index(position)
