"""Clips of one scene that overlap, read together: each frame once, for all clips that have it.

Axes: n frame, h w pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from motion_depth.clips.clip import LoadImageSequenceWithMotionWrapper, read_pixels, read_threads
from motion_depth.data.clip_frame import ClipFrame
from motion_depth.readouts import READOUTS
from motion_depth.readouts.targets import Target, Targets


@dataclass
class OverlappingClips:
    """Clips of one scene, whose frames follow each other at its stride.

    Attributes:
        frames: (n, h, w, 3) uint8, those of all clips.
        starts: of each clip the place of its first frame among them.
        targets: of each clip, frame by frame, its targets without a frame axis, maps in float16. What clips share are
            the same tensors.
    """

    frames: Tensor
    starts: list[int]
    targets: list[list[Targets]]


def in_order_of_overlap(
    operator: LoadImageSequenceWithMotionWrapper, clips: Iterable[tuple[str, int]]
) -> list[tuple[str, int]]:
    """Clips (scene, window) so that those with common frames follow each other: at stride 2, every other window."""
    return sorted(clips, key=lambda clip: (clip[0], clip[1] % operator.stride(clip[0]), clip[1]))


def group_overlapping(
    operator: LoadImageSequenceWithMotionWrapper, clips: Sequence[tuple[str, int]]
) -> list[tuple[str, list[int]]]:
    """Clips in order of overlap as scenes with windows that are to be read together.

    The last of them begins before the first one ends, so no more than two clips' frames are in memory at once.
    """
    groups: list[tuple[str, list[int]]] = []
    for scene, window in clips:
        stride = operator.stride(scene)
        if groups and groups[-1][0] == scene:
            windows = groups[-1][1]
            if window % stride == windows[0] % stride and window - windows[0] < operator.num_frames * stride:
                windows.append(window)
                continue
        groups.append((scene, [window]))
    return groups


def read_overlapping(
    operator: LoadImageSequenceWithMotionWrapper, scene: str, windows: Sequence[int]
) -> OverlappingClips:
    """The clips of a group of `group_overlapping`, as the operator gives each. Raises ValueError for bad data."""
    clips = [operator.clip_frames(scene, window) for window in windows]
    # What a frame's targets are depends on whether a clip begins with it.
    wanted: dict[int, dict[bool, ClipFrame]] = {}
    for clip in clips:
        for frame in clip:
            wanted.setdefault(frame.number, {}).setdefault(bool(frame.steps), frame)
    numbers = sorted(wanted)
    with ThreadPoolExecutor(read_threads()) as pool:
        read = dict(zip(numbers, pool.map(_read_frame, (wanted[number] for number in numbers)), strict=True))
    return OverlappingClips(
        torch.stack([read[number][0] for number in numbers]),
        [numbers.index(clip[0].number) for clip in clips],
        [[read[frame.number][1][bool(frame.steps)] for frame in clip] for clip in clips],
    )


def _read_frame(frames: dict[bool, ClipFrame]) -> tuple[Tensor, dict[bool, Targets]]:
    """Pixels (h, w, 3) uint8, and the targets of one frame where it is not, and where it is, a clip's first."""
    any_frame = next(iter(frames.values()))
    targets: dict[bool, Targets] = {}
    for follows, frame in sorted(frames.items(), reverse=True):
        # They share what is read of the files.
        targets[follows] = _targets(replace(any_frame, steps=frame.steps), targets.get(True, {}))
    return torch.from_numpy(read_pixels(any_frame).copy()), targets


def _targets(frame: ClipFrame, others: Targets | dict[str, Target]) -> Targets:
    """Its targets; tensors of `others` in the place of equal ones."""
    found = Targets({name: readout.target(frame) for name, readout in READOUTS.items()}).to("cpu", torch.float16)
    return Targets({name: Target(*map(_same, found[name], others.get(name, found[name]))) for name in found})


def _same(tensor: Tensor, other: Tensor) -> Tensor:
    return other if torch.equal(tensor, other) else tensor
