"""What the scenes say together: the motion convention, the depth's kind and frame, what a clip will show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from motion_depth.data.findings import Finding
from motion_depth.data.motion import MotionConvention
from motion_depth.doctor.convention import FLAGS, Verdict, differing, flags
from motion_depth.doctor.measure import SceneMeasure
from motion_depth.doctor.photometry import CANDIDATES, OFFSETS

MOVING_SHARE = 0.02  # of the pixels, in a typical frame: motion should then be explained by some convention
# An outline in the motion must be one in the depth file of its frame. Another frame's depth file must fit better by
# this share of what depth could jump there, in nearly every frame (in units of the standard error over frames).
DEPTH_FITS_BETTER, SURE = 0.1, 2.5
NEGATED_IS_OFF = "5 to 23 %"  # measured, see docs/dataset_check.md
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
    if verdict.forward_flow:
        yield _forward_flow(verdict)
    for name, its in differing(verdict, scenes).items():
        yield Finding(
            "error",
            "convention_differs",
            f"{name}: its motion follows {describe(its.convention)} ({its.explained:.0%} explained), the other "
            f"scenes' {describe(verdict.convention)}{_late(its.convention)}; a training run reads all in one way",
            scene=name,
            advice="Convert this scene's files, or leave it out",
        )


def _forward_flow(verdict: Verdict) -> Finding:
    return Finding(
        "warning",
        "forward_flow",
        "the motion files hold forward flow: where the point seen at a pixel goes in the next frame. So followed, they "
        f"explain {verdict.explained_next:.0%} of what changes, and taken for backward flow {verdict.explained:.0%}. "
        "Training needs backward flow, from the frame before. "
        f"{flags(verdict.convention) or 'The documented convention'} takes these vectors for it, the other way round: "
        f"right where motion is even, and off by {NEGATED_IS_OFF} of the speed where it changes",
        advice="Export backward flow; in Blender it is in the first two channels of Cycles' Vector pass, with y up",
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


def depth_rules(measures: Sequence[SceneMeasure], verdict: Verdict, scenes: Mapping[str, Verdict]) -> Iterator[Finding]:
    """Whether depth is measured along the ray, and belongs to the frame that it says.

    verdict, scenes: on the motion convention of all scenes together, and of each.
    """
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
    if verdict.convention is not None:
        own = differing(verdict, scenes)
        offsets = {name: its.convention.frame_offset for name, its in own.items()}
        found = list(_depth_offset_rules(measures, offsets, verdict))
        yield from found or _depth_motion_rules(measures, CANDIDATES.index(verdict.convention))


def _depth_offset_rules(
    measures: Sequence[SceneMeasure], own: Mapping[str, int], verdict: Verdict
) -> Iterator[Finding]:
    """own: the frame offset of the motion files of scenes that differ from the others."""
    by_offset: dict[int, list[str]] = defaultdict(list)
    for measure in measures:
        offset = depth_offset(measure.edges, own.get(measure.scene, verdict.convention.frame_offset))
        if offset is not None:
            by_offset[offset].append(measure.scene)
    right = by_offset.pop(0, [])
    for offset, names in by_offset.items():
        early, late = ("early", "late") if offset < 0 else ("late", "early")
        where = f"t {'-' if offset < 0 else '+'} 1"
        message = f"the depth files are one frame {early}: frame t's depth lies in the file of frame {where}"
        if "frame_offset" in verdict.unknown:
            message += f", or the motion files are one frame {late}"
        # One scene alone may be a chance; several agree.
        severity, advice = ("error" if len(names) > 1 else "warning"), "Export them again"
        if len(names) > len(right):
            of = f" (in {len(names)} of the {len(names) + len(right)} scenes that tell)" if len(measures) > 1 else ""
            yield Finding(severity, "depth_offset", f"{message}{of}", advice=advice)
            continue
        for name in names:
            yield Finding(severity, "depth_offset", f"{name}: {message}", scene=name, advice=advice)


def depth_offset(edges: Sequence[NDArray], motion_offset: int) -> int | None:
    """Frame t's depth lies in the file of frame t + this; None if that cannot be told.

    Args:
        edges: from `weigh_edges`, of some frames of a scene. motion_offset: frame t's motion lies in file t + this.
    """
    rows = np.array([each[OFFSETS.index(motion_offset)] for each in edges]).reshape(-1, len(OFFSETS))
    rows = rows[~np.isnan(rows).any(axis=1)]
    if len(rows) < 2:
        return None
    best = int(np.argmax(rows.mean(axis=0)))
    others = [each for each in range(len(OFFSETS)) if each != best]
    for better in (rows[:, best] - rows[:, each] for each in ([0] if best else others)):
        error = float(better.std(ddof=1)) / len(better) ** 0.5
        if better.mean() < DEPTH_FITS_BETTER or better.mean() < SURE * error:
            return None
    return OFFSETS[best]


def _depth_motion_rules(measures: Sequence[SceneMeasure], candidate: int) -> Iterator[Finding]:
    """From one frame to the next, the distance where a vector leads must differ less than that at the same pixel."""
    changes = {measure.scene: np.array([each.depth[candidate] for each in measure.evidence]) for measure in measures}
    changes = {name: rows for name, rows in changes.items() if len(rows) and rows[:, 0].mean() > DEPTH_CHANGES}
    if changes and np.mean([rows[:, 1].sum() / rows[:, 0].sum() for rows in changes.values()]) > 1:
        yield Finding(
            "warning",
            "depth_motion",
            "depth does not go along with the motion: where a vector leads, the distance differs more from the frame "
            "before than at the same pixel",
        )


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
