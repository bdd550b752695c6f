"""What the scenes say together: the motion convention, the depth's kind and frame, what a clip will show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from motion_depth.data.findings import Finding
from motion_depth.data.motion import MotionConvention
from motion_depth.doctor.convention import Verdict, describe, differs, flags, flags_or_all
from motion_depth.doctor.depth import depth_offset
from motion_depth.doctor.measure import SceneMeasure
from motion_depth.doctor.photometry import CANDIDATES

MOVING_SHARE = 0.02  # of the pixels, in a typical frame: motion should then be explained by some convention
NEGATED_IS_OFF = "5 to 23 %"  # measured, see docs/dataset_check.md
DEPTH_CHANGES = 0.005  # as a share of the distance, at moving pixels: less cannot be told

LATE = {0: "", 1: ": the motion files are one frame late", -1: ": the motion files are one frame early"}
WHY_OPEN = {
    "y_axis": "nothing moves up or down",
    "direction": "nothing moves sideways",
    "units": "the vectors are too short",
    "frame_offset": "the motion of neighbouring frames is too much alike",
}


def convention_rules(
    verdict: Verdict, measures: Sequence[SceneMeasure], assumed: MotionConvention
) -> Iterator[Finding]:
    """Whether the files follow the convention that training will be told, and all of them the same one."""
    measured = verdict.convention
    if measured is None:
        yield _cannot_tell(verdict, measures)
        return
    if assumed not in verdict.fitting:
        message = (
            f"the motion files do not follow {describe(assumed)}: that explains "
            f"{verdict.gains[CANDIDATES.index(assumed)]:.0%} of what changes at moving pixels, "
            f"{describe(measured)} {verdict.explained:.0%}{LATE[measured.frame_offset]}"
        )
        yield Finding("error", "convention", message, advice=f"Pass {flags_or_all(measured)}")
    elif verdict.unknown:
        names = " and ".join(f"--motion_{name}" for name in verdict.unknown)
        why = ", ".join(WHY_OPEN[name] for name in verdict.unknown)
        yield Finding("note", "convention_open", f"cannot tell {names}: {why}")
    if verdict.forward_flow:
        message = (
            "the motion files hold forward flow: where the point seen at a pixel goes in the next frame. So followed, "
            f"they explain {verdict.explained_next:.0%} of what changes, and taken for backward flow "
            f"{verdict.explained:.0%}. Training needs backward flow, from the frame before. "
            f"{flags(measured) or 'The documented convention'} takes these vectors for it, the other way round: "
            f"right where motion is even, and off by {NEGATED_IS_OFF} of the speed where it changes"
        )
        advice = "Export backward flow; in Blender it is in the first two channels of Cycles' Vector pass, with y up"
        yield Finding("warning", "forward_flow", message, advice=advice)
    for name, its in ((each.scene, each.verdict) for each in measures if differs(each.verdict, verdict)):
        message = (
            f"{name}: its motion follows {describe(its.convention)} ({its.explained:.0%} explained), the other scenes' "
            f"{describe(measured)}{LATE[its.convention.frame_offset]}; a training run reads all in one way"
        )
        yield Finding(
            "error", "convention_differs", message, name, advice="Convert this scene's files, or leave it out"
        )


def _cannot_tell(verdict: Verdict, measures: Sequence[SceneMeasure]) -> Finding:
    """Either too little moves, or the motion has nothing to do with the pictures."""
    if not verdict.scenes or not any(measure.table.moving_pixels.mean() > MOVING_SHARE for measure in measures):
        return Finding("note", "convention_open", "cannot tell the motion convention: too little moves in all scenes")
    message = (
        f"no motion convention explains what changes in the pictures: the best {verdict.explained:.0%}, in "
        f"{verdict.scenes} scenes; either the motion files are wrong, or the light changes more than anything moves"
    )
    return Finding("warning", "convention_unexplained", message)


def depth_rules(verdict: Verdict, measures: Sequence[SceneMeasure]) -> Iterator[Finding]:
    """Whether depth is measured along the ray, and belongs to the frame that it says.

    verdict: on the motion convention of all scenes together.
    """
    wrong = [measure.scene for measure in measures if measure.depth_kind == "image_plane"]
    message = "distance to the image plane, not to the camera: flat surfaces are flat whatever the field of view"
    advice = "Export distance_to_camera, or multiply each pixel's depth by the length of its ray per unit of depth"
    if len(wrong) > sum(measure.depth_kind == "camera" for measure in measures):
        yield Finding("error", "depth_image_plane", f"depth is the {message} (in {len(wrong)} scenes)", advice=advice)
    else:
        for name in wrong:
            yield Finding("error", "depth_image_plane", f"{name}: depth is the {message}", name, advice=advice)
    if verdict.convention is not None:
        shifted = list(_depth_offset_rules(verdict, measures))
        yield from shifted or _depth_motion_rules(measures, CANDIDATES.index(verdict.convention))


def _depth_offset_rules(verdict: Verdict, measures: Sequence[SceneMeasure]) -> Iterator[Finding]:
    by_offset: dict[int | None, list[str]] = defaultdict(list)
    for measure in measures:
        followed = (measure.verdict if differs(measure.verdict, verdict) else verdict).convention
        by_offset[depth_offset(measure.edges, followed.frame_offset)].append(measure.scene)
    right = len(by_offset.pop(0, []))
    by_offset.pop(None, None)
    for offset, names in by_offset.items():
        early, late, sign = ("early", "late", "-") if offset < 0 else ("late", "early", "+")
        message = f"the depth files are one frame {early}: frame t's depth lies in the file of frame t {sign} 1"
        if "frame_offset" in verdict.unknown:
            message += f", or the motion files are one frame {late}"
        # One scene alone may be a chance; several agree.
        severity, advice = ("error" if len(names) > 1 else "warning"), "Export them again"
        if len(names) > right:
            of = f" (in {len(names)} of the {len(names) + right} scenes that tell)" if len(measures) > 1 else ""
            yield Finding(severity, "depth_offset", f"{message}{of}", advice=advice)
            continue
        for name in names:
            yield Finding(severity, "depth_offset", f"{name}: {message}", name, advice=advice)


def _depth_motion_rules(measures: Sequence[SceneMeasure], candidate: int) -> Iterator[Finding]:
    """From one frame to the next, the distance where a vector leads must differ less than that at the same pixel."""
    changes = [np.array([each.depth[candidate] for each in measure.evidence]) for measure in measures]
    changes = [rows for rows in changes if len(rows) and rows[:, 0].mean() > DEPTH_CHANGES]
    if changes and np.mean([rows[:, 1].sum() / rows[:, 0].sum() for rows in changes]) > 1:
        message = (
            "depth does not go along with the motion: where a vector leads, the distance differs more from the frame "
            "before than at the same pixel"
        )
        yield Finding("warning", "depth_motion", message)


def likeness_rules(measures: Sequence[SceneMeasure]) -> Iterator[Finding]:
    """Scenes with the same pictures, trained on twice or held out and trained on; and scenes of different sizes."""
    first: dict[str, str] = {}
    for measure in measures:
        if measure.digest and "picture_black" not in {finding.code for finding in measure.findings}:
            name, other = measure.scene, first.setdefault(measure.digest, measure.scene)
            if name != other:
                message = f"{name}: has the same pictures as {other}; leave one out, or render it again"
                yield Finding("error", "scenes_identical", message, name)
    sizes = sorted({(each.width, each.height) for each in measures if each.width})
    lengths = sorted({len(each.frames) for each in measures if each.frames})
    for what, values in (("size", [f"{w}x{h}" for w, h in sizes]), ("number of frames", [f"{n}" for n in lengths])):
        if len(values) > 1:
            yield Finding("note", "scenes_differ", f"scenes differ in {what}: {', '.join(values)}")
