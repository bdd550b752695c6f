"""A check as lines for the terminal, and the words and numbers that the report shares with it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from motion_depth.data.findings import SEVERITIES
from motion_depth.doctor.check import DatasetCheck
from motion_depth.doctor.summary import SceneSummary, convention_sentence, summarise_scenes, summarise_strides


def text_lines(check: DatasetCheck) -> Iterator[str]:
    """What is printed: a line per scene, the convention, motion per stride, and every finding."""
    scenes, many = summarise_scenes(check), len(check.measures)
    space = max((len(each.scene) for each in scenes), default=0)
    yield from (_scene_line(each, space) for each in scenes)
    yield ""
    yield convention_sentence(check.verdict)
    for each in summarise_strides(check):
        rest = "" if each.scenes == many else f" (in {each.scenes} of {many} scenes; others are too short, or still)"
        yield (
            f"stride {each.stride}: {each.moving:.1%} of the pixels move, half of them by more than {each.median:.1f} "
            f"pixels, 5 % by more than {each.percentile_95:.1f}{rest}"
        )
    yield ""
    for finding in check.findings:
        yield f"{finding.severity}: {relative(check, str(finding))}"
    yield headline(check)
    rate = check.read_bytes / 1e6 / max(check.seconds, 1e-9)
    yield f"{check.read_bytes / 1e9:.2f} GB in {check.seconds:.1f} s, {rate:.0f} MB/s, {check.workers} processes"


def _scene_line(each: SceneSummary, space: int) -> str:
    state = "ERROR" if each.errors or not each.windows else "warn " if each.warnings else "ok   "
    without = f", without motion {each.left_out:.0%}" if each.left_out > 0 else ""
    clips = f"{each.windows:4d} clip{'s' if each.windows != 1 else ' '}"
    depth = "no depth" if math.isnan(each.nearest) else f"depth {metres(each.nearest)} to {metres(each.farthest)} m"
    return (
        f"{state} {each.scene:<{space}} {each.frames:5d} frames {each.width:4d}x{each.height:<4d} {clips}  "
        f"moving {each.moving:6.1%}  {depth}  "
        f"nothing {sum(each.nothing.values()):4.0%}{without}"
    )


def headline(check: DatasetCheck) -> str:
    counts = {name: check.count(name) for name in SEVERITIES}
    if not counts["error"] and not counts["warning"]:
        return f"Nothing is wrong with these {len(check.measures)} scenes."
    parts = [f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items() if count and name != "note"]
    return f"{' and '.join(parts)} in {len(check.measures)} scenes."


def relative(check: DatasetCheck, message: str) -> str:
    """A message with the dataset's own folder left out of its paths."""
    for base in (check.base_path.resolve(), check.base_path):
        message = message.replace(f"{base}{os.sep}", "")
    return message


def percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1%}" if value < 0.1 else f"{value:.0%}"


def metres(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}"


def number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"
