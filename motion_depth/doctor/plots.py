"""Pictures of the report as text: SVG plots and one small JPEG per scene, to stand in the page itself."""

from __future__ import annotations

import base64
import io
import re

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from motion_depth.data.motion import MotionConvention, decode_motion
from motion_depth.data.resting import camera_rests
from motion_depth.data.scene import is_there
from motion_depth.doctor.check import DatasetCheck
from motion_depth.doctor.measure import SceneMeasure
from motion_depth.doctor.photometry import CANDIDATES, PER_OFFSET
from motion_depth.doctor.summary import StrideSummary
from motion_depth.doctor.table import MOVING_PIXELS, speed_of_bin
from motion_depth.readouts.depth import DepthScale
from motion_depth.readouts.motion import MotionScale

INK, GOOD, OTHER, GRID = "#1f2937", "#0f766e", "#cbd5e1", "#e5e7eb"
LOWEST = -0.5  # explained shares below are cut off: how bad a wrong reading is does not matter
DIRECTIONS = 4  # CANDIDATES of one unit: two directions, two y axes
GAP, GAP_GREY = 2, 209  # pixels between the parts of a thumbnail; what rests is white there


def convention_plot(check: DatasetCheck) -> str:
    """What each reading of the motion files explains: kinds on the left, frame offsets of the best on the right."""
    gains = np.maximum(np.array(check.verdict.gains).reshape(-1, PER_OFFSET), LOWEST)
    best = CANDIDATES.index(check.verdict.convention) if check.verdict.convention else int(gains.argmax())
    row, kind = divmod(best, PER_OFFSET)
    figure = Figure(figsize=(11.4, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[4, 1], sharey=True)
    places = np.arange(PER_OFFSET) + np.arange(PER_OFFSET) // DIRECTIONS * 0.6  # a gap between the units
    left.bar(places, gains[row], color=[GOOD if k == kind else OTHER for k in range(PER_OFFSET)], width=0.72)
    left.set_xticks(places, [f"{c.direction}\ny {c.y_axis}" for c in CANDIDATES[:PER_OFFSET]])
    for k in range(0, PER_OFFSET, DIRECTIONS):
        middle = places[k : k + DIRECTIONS].mean()
        left.annotate(CANDIDATES[k].units, (middle, -0.24), xycoords=("data", "axes fraction"), ha="center", fontsize=9)
    left.set_ylabel("explained share")
    order = [2, 0, 1]  # the file before, its own, the next
    names = ["frame t - 1", "frame t", "frame t + 1"]
    right.bar(names, gains[order, kind], color=[GOOD if k == row else OTHER for k in order], width=0.6)
    middle = "frame t's motion in the file of"
    right.annotate(middle, (1, -0.24), xycoords=("data", "axes fraction"), ha="center", fontsize=9)
    left.annotate(
        "no motion", (places[-1] + 0.5, 0.01), xycoords="data", ha="right", va="bottom", fontsize=8, color=INK
    )
    left.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    for axes in (left, right):
        axes.axhline(0, color=INK, linewidth=1)
        axes.set_ylim(LOWEST, max(0.6, gains.max() + 0.05))
        _tidy(axes)
    return _svg(figure, "What each reading of the motion files explains")


def speed_plot(check: DatasetCheck, strides: list[StrideSummary]) -> str:
    """Share of the moving pixels that are slower than a speed, for each stride."""
    convention = check.verdict.convention or check.settings.convention
    factor = 0.5 if convention.units == "ndc" else 1.0
    speeds = sum(measure.speeds[int(convention.units != "pixels")] for measure in check.measures)
    edges = speed_of_bin(np.arange(1, len(speeds))) * factor
    figure = Figure(figsize=(5.6, 2.5), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(strides)))
    for each, colour in zip(strides, colours, strict=True):
        moving = np.where(edges * each.stride > MOVING_PIXELS, speeds[1:], 0)
        if moving.any():
            cumulative = moving.cumsum() / moving.sum()
            shown = (cumulative > 0) & (np.roll(cumulative, 1) < 0.9999)
            axes.plot((edges * each.stride)[shown], cumulative[shown], color=colour, label=f"stride {each.stride}")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("pixels between two frames of a clip")
    axes.set_ylabel("share of moving pixels")
    if strides:
        axes.legend(frameon=False, fontsize=7)
    _tidy(axes)
    return _svg(figure, "Speeds of moving pixels")


def sparkline(measure: SceneMeasure, convention: MotionConvention) -> str:
    """Share of moving pixels over a scene's frames; the line's top is the scene's highest."""
    values = measure.table.get(f"moving_{convention.units}", np.zeros(1))
    values = values[~np.isnan(values)]
    if len(values) < 2 or not values.max():
        return ""
    x, y = np.linspace(0, 120, len(values)), 23 - 22 * values / values.max()
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return (
        f'<svg class="spark" viewBox="0 0 120 24" role="img" aria-label="moving pixels over time">'
        f'<polyline points="{points}" fill="none" stroke="{GOOD}" stroke-width="1.5"/></svg>'
    )


def thumbnail(measure: SceneMeasure, convention: MotionConvention) -> str:
    """Picture, motion and depth of one frame side by side, as a data URI; "" if there is no such frame."""
    small = measure.thumbnail
    if small is None:
        return ""
    flow, valid = decode_motion(small.motion, convention)
    there = is_there(small.depth)
    if not camera_rests(small.motion, there, convention.scale(measure.height, measure.width)):
        valid &= torch.from_numpy(there)
    if convention.units != "pixels":  # the vectors are shares of the whole picture's size, not of the thumbnail's
        flow *= torch.tensor([measure.width / flow.shape[2], measure.height / flow.shape[1]])[:, None, None]
    depth = torch.from_numpy(np.where(there, small.depth, np.float32(0)))
    known = depth[depth > 0]
    near, far = (float(v) for v in known.quantile(torch.tensor([0.02, 0.98]))) if len(known) else (1.0, 2.0)
    fastest = max(float(torch.hypot(*flow).max()), 1.0)
    maps = [small.rgb, MotionScale(fastest).colour(flow[None], valid[None])[0]]
    maps.append(DepthScale(near, max(far, near * 1.01)).colour(depth[None], (depth > 0)[None])[0])
    gap = np.full((len(small.rgb), GAP, 3), GAP_GREY, np.uint8)
    return _jpeg(np.concatenate([maps[0], gap, maps[1], gap, maps[2]], axis=1))


def _jpeg(picture: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=82, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _tidy(axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, length=0)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)


def _svg(figure: Figure, label: str) -> str:
    """The figure as an svg element without references to anything outside, even to a document type."""
    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label, "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
