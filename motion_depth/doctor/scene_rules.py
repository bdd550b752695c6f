"""What one scene's numbers say about its pictures, motion and depth, whatever the motion convention is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from motion_depth.data.findings import Finding, Severity
from motion_depth.data.scene import DEPTH, FAR_DEPTH, MOTION, NEAR_DEPTH, RGB, Scene

BLACK = 8  # of 255: no colour of a black picture is brighter; in a plain one, none differs by more
CHANGES = 0.002  # share of pixels that must change for a picture or a depth map to have changed
SPARSE = 0.05  # share of valid depth
FAR_METRES, NEAR_METRES = 100.0, 0.02  # median distances beyond are hardly metres
VALID = f"from {NEAR_DEPTH * 1000:.2g} mm to {FAR_DEPTH / 1000:g} km"
NAMED = 3  # files that are named one by one

# Code, severity, when: whether it is so of all files of a kind, or of which frames' files; message.
Rule = tuple[str, Severity, bool | pd.Series, str]


def scene_rules(scene: Scene, table: pd.DataFrame) -> Iterator[Finding]:
    """Findings from a scene's table (table.py). What is not known compares as false there, so no rule holds."""
    for kind, rules in ((RGB, picture_rules(table)), (MOTION, motion_rules(table)), (DEPTH, depth_rules(table))):
        for code, severity, when, message in rules:
            if np.any(when):
                place, names = _place(scene.files[kind], None if isinstance(when, bool) else table.index[when])
                yield Finding(severity, code, f"{names}: {message}", scene.name, str(place))


def _place(files: Mapping[int, Path], frames: pd.Index | None) -> tuple[Path, str]:
    """The folder of files, or the file of a single frame; and the first few by name, the first with its folder."""
    paths = list(dict.fromkeys(files.values() if frames is None else [files[n] for n in frames if n in files]))
    place = paths[0] if len(paths) == 1 else paths[0].parent
    if frames is None:
        return place, str(place)
    names = ", ".join([str(paths[0]), *(path.name for path in paths[1:NAMED])])
    return place, f"{names}, ... ({len(paths)} files)" if len(paths) > NAMED else names


def picture_rules(t: pd.DataFrame) -> list[Rule]:
    black, same = t.brightest < BLACK, t.picture_same == 1
    plain = ~black & (t.brightest - t.darkest < BLACK)
    all_black, all_plain = every(black, t.brightest), every(plain, t.brightest)
    moves = bool(t.motion.max() > 0 or t.depth_changed.max() > CHANGES)
    # Slow motion may leave a picture as it was; not where it changes before and after.
    repeated = (
        same & (goes_on(t.motion, 0.0) | goes_on(t.depth_changed, CHANGES)) & (around(t.picture_changed) > CHANGES)
    )
    others = "and others that are not"
    return [
        ("picture_black", "error", all_black, f"all {len(t)} pictures are black"),
        ("picture_black", "error", black & (not all_black), f"found a picture that is black, {others}"),
        ("picture_plain", "error", all_plain, f"all {len(t)} pictures are of one colour"),
        ("picture_plain", "error", plain & (not all_plain), f"found a picture that is of one colour, {others}"),
        ("picture_frozen", "error", every(same, t.picture_same) and not black.any() and moves,
         "all pictures are the same, while motion or depth says that it moves"),
        ("picture_repeated", "error", repeated,
         "found the picture of the frame before once more, while motion and depth go on"),
    ]  # fmt: skip


def motion_rules(t: pd.DataFrame) -> list[Rule]:
    zero, same = every(t.motion == 0, t.motion), t.motion_same == 1
    picture, depth = (float(np.nan_to_num(each.max())) for each in (t.picture_changed, t.depth_changed))
    share = f"up to {picture:.1%} of the picture's pixels"
    # Depth as well as the picture: while something is hidden, its shadow or the light may still change the picture.
    dropped = (t.motion == 0) & (around(t.motion) > 0)
    dropped &= goes_on(t.picture_changed, CHANGES) & goes_on(t.depth_changed, CHANGES)
    repeated = same & bool(same.mean() < 0.5)  # what glides at one speed repeats itself all the time
    return [
        ("motion_not_finite", "warning", t.motion_bad > 0,
         f"{t.motion_bad.sum():.0f} vectors are not finite; they are left out of training"),
        ("motion_zero", "error", zero and depth > CHANGES,
         f"the motion is all zero while the picture changes ({share}), and depth with it"),
        ("motion_zero_light", "note", zero and picture > CHANGES >= depth,
         f"motion is all zero and depth does not change, while {share} do: only light moves, or both are stuck"),
        ("scene_still", "note", zero and max(picture, depth) <= CHANGES,
         "nothing moves in this scene; it teaches depth only"),
        ("motion_dropped", "error", dropped,
         "all vectors are zero, while picture and depth change and the frames around it move"),
        ("motion_repeated", "error", repeated,
         "found the vectors of the frame before once more; in the rest of the scene they change"),
    ]  # fmt: skip


def depth_rules(t: pd.DataFrame) -> list[Rule]:
    empty, same = t.valid == 0, t.depth_same == 1
    if every(empty, t.valid):
        return [("depth_nothing", "error", True, f"no file holds a valid distance, {VALID}")]
    valid, median, constant = t.valid.mean(), t["median"].median(), t.at_farthest[t.at_farthest > 0]
    unit = "millimetres" if median > FAR_METRES else "a share of the far plane, or kilometres"
    frozen = every(same, t.depth_same) and t.motion.max() > 0 and t.picture_changed.max() > CHANGES
    repeated = same & (around(t.depth_changed) > CHANGES) & goes_on(t.motion, 0.0)
    return [
        ("depth_empty", "error", empty, "found no valid distance, while the scene's other files have some"),
        ("depth_sparse", "warning", bool(valid < SPARSE), f"only {valid:.1%} of the pixels hold a valid distance"),
        ("depth_negative", "warning", t.negative > 0, "found negative distances; they are read as nothing there"),
        ("depth_flat", "error", every(t.nearest == t.farthest, t.nearest),
         f"all distances of a file are the same, such as {t.nearest.max():g}"),
        ("depth_far_constant", "error", len(constant) > 0.5 * len(t),
         f"{constant.mean():.1%} of the pixels hold exactly {t.farthest.max():g}, far behind all others: it seems to "
         "stand for nothing there, and would be learnt as a distance. Write inf instead"),
        ("depth_unit", "warning", bool(median > FAR_METRES or median < NEAR_METRES),
         f"the median distance is {median:.4g}, expected metres; it looks like {unit}"),
        ("depth_frozen", "error", bool(frozen), "all files are the same, while picture and motion change"),
        ("depth_repeated", "error", repeated,
         "found the distances of the frame before once more, while picture and motion go on"),
    ]  # fmt: skip


def every(condition: pd.Series, column: pd.Series) -> bool:
    """Whether a condition holds wherever a column has a value, and there are such frames."""
    known = column.notna()
    return bool(known.any() and condition[known].all())


def around(column: pd.Series) -> pd.Series:
    """The smaller of a column's values in the frames before and after; 0 at the ends and where one is not known."""
    return np.minimum(column.shift(1), column.shift(-1)).fillna(0.0)


def goes_on(column: pd.Series, least: float) -> pd.Series:
    """Where a column has at least half of what it has in both neighbours, and those have more than `least`."""
    return (around(column) > least) & (column.fillna(0.0) >= around(column) / 2)
