"""Reads every file of a scene once, in order, and keeps numbers: a few frames at a time are in memory.

Every frame gives a row of a table. Of each of SEGMENTS parts of the scene, the frame in which most moves, and most
changes its motion, is weighed for the motion convention.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from motion_depth.data.findings import Finding
from motion_depth.data.layouts import list_scene
from motion_depth.data.scene import DEPTH, KINDS, MOTION, RGB, Scene
from motion_depth.doctor.convention import Verdict, judge
from motion_depth.doctor.depth import depth_kind, weigh_edges
from motion_depth.doctor.photometry import BASELINES, Evidence, Window, weigh
from motion_depth.doctor.scene_rules import scene_rules
from motion_depth.doctor.table import SPEEDS, depth_row, grid, left_out_row, make_table, motion_row, picture_row
from motion_depth.files.atomic import file_size
from motion_depth.files.digests import sample_digest, sampled

SEGMENTS = 12
THUMBNAIL = 96  # largest side, pixels
SHOWN_FAILURES = 3  # unreadable files of one kind that are named one by one

Frame = dict[str, NDArray | None]  # what a frame's files hold, by kind: (H, W, ...) as on disk; None: not readable


@dataclass
class SceneMeasure:
    """What one scene's files say.

    Attributes:
        scene: its name as `find_scenes` gives it, or as asked for.
        findings: what is wrong with it, whatever its motion convention is.
        fingerprint: of its motion files before they were read, see `fingerprint`.
        height, width: of the pictures; 0 if none is readable.
        read_bytes: sum of the sizes of the files read.
        frames: numbers of all frames that have a file, ascending.
        table: a row per frame, see table.py.
        speeds: vectors at each of SPEEDS, (2, S): read as pixels, read as shares of the picture's size.
        evidence: for the motion convention.
        edges: for the frame that depth belongs to, see `weigh_edges`.
        depth_kind, field_of_view: of a frame in the middle, see `depth.depth_kind`; "" and NaN if it is not readable.
        digest: equal for scenes with equal pictures; "" if not all are readable.
        thumbnail: one frame, made small; None if no frame is readable in all its parts.
    """

    scene: str
    findings: list[Finding] = field(default_factory=list)
    fingerprint: str = ""
    height: int = 0
    width: int = 0
    read_bytes: int = 0
    frames: tuple[int, ...] = ()
    table: pd.DataFrame = field(default_factory=lambda: make_table((), []))
    speeds: NDArray = field(default_factory=lambda: np.zeros((2, len(SPEEDS)), np.int64))
    evidence: list[Evidence] = field(default_factory=list)
    edges: list[NDArray] = field(default_factory=list)
    depth_kind: str = ""
    field_of_view: float = np.nan
    digest: str = ""
    thumbnail: Frame | None = None

    @cached_property
    def verdict(self) -> Verdict:
        """On the motion convention, from this scene alone."""
        return judge([self.evidence])


def measure_scene(base_path: str | Path, name: str) -> SceneMeasure:
    """Read a scene. What is wrong with it becomes findings, never an exception."""
    scene, findings = list_scene(base_path, name)
    measure = SceneMeasure(name, findings, fingerprint(scene))
    if scene is None or not scene.files[RGB]:
        return measure
    first = next(iter(scene.files[RGB]))
    try:
        measure.height, measure.width = scene.size
    except ValueError as error:
        measure.findings.append(unreadable(scene, RGB, first, error))
        return measure
    measure.frames = scene.frame_ids
    _SceneReader(scene, measure).read()
    measure.findings += scene_rules(scene, measure.table)
    return measure


def fingerprint(scene: Scene | None) -> str:
    """Of a scene's motion files (names, sizes, the content of three), the same of a copy; "" if it cannot be told."""
    paths = sorted(set(scene.files[MOTION].values())) if scene else []
    with contextlib.suppress(OSError, ValueError):
        return sample_digest(paths, sampled(paths)) if paths else ""
    return ""


def unreadable(scene: Scene, kind: str, frame: int, error: Exception, note: str = "") -> Finding:
    """The finding of a file that cannot be read, or holds something else."""
    path = scene.files[kind][frame]
    message = str(error) if isinstance(error, ValueError) else f"{path}: not readable ({error})"
    return Finding("error", f"{kind}_file", message + note, scene.name, str(path))


class _SceneReader:
    """The pass over one scene's files."""

    def __init__(self, scene: Scene, measure: SceneMeasure):
        self.scene, self.measure = scene, measure
        self.failures: dict[str, list[Finding]] = {kind: [] for kind in KINDS}
        self.recent: dict[int, Frame] = {}
        self.read_paths: set[Path] = set()
        self.rng = np.random.default_rng(0)
        self.best: tuple[float, Window | None] = (0.0, None)  # of this segment
        self.thumbnail_score = 0.0
        self.digest = hashlib.blake2b(digest_size=16)

    def read(self) -> None:
        measure, frames, rows, segment = self.measure, self.measure.frames, [], 0
        for position, number in enumerate(frames):
            frame = {kind: self._read_file(kind, number) for kind in KINDS}
            self.recent = {n: f for n, f in self.recent.items() if n >= number - 1 - max(BASELINES)} | {number: frame}
            if old := self.recent.get(number - 3):  # motion is by far the largest part, and only three are needed
                old[MOTION] = None
            rows.append(self._row(number, frame, self.recent.get(number - 1, dict.fromkeys(KINDS))))
            self._consider(number - 1)
            if position == len(frames) // 2:
                if frame[DEPTH] is not None:
                    measure.depth_kind, measure.field_of_view = depth_kind(frame[DEPTH])
                if measure.thumbnail is None and _whole(frame):
                    measure.thumbnail = self._thumbnail(frame)
            if position * SEGMENTS // len(frames) > segment or position == len(frames) - 1:
                segment = position * SEGMENTS // len(frames)
                self._weigh_best()
        measure.table = make_table(frames, rows)
        measure.read_bytes = sum(map(file_size, self.read_paths))
        measure.findings += [finding for kind in KINDS for finding in self._shorten(self.failures[kind])]
        measure.digest = "" if self.failures[RGB] else self.digest.hexdigest()

    def _read_file(self, kind: str, number: int) -> NDArray | None:
        if number not in self.scene.files[kind]:
            return None
        try:
            array = self.scene.array(kind, number)
        except (ValueError, OSError) as error:
            if kind != MOTION or number != self.measure.frames[0]:  # which has no frame before it
                self.failures[kind].append(unreadable(self.scene, kind, number, error))
            return None
        self.read_paths.add(self.scene.files[kind][number])
        return array

    def _shorten(self, failures: list[Finding]) -> list[Finding]:
        """The first few, and how many more there are."""
        if len(failures) <= SHOWN_FAILURES + 1:
            return failures
        more = failures[SHOWN_FAILURES:]
        first, last = Path(more[0].path), Path(more[-1].path)
        message = f"{first.parent}: {len(more)} more files like these, {first.name} to {last.name}"
        rest = Finding("error", more[0].code, message, self.scene.name, str(first.parent))
        return [*failures[:SHOWN_FAILURES], rest]

    def _row(self, number: int, frame: Frame, before: Frame) -> dict[str, float]:
        at, row = grid(number, self.measure.height, self.measure.width), {}
        # The first frame's motion means nothing.
        motion = frame[MOTION] if number != self.measure.frames[0] else None
        if frame[RGB] is not None:
            self.digest.update(np.ascontiguousarray(frame[RGB][at]))
            row |= picture_row(frame[RGB], before[RGB], at)
        if motion is not None:
            row |= motion_row(motion, before[MOTION], at, self.measure.speeds)
        if frame[DEPTH] is not None:
            row |= depth_row(frame[DEPTH], before[DEPTH], at)
            row |= {} if motion is None else left_out_row(motion, frame[DEPTH], at)
        return row

    def _consider(self, number: int) -> None:
        """Keep the window around a frame if more moves in it than in the others of its segment."""
        around = [self.recent.get(number + k) for k in (-1, 0, 1)]
        if not all(frame and _whole(frame) for frame in around) or number - 1 <= self.measure.frames[0]:
            return
        at = grid(number, self.measure.height, self.measure.width)
        score = _motion_score([frame[MOTION][at][::2, ::2] for frame in around])
        if score <= self.best[0]:
            return
        known = {number - n: frame for n, frame in self.recent.items()}
        rgb = {k: known[k][RGB] for k in (-1, 0, *BASELINES) if k in known and known[k][RGB] is not None}
        motion = {k: known[k][MOTION] for k in (-1, 0, 1)}
        self.best = score, Window(rgb, motion, {k: f[DEPTH] for k, f in known.items() if f[DEPTH] is not None})
        if score > self.thumbnail_score:
            self.thumbnail_score, self.measure.thumbnail = score, self._thumbnail(self.recent[number])

    def _weigh_best(self) -> None:
        window = self.best[1]
        if window is not None and (evidence := weigh(window, self.rng)):
            self.measure.evidence.append(evidence)
            self.measure.edges.append(weigh_edges(window.motion, window.depth, self.rng))
        self.best = 0.0, None

    def _thumbnail(self, frame: Frame) -> Frame:
        step = -(-max(self.measure.height, self.measure.width) // THUMBNAIL)
        return {kind: array[step // 2 :: step, step // 2 :: step].copy() for kind, array in frame.items()}


def _whole(frame: Frame) -> bool:
    return all(array is not None for array in frame.values())


def _motion_score(motion: list[NDArray]) -> float:
    """How much moves, and changes its motion, in the middle one of three successive arrays (H, W, 2)."""
    earlier, now, later = (np.where(np.isfinite(each), each, np.float32(0)) for each in motion)
    return float(sum(np.abs(part).sum(dtype=np.float64) for part in (now, now - earlier, later - now)))
