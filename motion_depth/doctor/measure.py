"""Reads every file of a scene once, in order, and keeps numbers: a few frames at a time are in memory.

Every frame gives a row of a table. Of each of SEGMENTS parts of the scene, the frame in which most moves, and most
changes its motion, is weighed for the motion convention.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from motion_depth.data.findings import Finding
from motion_depth.data.layouts import list_scene
from motion_depth.data.scene import DEPTH, MOTION, RGB, Scene
from motion_depth.doctor.depth import PlaneFit, fit_planes
from motion_depth.doctor.edges import weigh_edges
from motion_depth.doctor.photometry import BASELINES, Evidence, Window, weigh
from motion_depth.doctor.table import SPEED_BINS, Grid, depth_row, left_out_row, motion_row, picture_row

SEGMENTS = 12
THUMBNAIL = 96  # largest side, pixels
SHOWN_FAILURES = 3  # unreadable files of one kind that are named one by one


@dataclass(frozen=True)
class Thumbnail:
    """One frame, made small: rgb (h, w, 3) uint8, motion (h, w, 2) float32 as on disk, depth (h, w) float32."""

    frame: int
    rgb: NDArray
    motion: NDArray
    depth: NDArray


@dataclass
class SceneMeasure:
    """What one scene's files say.

    Attributes:
        scene: folder as `find_scenes` names it, or as asked for.
        findings: what is wrong with files, found on the way.
        paths: by kind and frame number.
        height, width: of the pictures; 0 if none is readable.
        read_bytes: sum of the sizes of the files read.
        frames: numbers of all frames that have a file, ascending.
        table: a column per number, with a value per frame, NaN where a file was not readable; see table.py.
        speeds: vectors per bin of speed, (2, SPEED_BINS): read as pixels, read as shares of the picture's size.
        evidence: for the motion convention.
        edges: for the frame that depth belongs to, see `weigh_edges`.
        planes: of a frame in the middle; None if its depth is not readable.
        digest: equal for scenes with equal pictures; "" if not all are readable.
        thumbnail: None if no frame is readable in all its parts.
    """

    scene: str
    findings: list[Finding] = field(default_factory=list)
    paths: dict[str, dict[int, Path]] = field(default_factory=dict)
    height: int = 0
    width: int = 0
    read_bytes: int = 0
    frames: tuple[int, ...] = ()
    table: dict[str, NDArray] = field(default_factory=dict)
    speeds: NDArray = field(default_factory=lambda: np.zeros((2, SPEED_BINS), np.int64))
    evidence: list[Evidence] = field(default_factory=list)
    edges: list[NDArray] = field(default_factory=list)
    planes: PlaneFit | None = None
    digest: str = ""
    thumbnail: Thumbnail | None = None


@dataclass
class _Frame:
    """A frame's files, None where one is missing or not readable, and what they hold on the grid."""

    number: int
    rgb: NDArray | None
    motion: NDArray | None
    depth: NDArray | None

    @property
    def whole(self) -> bool:
        return self.rgb is not None and self.motion is not None and self.depth is not None


def measure_scene(base_path: str | Path, scene: str) -> SceneMeasure:
    """Read a scene. What is wrong with it becomes findings, never an exception."""
    measure = SceneMeasure(scene)
    opened, measure.findings = list_scene(base_path, scene)
    if opened is None or not opened.files[RGB]:
        return measure
    measure.paths = opened.files
    try:
        measure.height, measure.width = opened.size
    except ValueError as error:
        measure.findings.append(_unreadable(measure, RGB, next(iter(measure.paths[RGB].values())), error))
        return measure
    measure.frames = opened.frame_ids
    _SceneReader(measure, opened).read()
    return measure


class _SceneReader:
    """The pass over one scene's files."""

    def __init__(self, measure: SceneMeasure, scene: Scene):
        self.measure, self.scene, self.sizes = measure, scene, {}
        self.failures: dict[str, list[Finding]] = {RGB: [], MOTION: [], DEPTH: []}
        self.recent: dict[int, _Frame] = {}
        self.rows: list[dict[str, float]] = []
        self.rng = np.random.default_rng(0)
        self.grid = Grid(measure.height, measure.width)
        self.best: tuple[float, Window] | None = None
        self.thumbnail_score = -1.0
        self.digest = hashlib.blake2b(digest_size=16)

    def read(self) -> None:
        measure = self.measure
        segment = 0
        for position, number in enumerate(measure.frames):
            frame = self._read_frame(number)
            self.recent = {n: f for n, f in self.recent.items() if n >= number - 1 - max(BASELINES)} | {number: frame}
            self._forget_motion(number)
            self.rows.append(self._row(frame, self.recent.get(number - 1)))
            self._consider(number - 1)
            if position == len(measure.frames) // 2:
                self._look_at_middle(frame)
            if position * SEGMENTS // len(measure.frames) > segment or position == len(measure.frames) - 1:
                segment = position * SEGMENTS // len(measure.frames)
                self._weigh_best()
        names = dict.fromkeys(name for row in self.rows for name in row)
        measure.table = {name: np.array([row.get(name, np.nan) for row in self.rows]) for name in names}
        measure.findings += [finding for kind in self.failures for finding in self._shorten(self.failures[kind])]
        measure.read_bytes = sum(self.sizes.values())
        if not self.failures[RGB]:
            measure.digest = self.digest.hexdigest()

    def _read_frame(self, number: int) -> _Frame:
        first = number == self.measure.frames[0]
        rgb, depth = self._read_file(RGB, number), self._read_file(DEPTH, number)
        return _Frame(number, rgb, self._read_file(MOTION, number, may_be_anything=first), depth)

    def _read_file(self, kind: str, number: int, may_be_anything: bool = False) -> NDArray | None:
        path = self.measure.paths[kind].get(number)
        if path is None:
            return None
        try:
            array = self.scene.array(kind, number)
            self.sizes[path] = path.stat().st_size
        except (ValueError, OSError) as error:
            if not may_be_anything:  # the first frame has no frame before it
                self.failures[kind].append(_unreadable(self.measure, kind, path, error))
            return None
        return array

    def _shorten(self, failures: list[Finding]) -> list[Finding]:
        """The first few, and how many more there are."""
        if len(failures) <= SHOWN_FAILURES + 1:
            return failures
        more = failures[SHOWN_FAILURES:]
        folder = Path(more[0].path).parent
        message = (
            f"{folder}: {len(more)} more files like these, {Path(more[0].path).name} to {Path(more[-1].path).name}"
        )
        return [*failures[:SHOWN_FAILURES], Finding("error", more[0].code, message, self.measure.scene, str(folder))]

    def _forget_motion(self, number: int) -> None:
        """Only three frames' motion is needed; it is by far the largest part."""
        if old := self.recent.get(number - 3):
            old.motion = None

    # ------------------------------------------------------------------------------------------- the table's rows

    def _row(self, frame: _Frame, before: _Frame | None) -> dict[str, float]:
        row: dict[str, float] = {}
        before = before or _Frame(-1, None, None, None)
        if frame.rgb is not None:
            row |= picture_row(frame.rgb, before.rgb, self.grid.at(frame.number), self.digest)
        if frame.motion is not None and frame.number != self.measure.frames[0]:
            row |= motion_row(frame.motion, before.motion, self.grid.at(frame.number), self.measure.speeds)
        if frame.depth is not None:
            row |= depth_row(frame.depth, before.depth, self.grid.at(frame.number))
        if frame.motion is not None and frame.depth is not None and frame.number != self.measure.frames[0]:
            row |= left_out_row(frame.motion, frame.depth, self.grid.at(frame.number))
        return row

    # ------------------------------------------------------------------------------------- evidence and thumbnail

    def _consider(self, number: int) -> None:
        """Keep the window around a frame if more moves in it than in the others of its segment."""
        around = [self.recent.get(number + k) for k in (-1, 0, 1)]
        # The first frame's motion means nothing.
        if any(frame is None or not frame.whole for frame in around) or number - 1 <= self.measure.frames[0]:
            return
        score = self._motion_score([frame.motion[self.grid.at(number)][::2, ::2] for frame in around])
        if score > 0 and (self.best is None or score > self.best[0]):
            there = {
                number - n: frame for n, frame in self.recent.items() if frame.whole or number - n not in (-1, 0, 1)
            }
            self.best = (
                score,
                Window(
                    rgb={k: f.rgb for k, f in there.items() if k in (-1, 0, *BASELINES) and f.rgb is not None},
                    motion={k: there[k].motion for k in (-1, 0, 1)},
                    depth={k: f.depth for k, f in there.items() if f.depth is not None},
                ),
            )
            if score > self.thumbnail_score:
                self.thumbnail_score = score
                self.measure.thumbnail = self._thumbnail(self.recent[number])

    @staticmethod
    def _motion_score(grids: list[NDArray]) -> float:
        earlier, now, later = (np.where(np.isfinite(grid), grid, np.float32(0)) for grid in grids)
        parts = (now, now - earlier, later - now)
        return float(sum(np.abs(part).sum(dtype=np.float64) for part in parts))

    def _weigh_best(self) -> None:
        if self.best is not None and (evidence := weigh(self.best[1], self.rng)):
            self.measure.evidence.append(evidence)
            self.measure.edges.append(weigh_edges(self.best[1].motion, self.best[1].depth, self.rng))
        self.best = None

    def _look_at_middle(self, frame: _Frame) -> None:
        if frame.depth is not None:
            self.measure.planes = fit_planes(frame.depth)
        if frame.whole and self.measure.thumbnail is None:
            self.measure.thumbnail = self._thumbnail(frame)

    def _thumbnail(self, frame: _Frame) -> Thumbnail:
        step = -(-max(self.measure.height, self.measure.width) // THUMBNAIL)
        small = (array[step // 2 :: step, step // 2 :: step].copy() for array in (frame.rgb, frame.motion, frame.depth))
        return Thumbnail(frame.number, *small)


def _unreadable(measure: SceneMeasure, kind: str, path: Path, error: Exception) -> Finding:
    message = str(error) if isinstance(error, ValueError) else f"{path}: not readable ({error})"
    return Finding("error", f"{kind}_file", message, measure.scene, str(path))
