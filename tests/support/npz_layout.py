"""A second layout: a scene is one .npz file with the arrays rgb, motion and depth, (T, H, W, ...), frames from 0 on."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from motion_depth.data.findings import Finding
from motion_depth.data.scene import DEPTH, KINDS, MOTION, Scene

SCENE = "an .npz file with the arrays rgb, motion and depth"
NAMES = {MOTION: "motion", DEPTH: "depth"}  # of other kinds the array is named as the kind


class NpzScene(Scene):
    """See the head of this file."""

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.paths[0]) as arrays:
            return dict(arrays)

    def read(self, kind: str, frame: int) -> np.ndarray:
        return self.arrays[NAMES.get(kind, kind)][frame]

    def header(self, kind: str, frame: int) -> tuple[tuple[int, ...], np.dtype]:
        array = self.arrays[NAMES.get(kind, kind)]
        return array.shape[1:], array.dtype


def is_scene(path: Path) -> bool:
    return path.suffix == ".npz"


def lacks(path: Path) -> str | None:
    return None


def list_scene(path: Path, name: str, kinds: Sequence[str]) -> tuple[Scene, list[Finding]]:
    try:
        with np.load(path) as arrays:
            lengths = {kind: len(arrays[NAMES.get(kind, kind)]) for kind in (*KINDS, *kinds)}
    except Exception as error:  # a broken archive can raise anything
        raise ValueError(f"{path}: not readable, expected {SCENE} ({error})") from None
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path}: found arrays of different lengths, {lengths}; expected a place for every frame")
    return NpzScene(name, {kind: dict.fromkeys(range(length), path) for kind, length in lengths.items()}), []
