"""One frame of a clip, as a target is made of it: which files of the scene lie behind it, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from motion_depth.data.convention import MotionConvention
from motion_depth.data.resizing import CoverCrop
from motion_depth.data.scene import DEPTH, MOTION, Scene


@dataclass(frozen=True)
class ClipFrame:
    """A frame of a clip; what has been read of it is kept until all targets are made.

    Attributes:
        scene: that it is of.
        number: of the frame in the scene.
        steps: numbers of the scene's frames since the clip's frame before, newest first; none in a clip's first frame.
        crop: from the scene's size to the clip's.
        convention: of the motion files.
    """

    scene: Scene
    number: int
    steps: range
    crop: CoverCrop
    convention: MotionConvention
    _read: dict[tuple[str, int], np.ndarray] = field(default_factory=dict, repr=False)

    def array(self, kind: str, number: int | None = None) -> np.ndarray:
        """`Scene.array` of this frame or another one; of DEPTH with 0 where nothing is there. Not to be changed."""
        key = kind, self.number if number is None else number
        if key not in self._read:
            self._read[key] = self.scene.depth(key[1]) if kind == DEPTH else self.scene.array(*key)
        return self._read[key]

    def vectors(self, number: int) -> np.ndarray:
        """The motion file about a frame, float32 (H, W, 2), of the convention."""
        return self.array(MOTION, self.motion_file(number))

    def motion_file(self, number: int) -> int:
        """The number of the motion file about a frame."""
        return number + self.convention.frame_offset
