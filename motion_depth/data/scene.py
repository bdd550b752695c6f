"""What a scene is, however it is laid out on disk: its frames, and what each of them holds.

A layout (layouts/) lists a scene's files and reads them; what is read is checked here, for all layouts alike. Whatever
is wrong is a ValueError that names the file, what it holds and what was expected.

Axes: H height, W width, C channel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

# Kinds of data that every scene has, by the names that Replicator gives them. A layout may know further ones.
RGB, MOTION, DEPTH = "rgb", "motion_vectors", "distance_to_camera"
KINDS = (RGB, MOTION, DEPTH)
# Metres between which a distance is that of something. Renderers write 1e10 and the like for the sky. Nearer than
# float16's smallest normal number (0.06 mm) a distance would lose its digits, and below half of 6e-8 become 0, where
# targets travel in float16.
NEAR_DEPTH, FAR_DEPTH = 2.0**-14, 60_000.0


@dataclass(eq=False)
class Scene(ABC):
    """One scene. A layout's subclass says how an array and its header are read.

    Attributes:
        name: place relative to the base path, as asked for.
        files: by kind, each frame number's file, ascending; frames and kinds may share a file. Those of a scene from
            `open_scene` have the same frames without a gap; one that was only listed may have holes.
    """

    name: str
    files: Mapping[str, Mapping[int, Path]]

    @abstractmethod
    def read(self, kind: str, frame: int) -> np.ndarray:
        """What a frame's file holds, as it is: uint8 (H, W, 3) of RGB, floating (H, W) or (H, W, C) of other kinds."""

    @abstractmethod
    def header(self, kind: str, frame: int) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and type of what `read` gives, without reading it."""

    @cached_property
    def frame_ids(self) -> tuple[int, ...]:
        """Numbers of all frames, ascending."""
        return tuple(sorted(set().union(*self.files.values())))

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the first picture, in pixels, which are those of everything."""
        shape, _ = self.header(RGB, next(iter(self.files[RGB])))
        return shape[0], shape[1]

    @property
    def paths(self) -> list[Path]:
        """All files, each once."""
        return list(dict.fromkeys(path for its in self.files.values() for path in its.values()))

    @property
    def height(self) -> int:
        return self.size[0]

    @property
    def width(self) -> int:
        return self.size[1]

    def rgb(self, frame: int) -> np.ndarray:
        """A picture, uint8 (H, W, 3); it may be read-only."""
        return self.array(RGB, frame)

    def motion(self, frame: int) -> np.ndarray:
        """Motion vectors, float32 (H, W, 2), as they are on disk: x and y, of any convention.

        Replicator writes float32 (H, W, 4); two channels or more and other floating types do as well.
        """
        return self.array(MOTION, frame)

    def depth(self, frame: int) -> np.ndarray:
        """Distances, float32 (H, W), metres along the ray; 0 where nothing is there (`is_there`)."""
        depth = self.array(DEPTH, frame)
        there = is_there(depth)
        return depth if there.all() else np.where(there, depth, np.float32(0))

    def array(self, kind: str, frame: int) -> np.ndarray:
        """What is there of a kind, float32 but of RGB; of MOTION x and y, of DEPTH (H, W) as on disk."""
        array = self.read(kind, frame)
        self._expect(kind, frame, array.shape, array.dtype)
        if kind == RGB:
            return array
        if kind == MOTION:
            array = array[..., :2]
        elif kind == DEPTH:
            array = array.reshape(self.size)
        with np.errstate(over="ignore"):  # float64 beyond float32's range becomes inf, which is invalid like any inf
            return array.astype(np.float32, copy=False)

    def check(self, kind: str, frame: int) -> None:
        """Raises the ValueError that reading would, as far as a file's header tells."""
        self._expect(kind, frame, *self.header(kind, frame))

    def _expect(self, kind: str, frame: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        path, (height, width) = self.files[kind][frame], self.size
        if kind != RGB and not np.issubdtype(dtype, np.floating):
            raise ValueError(f"{path}: found type {dtype}, expected float32")
        fits, expected = {
            RGB: (len(shape) == 3 and shape[2] == 3, f"({height}, {width}, 3)"),
            MOTION: (len(shape) == 3 and shape[2] >= 2, f"({height}, {width}, 4)"),
            DEPTH: (len(shape) == 2 or (len(shape) == 3 and shape[2] == 1), f"({height}, {width})"),
        }.get(kind, (len(shape) in (2, 3), f"({height}, {width}) or ({height}, {width}, channels)"))
        if not fits:
            raise ValueError(f"{path}: found an array of shape {shape}, expected {expected}")
        if tuple(shape[:2]) != (height, width):
            raise ValueError(
                f"{path}: found {shape[0]} x {shape[1]} (height x width), expected {height} x {width} as the scene's "
                "first picture"
            )


def is_there(depth: np.ndarray) -> np.ndarray:
    """Whether distances (...) as on disk are those of something: from NEAR_DEPTH on and below FAR_DEPTH; (...) bool.

    inf, NaN, 0, negative values and what lies beyond these two mean that nothing is there.
    """
    return (depth >= NEAR_DEPTH) & (depth < FAR_DEPTH)
