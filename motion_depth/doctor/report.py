"""A check as lines for the terminal, as report.html, one page that needs nothing else, and as report.json."""

from __future__ import annotations

import base64
import io
import math
import os
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import numpy as np
import torch
from PIL import Image

from motion_depth.data.convention import camera_rests
from motion_depth.data.motion import MotionConvention, decode_motion
from motion_depth.data.scene import DEPTH, MOTION, RGB, is_there
from motion_depth.doctor.check import DatasetCheck
from motion_depth.doctor.measure import SceneMeasure
from motion_depth.doctor.summary import assumed_convention, convention_sentence, headline, summarise
from motion_depth.files.atomic import write_json, write_whole
from motion_depth.readouts import READOUTS
from motion_depth.readouts.motion import MotionScale
from motion_depth.readouts.targets import Target

SHOWN_TOGETHER = 5  # findings of one kind beyond this many are folded away in the page
GAP, GAP_GREY = 2, 209  # pixels between the parts of a thumbnail; what rests is white there


def write_report(check: DatasetCheck, folder: Path) -> Path:
    """Write report.html and report.json. Returns the page's path."""
    write_json(folder / "report.json", summarise(check) | {"checked": _now()})
    write_whole(folder / "report.html", html(check))
    return folder / "report.html"


def text(check: DatasetCheck) -> str:
    """What is printed: a line per scene, the convention, motion per stride, and every finding."""
    return _render(check, "report.txt")


def html(check: DatasetCheck) -> str:
    """The page. All text is escaped; pictures stand in it; it asks for nothing else."""
    return _render(check, "report.html")


def _render(check: DatasetCheck, template: str) -> str:
    groups = defaultdict(list)
    for finding in check.findings:
        groups[finding.severity, finding.code].append(finding)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = {"percent": percent, "metres": "{:.3g}".format, "number": "{:.1f}".format}
    environment.filters |= {name: _or_dash(how) for name, how in formats.items()}
    environment.filters["relative"] = lambda message: _relative(check, message)
    return environment.get_template(template).render(
        summarise(check),
        check=check,
        checked=_now(),
        headline=headline(check),
        state=next((name for name in ("error", "warning") if check.count(name)), "ok"),
        sentence=convention_sentence(check.verdict),
        groups=groups,
        shown_together=SHOWN_TOGETHER,
        thumbnail=lambda measure: thumbnail(measure, assumed_convention(check)),
    )


def percent(value: float) -> str:
    return f"{value:.1%}" if value < 0.1 else f"{value:.0%}"


def _or_dash(how: Callable[[float], str]) -> Callable[[float], str]:
    return lambda value: "–" if math.isnan(value) else how(value)


def _relative(check: DatasetCheck, message: str) -> str:
    """A message with the dataset's own folder left out of its paths."""
    for base in (check.base_path.resolve(), check.base_path):
        message = message.replace(f"{base}{os.sep}", "")
    return message


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def thumbnail(measure: SceneMeasure, convention: MotionConvention) -> str:
    """Picture, motion and depth of one frame side by side, as a data URI; "" if there is no such frame."""
    if measure.thumbnail is None:
        return ""
    rgb, motion, depth = (measure.thumbnail[kind] for kind in (RGB, MOTION, DEPTH))
    there = is_there(depth)
    flow, valid = decode_motion(motion, convention)
    if not camera_rests(motion, there, convention.scale(measure.height, measure.width)):
        valid &= torch.from_numpy(there)
    if convention.units != "pixels":  # the vectors are shares of the whole picture's size, not of the thumbnail's
        flow *= torch.tensor([measure.width / flow.shape[2], measure.height / flow.shape[1]])[:, None, None]
    flow, valid, depth, there = (torch.as_tensor(each)[None] for each in (flow, valid, depth, there))
    (moves,) = MotionScale(max(float(torch.hypot(*flow[0]).max()), 1.0)).colour(flow, valid)
    (distances,) = READOUTS["depth"].scale(Target(depth, there)).colour(depth, there)
    gap = np.full((len(rgb), GAP, 3), GAP_GREY, np.uint8)
    data, picture = io.BytesIO(), Image.fromarray(np.concatenate([rgb, gap, moves, gap, distances], axis=1))
    picture.save(data, "JPEG", quality=82, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
