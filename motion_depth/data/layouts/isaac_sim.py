"""Isaac Sim's scenes: a folder with rgb/ (png or jpg), motion_vectors/ and distance_to_camera/ (npy), a file a frame.

A file belongs to the frame whose number ends its stem, whatever stands before it; the folder says what it holds. A
further kind is one more folder of npy files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from motion_depth.data.arrays import npy_header, picture_header, read_npy, read_picture
from motion_depth.data.findings import Finding
from motion_depth.data.numbered_files import compare_frames, numbered_files, without_strays
from motion_depth.data.scene import KINDS, RGB, Scene

SCENE = "a folder that holds rgb/, motion_vectors/ and distance_to_camera/"
PICTURES, ARRAYS = (".png", ".jpg", ".jpeg"), (".npy",)


class IsaacSimScene(Scene):
    """See the head of this file."""

    def read(self, kind: str, frame: int) -> np.ndarray:
        return (read_picture if kind == RGB else read_npy)(self.files[kind][frame])

    def header(self, kind: str, frame: int) -> tuple[tuple[int, ...], np.dtype]:
        return (picture_header if kind == RGB else npy_header)(self.files[kind][frame])


def is_scene(path: Path) -> bool:
    return all(os.path.isdir(os.path.join(path, kind)) for kind in KINDS)


def lacks(path: Path) -> str | None:
    there = [kind for kind in KINDS if (path / kind).is_dir()]
    return _lacking(KINDS, there) if there and len(there) < len(KINDS) else None


def list_scene(path: Path, name: str, kinds: Sequence[str]) -> tuple[Scene, list[Finding]]:
    wanted = (*KINDS, *kinds)
    there = [kind for kind in wanted if (path / kind).is_dir()]
    if len(there) < len(wanted):
        raise ValueError(f"{path}: {_lacking(wanted, there)}")
    findings: list[Finding] = []
    files = {kind: numbered_files(path / kind, PICTURES if kind == RGB else ARRAYS, name, findings) for kind in wanted}
    if all(files.values()):
        files = without_strays(files, name, findings)
        compare_frames(path, files, name, findings)
    return IsaacSimScene(name, files), findings


def _lacking(wanted: Sequence[str], there: Sequence[str]) -> str:
    missing = ", ".join(kind for kind in wanted if kind not in there)
    return f"holds {', '.join(there)} but not {missing}; a scene is {SCENE}"
