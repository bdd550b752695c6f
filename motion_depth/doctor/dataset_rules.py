"""What the scenes say together: the motion convention, the depth's kind and frame, what a clip will show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from motion_depth.doctor.convention import FLAGS, Verdict, differing, flags
from motion_depth.doctor.measure import SceneMeasure
from motion_depth.doctor.photometry import CANDIDATES, OFFSETS
from motion_depth.findings import Finding
from motion_depth.motion import MotionConvention

MOVING_SHARE = 0.02  # of the pixels, in a typical frame: motion should then be explained by some convention
# Depth must follow the motion: between a frame and the next, the distance found where a vector leads must differ less
# than at the same pixel. A depth file of another frame must fit by this share better, in most frames, that is by so
# many standard errors.
DEPTH_OFFSET_BETTER, SURE = 0.1, 1.5
DEPTH_CHANGES = 0.005  # as a share of the distance, at moving pixels: less cannot be told


def convention_rules(
    verdict: Verdict, scenes: Mapping[str, Verdict], measures: Sequence[SceneMeasure], assumed: MotionConvention
) -> Iterator[Finding]:
    """Whether the files follow the convention that training will be told, and all of them the same one."""
    if verdict.convention is None:
        yield _cannot_tell(verdict, measures)
        return
    if assumed not in verdict.fitting:
        yield Finding(
            "error",
            "convention",
            f"the motion files do not follow {describe(assumed)}: that explains "
            f"{verdict.gains[CANDIDATES.index(assumed)]:.0%} of what changes at moving pixels, "
            f"{describe(verdict.convention)} {verdict.explained:.0%}{_late(verdict.convention)}",
            advice=f"Pass {flags(verdict.convention) or all_flags(verdict.convention)}",
        )
    elif verdict.unknown:
        names = " and ".join(f"--motion_{name}" for name in verdict.unknown)
        yield Finding("note", "convention_open", f"cannot tell {names}: {_why_open(verdict)}")
    for name, its in differing(verdict, scenes).items():
        yield Finding(
            "error",
            "convention_differs",
            f"{name}: its motion follows {describe(its.convention)} ({its.explained:.0%} explained), the other "
            f"scenes' {describe(verdict.convention)}{_late(its.convention)}; a training run reads all in one way",
            scene=name,
            advice="Convert this scene's files, or leave it out",
        )


def describe(convention: MotionConvention) -> str:
    """In words: "backward motion in pixels, y down, in the file of its frame"."""
    units = {
        "pixels": "pixels",
        "normalized": "shares of the picture's size",
        "ndc": "shares of half the picture's size",
    }
    frame = {0: "in the file of its frame", 1: "in the file of the next frame", -1: "in the file of the frame before"}
    return (
        f"{convention.direction} motion in {units[convention.units]}, y {convention.y_axis}, "
        f"{frame[convention.frame_offset]}"
    )


def all_flags(convention: MotionConvention) -> str:
    return " ".join(f"--motion_{name} {getattr(convention, name)}" for name in FLAGS)


def _late(convention: MotionConvention) -> str:
    return {0: "", 1: ": the motion files are one frame late", -1: ": the motion files are one frame early"}[
        convention.frame_offset
    ]


def _cannot_tell(verdict: Verdict, measures: Sequence[SceneMeasure]) -> Finding:
    """Either too little moves, or the motion has nothing to do with the pictures."""
    moving = [share for measure in measures if (share := moving_share(measure, "pixels")) > MOVING_SHARE]
    if not verdict.scenes or not moving:
        return Finding("note", "convention_open", "cannot tell the motion convention: too little moves in all scenes")
    return Finding(
        "warning",
        "convention_unexplained",
        f"no motion convention explains what changes in the pictures: the best {verdict.explained:.0%}, in "
        f"{verdict.scenes} scenes; either the motion files are wrong, or the light changes more than anything moves",
    )


def _why_open(verdict: Verdict) -> str:
    reasons = {
        "y_axis": "nothing moves up or down",
        "direction": "nothing moves sideways",
        "units": "the vectors are too short",
        "frame_offset": "the motion of neighbouring frames is too much alike",
    }
    return ", ".join(reasons[name] for name in verdict.unknown)


def moving_share(measure: SceneMeasure, units: str) -> float:
    """Share of pixels that move, in the mean over the frames; 0 if no motion is readable."""
    values = measure.table.get(f"moving_{units}", np.array([np.nan]))
    return float(np.nanmean(values)) if not np.isnan(values).all() else 0.0


# --------------------------------------------------------------------------------------------------------- depth


def depth_rules(measures: Sequence[SceneMeasure], convention: MotionConvention | None) -> Iterator[Finding]:
    """Whether depth is measured along the ray, and belongs to the frame that it says."""
    kinds = defaultdict(list)
    for measure in measures:
        if measure.planes is not None and measure.planes.kind:
            kinds[measure.planes.kind].append(measure)
    wrong, right = kinds["image_plane"], kinds["camera"]
    advice = "Export distance_to_camera, or multiply each pixel's depth by the length of its ray per unit of depth"
    message = "distance to the image plane, not to the camera: flat surfaces are flat whatever the field of view"
    if len(wrong) > len(right):
        yield Finding("error", "depth_image_plane", f"depth is the {message} (in {len(wrong)} scenes)", advice=advice)
    else:
        for measure in wrong:
            text = f"{measure.scene}: depth is the {message}"
            yield Finding("error", "depth_image_plane", text, scene=measure.scene, advice=advice)
    if convention is not None:
        yield from _depth_motion_rules(measures, CANDIDATES.index(convention))


def depth_changes(measure: SceneMeasure, candidate: int) -> NDArray:
    """(frames, 1 + OFFSETS): Evidence.depth of one candidate, without frames in which a file lacks."""
    rows = np.array([each.depth[candidate] for each in measure.evidence]).reshape(-1, 1 + len(OFFSETS))
    return rows[~np.isnan(rows).any(axis=1)]


def _depth_motion_rules(measures: Sequence[SceneMeasure], candidate: int) -> Iterator[Finding]:
    changes = {measure.scene: depth_changes(measure, candidate) for measure in measures}
    changes = {name: rows for name, rows in changes.items() if len(rows) and rows[:, 0].mean() > DEPTH_CHANGES}
    if not changes:
        return
    together = np.concatenate([rows / rows[:, 0].sum() for rows in changes.values()])
    offset = _depth_offset(together, len(changes))
    what = {
        1: "late: frame t's depth lies in the file of frame t + 1",
        -1: "early: frame t's depth lies in that of t - 1",
    }
    if offset:
        yield Finding("error", "depth_offset", f"the depth files are one frame {what[offset]}; export them again")
        return
    for name, rows in changes.items():
        its = _depth_offset(rows / rows[:, 0].sum(), 1)
        if its:
            yield Finding("error", "depth_offset", f"{name}: the depth files are one frame {what[its]}", scene=name)
    explained = 1 - together[:, 1].sum() / len(changes)
    if explained < 0:
        yield Finding(
            "warning",
            "depth_motion",
            "depth does not go along with the motion: where a vector leads, the distance differs more from the frame "
            "before than at the same pixel",
        )


def _depth_offset(rows: NDArray, scenes: int) -> int:
    """The frame offset of depth that rows (frames, 1 + OFFSETS) speak for; each scene's first column sums to 1."""
    errors = rows[:, 1:].sum(axis=0) / scenes
    best = int(np.argmin(errors))
    better = rows[:, 1] - rows[:, 1 + best]
    deviation = better.std(ddof=1) * len(better) ** 0.5 if len(better) > 1 else np.inf
    sure = better.sum() / scenes > DEPTH_OFFSET_BETTER and better.sum() > SURE * deviation
    return OFFSETS[best] if sure and errors[best] < 1 else 0


# ------------------------------------------------------------------------------------------------------ scenes


def identical_rules(measures: Sequence[SceneMeasure]) -> Iterator[Finding]:
    """Scenes with the same pictures: trained on twice, or validated on what was trained on."""
    same = defaultdict(list)
    for measure in measures:
        if measure.digest and "picture_black" not in {finding.code for finding in measure.findings}:
            same[measure.digest].append(measure.scene)
    for names in same.values():
        for name in names[1:]:
            message = f"{name}: has the same pictures as {names[0]}; leave one out, or render it again"
            yield Finding("error", "scenes_identical", message, scene=name)


def size_rules(measures: Sequence[SceneMeasure]) -> Iterator[Finding]:
    for what, found in (
        ("size", {f"{each.width}x{each.height}" for each in measures if each.width}),
        ("number of frames", {str(len(each.frames)) for each in measures if each.frames}),
    ):
        if len(found) > 1:
            values = ", ".join(sorted(found, key=lambda value: [int(part) for part in value.split("x")]))
            yield Finding("note", "scenes_differ", f"scenes differ in {what}: {values}")
