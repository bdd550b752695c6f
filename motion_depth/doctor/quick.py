"""The check that training makes before it starts: every scene's file names, and the headers of its files.

Thousands of scenes take seconds: a file of the same size as one whose header was read is taken to be like it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

from motion_depth.data.findings import Finding
from motion_depth.data.layouts import list_scene
from motion_depth.data.scene import MOTION, RGB
from motion_depth.files.atomic import file_size
from motion_depth.latents import WAN22

THREADS = 16  # they wait for the disk, or for a server
SHORTEST_CLIP = 1 + WAN22.frames_per_latent  # frames
NAMED = 3  # scenes that are too short, by name


def quick_check(
    base_path: str | Path,
    scenes: Sequence[str],
    num_frames: int | None = None,
    frame_stride: int | Literal["auto"] = "auto",
    frame_offset: int = 0,
) -> list[Finding]:
    """All problems of scenes, in the order given; last, that some are too short.

    Args:
        base_path: folder of the scenes.
        scenes: the CSV's `video` column; a scene's place in it is its findings' row, counted from 1.
        num_frames, frame_stride: of a clip; scenes too short for one are found. None: do not look.
        frame_offset: of the motion convention, see `MotionConvention`.
    """

    rows = {scene: row for row, scene in reversed(list(enumerate(scenes, start=1)))}  # a scene's first row
    rows = dict(sorted(rows.items(), key=lambda item: item[1]))
    with ThreadPoolExecutor(THREADS) as pool:
        checked = list(pool.map(lambda scene: _check_scene(base_path, scene, frame_offset), rows))
    findings = [finding for scene in checked for finding in scene.findings]
    if num_frames is not None:
        frames = {each.name: len(each.scene.files[RGB]) for each in checked if each.scene}
        frames = {scene: count for scene, count in frames.items() if count}
        findings += short_rules(frames, num_frames, frame_stride, frame_offset)
    return [replace(finding, row=rows.get(finding.scene)) for finding in findings]


def windows(frames: int, num_frames: int, frame_stride: int | Literal["auto"], frame_offset: int) -> tuple[int, int]:
    """Stride and number of distinct clips of a scene with so many frames; (0, 0) if it is too short."""
    usable = frames - max(0, frame_offset)  # the last frame's motion would lie in a file after the last
    longest = (usable - 1) // (num_frames - 1)
    stride = longest if frame_stride == "auto" else frame_stride
    return (stride, usable - (num_frames - 1) * stride) if 1 <= stride <= longest else (0, 0)


def longest_clip(frames: int, frame_stride: int | Literal["auto"], frame_offset: int) -> int:
    """The most frames, 4k+1, that a clip of a scene with so many frames can have."""
    usable = frames - max(0, frame_offset)
    stride = 1 if frame_stride == "auto" else frame_stride
    return WAN22.longest_clip(max(0, usable - 1) // stride + 1)


def short_rules(
    frames: Mapping[str, int], num_frames: int, frame_stride: int | Literal["auto"], frame_offset: int
) -> Iterator[Finding]:
    """One finding about the scenes that are too short for a clip, if there are any. frames: of all scenes, by name."""
    short = [scene for scene, n in frames.items() if windows(n, num_frames, frame_stride, frame_offset) == (0, 0)]
    if not short:
        return
    stride = 1 if frame_stride == "auto" else frame_stride
    needed = (num_frames - 1) * stride + 1 + max(0, frame_offset)
    found = sorted({frames[scene] for scene in short})
    one = len(short) == 1
    names = f"{', '.join(short[:NAMED])}{', ...' if len(short) > NAMED else ''}"
    message = (
        f"{names if one else f'{len(short)} of {len(frames)} scenes'}: "
        f"found {found[0]}{f' to {found[-1]}' if len(found) > 1 else ''} frames, expected at least {needed} for a clip "
        f"of {num_frames} frames (--num_frames) at stride {stride}{'' if one else f': {names}'}"
    )
    fits = min(longest_clip(each, frame_stride, frame_offset) for each in frames.values())
    what = "it" if len(frames) == 1 else f"all {len(frames)} scenes"
    advice = f"--num_frames {fits} fits {what}" if fits >= SHORTEST_CLIP else "Leave out the shortest scenes"
    yield Finding("error", "scene_short", message, short[0] if one else "", advice=advice)


class _Checked:
    def __init__(self, base_path: str | Path, name: str):
        self.name = name
        self.scene, self.findings = list_scene(base_path, name)

    def header(self, kind: str, frame: int, note: str = "") -> None:
        """Read a frame's header; note what is wrong with it."""
        try:
            self.scene.check(kind, frame)
        except (ValueError, OSError) as error:
            path = self.scene.files[kind][frame]
            self.findings.append(Finding("error", f"{kind}_file", f"{error}{note}", self.name, str(path)))


def _check_scene(base_path: str | Path, name: str, frame_offset: int) -> _Checked:
    checked = _Checked(base_path, name)
    scene = checked.scene
    if scene is None or not scene.files[RGB]:
        return checked
    try:
        _ = scene.size
    except (ValueError, OSError) as error:
        first = next(iter(scene.files[RGB].values()))
        checked.findings.append(Finding("error", f"{RGB}_file", str(error), name, str(first)))
        return checked
    for kind, files in scene.files.items():
        frames = list(files)
        if kind == MOTION and frame_offset >= 0:
            frames = frames[1:]  # the first frame has no frame before it: its motion may be anything
        if frames:
            _check_headers(checked, kind, frames)
    return checked


def _check_headers(checked: _Checked, kind: str, frames: list[int]) -> None:
    files = checked.scene.files[kind]
    lengths = {frame: file_size(files[frame]) for frame in frames}
    if kind == RGB:
        chosen = {frames[0], frames[len(frames) // 2], frames[-1]} | {frame for frame in frames if not lengths[frame]}
        for frame in sorted(chosen):
            checked.header(kind, frame)
        return
    usual = Counter(lengths.values()).most_common(1)[0][0]
    alike = [frame for frame in frames if lengths[frame] == usual]
    several = len({files[frame] for frame in alike})
    checked.header(kind, alike[0], f" ({several} files of this size)" if several > 1 else "")
    for frame in frames:
        if lengths[frame] != usual:
            checked.header(kind, frame)
