"""What one scene's numbers say about its pictures, motion and depth, whatever the motion convention is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from motion_depth.data.findings import Finding, Severity
from motion_depth.data.scene import DEPTH, FAR_DEPTH, MOTION, NEAR_DEPTH, RGB
from motion_depth.doctor.measure import SceneMeasure

BLACK = 8  # of 255: no colour of a black picture is brighter; in a plain one, none differs by more
CHANGES = 0.002  # share of pixels that must change for a picture or a depth map to have changed
SPARSE = 0.05  # share of valid depth
FAR_METRES, NEAR_METRES = 100.0, 0.02  # median distances beyond are hardly metres
VALID = f"from {NEAR_DEPTH * 1000:.2g} mm to {FAR_DEPTH / 1000:g} km"
NAMED = 3  # files that are named one by one


def scene_rules(measure: SceneMeasure) -> list[Finding]:
    """Findings from the numbers of a scene, in addition to those that its files already gave."""
    if not measure.table:
        return []
    table = _Table(measure)
    return [*_picture_rules(table), *_motion_rules(table), *_depth_rules(table)]


class _Table:
    """A scene's table with the questions that the rules ask of it; a column that is not there is all NaN."""

    def __init__(self, measure: SceneMeasure):
        self.measure = measure
        self.frames = np.array(measure.frames)

    def __getitem__(self, name: str) -> NDArray:
        return self.measure.table.get(name, np.full(len(self.frames), np.nan))

    def highest(self, name: str) -> float:
        """The column's largest value, 0 if it has none."""
        values = self[name]
        return float(np.nanmax(values)) if not np.isnan(values).all() else 0.0

    def always(self, condition: NDArray, name: str) -> bool:
        """Whether a condition holds wherever a column has a value, and there are such places."""
        there = ~np.isnan(self[name])
        return bool(there.any() and condition[there].all())

    def around(self, name: str) -> NDArray:
        """The smaller of a column's values in the frames before and after; 0 at the ends and where one is not known."""
        values = np.nan_to_num(self[name])
        around = np.minimum(np.roll(values, 1), np.roll(values, -1))
        around[[0, -1]] = 0
        return around

    def goes_on(self, name: str, least: float) -> NDArray:
        """Where a column has at least half of what it has in both neighbours, and those have more than `least`."""
        around = self.around(name)
        return (around > least) & (np.nan_to_num(self[name]) >= around / 2)

    def finding(
        self, code: str, kind: str, message: str, where: NDArray | None = None, severity: Severity = "error"
    ) -> Finding:
        """A finding about a kind's folder, or about the files of the frames where `where` holds."""
        folder = next(iter(self.measure.paths[kind].values())).parent
        if where is None:
            return Finding(severity, code, f"{folder}: {message}", self.measure.scene, str(folder))
        files = [self.measure.paths[kind][n] for n in self.frames[where] if n in self.measure.paths[kind]]
        path = files[0] if len(files) == 1 else folder
        return Finding(severity, code, f"{_names(files)}: {message}", self.measure.scene, str(path))


def _names(files: list[Path]) -> str:
    """The first few files, the first with its folder."""
    shown = ", ".join([str(files[0]), *(path.name for path in files[1:NAMED])])
    return f"{shown}, ... ({len(files)} files)" if len(files) > NAMED else shown


def _picture_rules(t: _Table) -> Iterator[Finding]:
    black = t["brightest"] < BLACK
    plain = ~black & (t["brightest"] - t["darkest"] < BLACK)
    for code, where, what in (("picture_black", black, "black"), ("picture_plain", plain, "of one colour")):
        if t.always(where, "brightest"):
            yield t.finding(code, RGB, f"all {len(t.frames)} pictures are {what}")
        elif where.any():
            yield t.finding(code, RGB, f"found a picture that is {what}, and others that are not", where)
    same = t["picture_same"] == 1
    if t.always(same, "picture_same"):
        if not black.any() and (t.highest("motion") > 0 or t.highest("depth_changed") > CHANGES):
            yield t.finding(
                "picture_frozen", RGB, "all pictures are the same, while motion or depth says that it moves"
            )
        return
    repeated = same & (t.goes_on("motion", 0.0) | t.goes_on("depth_changed", CHANGES))
    # Slow motion may leave a picture as it was; not where it changes before and after.
    repeated &= t.around("picture_changed") > CHANGES
    if repeated.any():
        message = "found the picture of the frame before once more, while motion and depth go on"
        yield t.finding("picture_repeated", RGB, message, repeated)


def _motion_rules(t: _Table) -> Iterator[Finding]:
    bad = np.nan_to_num(t["motion_bad"]) > 0
    if bad.any():
        message = f"{int(np.nansum(t['motion_bad']))} vectors are not finite; they are left out of training"
        yield t.finding("motion_not_finite", MOTION, message, bad, "warning")
    if t.always(t["motion"] == 0, "motion"):
        yield from _all_zero(t)
        return
    # Depth as well as the picture: while something is hidden, its shadow or the light may still change the picture.
    dropped = (t["motion"] == 0) & (t.around("motion") > 0)
    dropped &= t.goes_on("picture_changed", CHANGES) & t.goes_on("depth_changed", CHANGES)
    if dropped.any():
        message = "all vectors are zero, while picture and depth change and the frames around it move"
        yield t.finding("motion_dropped", MOTION, message, dropped)
    repeated = t["motion_same"] == 1
    if repeated.any() and repeated.mean() < 0.5:  # what glides at one speed repeats itself all the time
        message = "found the vectors of the frame before once more; in the rest of the scene they change"
        yield t.finding("motion_repeated", MOTION, message, repeated)


def _all_zero(t: _Table) -> Iterator[Finding]:
    picture, depth = t.highest("picture_changed"), t.highest("depth_changed")
    changed = f"up to {picture:.1%} of the picture's pixels"
    if depth > CHANGES:
        message = f"the motion is all zero while the picture changes ({changed}), and depth with it"
        yield t.finding("motion_zero", MOTION, message)
    elif picture > CHANGES:
        message = (
            f"motion is all zero and depth does not change, while {changed} do: only light moves, or both are stuck"
        )
        yield t.finding("motion_zero_light", MOTION, message, severity="note")
    else:
        message = "nothing moves in this scene; it teaches depth only"
        yield t.finding("scene_still", MOTION, message, severity="note")


def _depth_rules(t: _Table) -> Iterator[Finding]:
    if np.isnan(t["valid"]).all():  # none is readable
        return
    empty = t["valid"] == 0
    if t.always(empty, "valid"):
        yield t.finding("depth_nothing", DEPTH, f"no file holds a valid distance, {VALID}")
        return
    if empty.any():
        yield t.finding("depth_empty", DEPTH, "found no valid distance, while the scene's other files have some", empty)
    valid = float(np.nanmean(t["valid"]))
    if valid < SPARSE:
        message = f"only {valid:.1%} of the pixels hold a valid distance"
        yield t.finding("depth_sparse", DEPTH, message, severity="warning")
    if t.highest("negative") > 0:
        message = "found negative distances; they are read as nothing there"
        yield t.finding("depth_negative", DEPTH, message, np.nan_to_num(t["negative"]) > 0, "warning")
    flat = t["nearest"] == t["farthest"]
    if t.always(flat, "nearest"):
        yield t.finding("depth_flat", DEPTH, f"all distances of a file are the same, such as {t.highest('nearest'):g}")
    yield from _distance_rules(t)
    same = t["depth_same"] == 1
    if t.always(same, "depth_same"):
        if t.highest("motion") > 0 and t.highest("picture_changed") > CHANGES:
            yield t.finding("depth_frozen", DEPTH, "all files are the same, while picture and motion change")
    elif (repeated := same & (t.around("depth_changed") > CHANGES) & t.goes_on("motion", 0.0)).any():
        message = "found the distances of the frame before once more, while picture and motion go on"
        yield t.finding("depth_repeated", DEPTH, message, repeated)


def _distance_rules(t: _Table) -> Iterator[Finding]:
    constant = np.nan_to_num(t["at_farthest"])
    if (constant > 0).mean() > 0.5:
        share, value = constant[constant > 0].mean(), t.highest("farthest")
        yield t.finding(
            "depth_far_constant",
            DEPTH,
            f"{share:.1%} of the pixels hold exactly {value:g}, far behind all others: it seems to stand for nothing "
            "there, and would be learnt as a distance. Write inf instead",
        )
    median = float(np.nanmedian(t["median"]))
    if median > FAR_METRES or median < NEAR_METRES:
        unit = "millimetres" if median > FAR_METRES else "a share of the far plane, or kilometres"
        message = f"the median distance is {median:.4g}, expected metres; it looks like {unit}"
        yield t.finding("depth_unit", DEPTH, message, severity="warning")
