"""Pictures of the report as text: SVG plots and one small JPEG per scene, to stand in the page itself."""

from __future__ import annotations

import base64
import io
import re

import matplotlib
import numpy as np
import torch
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from motion_depth.data.convention import camera_rests
from motion_depth.data.motion import MotionConvention, decode_motion
from motion_depth.data.scene import DEPTH, MOTION, RGB, is_there
from motion_depth.doctor.check import DatasetCheck
from motion_depth.doctor.measure import SceneMeasure
from motion_depth.doctor.photometry import CANDIDATES, PER_OFFSET
from motion_depth.doctor.summary import speeds
from motion_depth.doctor.table import MOVING_PIXELS
from motion_depth.readouts import READOUTS
from motion_depth.readouts.motion import MotionScale
from motion_depth.readouts.targets import Target

INK, GOOD, OTHER, GRID = "#1f2937", "#0f766e", "#cbd5e1", "#e5e7eb"
STYLE = {
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.major.size": 0,
}
LOWEST = -0.5  # explained shares below are cut off: how bad a wrong reading is does not matter
DIRECTIONS = 4  # CANDIDATES of one unit: two directions, two y axes
GAP, GAP_GREY = 2, 209  # pixels between the parts of a thumbnail; what rests is white there


@matplotlib.rc_context(STYLE)
def convention_plot(check: DatasetCheck) -> Markup:
    """What each reading of the motion files explains: kinds on the left, frame offsets of the best on the right."""
    gains = np.maximum(np.array(check.verdict.gains).reshape(-1, PER_OFFSET), LOWEST)
    best = CANDIDATES.index(check.verdict.convention) if check.verdict.convention else int(gains.argmax())
    row, kind = divmod(best, PER_OFFSET)
    figure = Figure(figsize=(11.4, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[4, 1], sharey=True)
    places = np.arange(PER_OFFSET) + np.arange(PER_OFFSET) // DIRECTIONS * 0.6  # a gap between the units
    left.bar(places, gains[row], color=[GOOD if k == kind else OTHER for k in range(PER_OFFSET)], width=0.72)
    left.set_xticks(places, [f"{c.direction}\ny {c.y_axis}" for c in CANDIDATES[:PER_OFFSET]])
    below = {"xycoords": ("data", "axes fraction"), "ha": "center", "fontsize": 9}
    for k in range(0, PER_OFFSET, DIRECTIONS):
        left.annotate(CANDIDATES[k].units, (places[k : k + DIRECTIONS].mean(), -0.24), **below)
    order = [2, 0, 1]  # the file before, its own, the next
    names = ["frame t - 1", "frame t", "frame t + 1"]
    right.bar(names, gains[order, kind], color=[GOOD if k == row else OTHER for k in order], width=0.6)
    right.annotate("frame t's motion in the file of", (1, -0.24), **below)
    left.annotate("no motion", (places[-1] + 0.5, 0.01), ha="right", va="bottom", fontsize=8, color=INK)
    left.set_ylabel("explained share")
    left.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    for axes in (left, right):
        axes.axhline(0, color=INK, linewidth=1)
        axes.set_ylim(LOWEST, max(0.6, gains.max() + 0.05))
    return _svg(figure, "What each reading of the motion files explains")


@matplotlib.rc_context(STYLE)
def speed_plot(check: DatasetCheck, convention: MotionConvention, strides: list[int]) -> Markup:
    """Share of the moving pixels that are slower than a speed, for some strides."""
    figure = Figure(figsize=(5.6, 2.5), layout="constrained")
    axes = figure.subplots()
    counts, values = speeds(check.measures, convention)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(strides)))
    for stride, colour in zip(strides, colours, strict=True):
        moving = (values * stride > MOVING_PIXELS) & (counts > 0)
        if moving.any():
            shares = counts[moving].cumsum() / counts[moving].sum()
            axes.plot(values[moving] * stride, shares, color=colour, label=f"stride {stride}")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("pixels between two frames of a clip")
    axes.set_ylabel("share of moving pixels")
    if axes.lines:
        axes.legend(frameon=False, fontsize=7)
    return _svg(figure, "Speeds of moving pixels")


def sparkline(measure: SceneMeasure, convention: MotionConvention) -> Markup:
    """Share of moving pixels over a scene's frames; the line's top is the scene's highest."""
    values = measure.table[f"moving_{convention.units}"].dropna().to_numpy()
    if len(values) < 2 or not values.max():
        return Markup("")
    points = zip(np.linspace(0, 120, len(values)), 23 - 22 * values / values.max(), strict=True)
    return Markup(
        '<svg class="spark" viewBox="0 0 120 24" role="img" aria-label="moving pixels over time"><polyline points="'
        f'{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" fill="none" stroke="{GOOD}" stroke-width="1.5"/></svg>'
    )


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


def _svg(figure: Figure, label: str) -> Markup:
    """The figure as an svg element without references to anything outside, even to a document type."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": label}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))
