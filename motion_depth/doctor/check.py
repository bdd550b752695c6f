"""The whole check: every file of every scene, read once by several processes, and what follows from it."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path, PurePosixPath

from motion_depth.data.findings import Finding, by_severity, some
from motion_depth.data.layouts import find_scenes, incomplete_scenes, what_scenes_are
from motion_depth.data.motion import MotionConvention
from motion_depth.data.windows import Stride
from motion_depth.doctor.convention import Verdict, judge
from motion_depth.doctor.dataset_rules import convention_rules, depth_rules, likeness_rules
from motion_depth.doctor.measure import SceneMeasure, measure_scene
from motion_depth.doctor.quick import short_rules
from motion_depth.doctor.rows import check_rows
from motion_depth.progress import ProgressBar


@dataclass(frozen=True)
class Settings:
    """How training will read the dataset, see `create_motion_data_operator`."""

    num_frames: int = 49
    frame_stride: Stride = "auto"
    convention: MotionConvention = field(default_factory=MotionConvention)


@dataclass(frozen=True)
class DatasetCheck:
    """The result.

    Attributes:
        base_path: the folder of the scenes. metadata_path: the CSV, None if there is none yet.
        settings: what it was checked for.
        measures: of the scenes, sorted by name. verdict: on the motion convention of all of them together.
        findings: errors first.
        prompts: by scene, the first of several.
        seconds: how long reading took. workers: processes that read.
    """

    base_path: Path
    metadata_path: Path | None
    settings: Settings
    measures: list[SceneMeasure]
    verdict: Verdict
    findings: list[Finding]
    prompts: dict[str, str]
    seconds: float
    workers: int

    def count(self, severity: str) -> int:
        return sum(finding.severity == severity for finding in self.findings)


def check_dataset(
    base_path: str | Path,
    metadata_path: str | Path | None,
    settings: Settings | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> DatasetCheck:
    """Check the scenes that a CSV lists, or all under the base path if there is no CSV.

    Args:
        base_path, metadata_path: as for training.
        settings: how training will read it.
        workers: processes; default: one for each core that this process may use.
        progress: show a bar on stderr.

    Raises:
        ValueError: there is no such folder or CSV, or there is no scene. Everything else becomes a finding.
    """
    base, settings = Path(base_path), settings or Settings()
    path = None if metadata_path is None else Path(metadata_path)
    listed, findings, prompts = find_scenes(base), [], {}
    if path is not None:
        rows, findings = check_rows(path)
        prompts = {str(PurePosixPath(row["video"])): row["prompt"] for row in reversed(rows) if row["video"]}
        if missing := sorted(set(listed) - prompts.keys()):
            message = f"{len(missing)} scenes are not in the CSV and were not checked: {some(missing)}"
            findings.append(Finding("note", "scene_unlisted", message))
        listed = sorted(prompts)
    findings += incomplete_scenes(base, listed)
    if not listed and not findings:
        raise ValueError(f"--dataset_base_path {base}: no scene found; a scene is {what_scenes_are()}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = max(1, min(workers or cores, len(listed)))
    begin = time.perf_counter()
    measures = _measure_all(base, listed, workers, progress)
    seconds = time.perf_counter() - begin
    verdict = judge([measure.evidence for measure in measures])
    findings += [finding for measure in measures for finding in measure.findings]
    frames = {measure.scene: len(measure.frames) for measure in measures if measure.frames}
    findings += short_rules(frames, settings.num_frames, settings.frame_stride, settings.convention.frame_offset)
    findings += convention_rules(verdict, measures, settings.convention)
    findings += depth_rules(verdict, measures)
    findings += likeness_rules(measures)
    findings = by_severity(findings)
    return DatasetCheck(base, path, settings, measures, verdict, findings, prompts, seconds, workers)


def _measure_all(base: Path, scenes: Sequence[str], workers: int, progress: bool) -> list[SceneMeasure]:
    with ProgressBar(total=len(scenes), unit="scene", desc="reading", disable=not progress) as bar:

        def shown(measures: Iterable[SceneMeasure]) -> list[SceneMeasure]:
            return [bar.update() or measure for measure in measures]

        if workers == 1:
            return shown(map(measure_scene, repeat(base), scenes))
        # A forked worker starts at once; a fresh one would import torch first, for longer than many a check takes.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        try:
            with ProcessPoolExecutor(workers, context) as pool:
                return shown(pool.map(measure_scene, repeat(base), scenes))
        except BrokenProcessPool:
            raise ValueError("a process that read scenes was killed, perhaps for want of memory; use fewer") from None
