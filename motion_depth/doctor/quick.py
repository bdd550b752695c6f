"""The check that training makes before it starts: the names of every scene's files, and some files' headers.

Of each kind of array, one header of those files that have the most common size is read, and that of every other file;
of the pictures the first, the middle and the last one, and empty ones. So thousands of scenes take seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from motion_depth.data.findings import Finding, some
from motion_depth.data.layouts import list_scene
from motion_depth.data.scene import MOTION, RGB, Scene
from motion_depth.data.windows import Stride, usable_frames, windows
from motion_depth.doctor.measure import unreadable
from motion_depth.files.atomic import file_size
from motion_depth.latents import WAN22

THREADS = 16  # they wait for the disk, or for a server
SHORTEST_CLIP = 1 + WAN22.frames_per_latent  # frames


def quick_check(
    base_path: str | Path,
    scenes: Sequence[str],
    num_frames: int | None = None,
    frame_stride: Stride = "auto",
    frame_offset: int = 0,
) -> list[Finding]:
    """All problems of scenes, in the order given; last, that some are too short.

    Args:
        base_path: folder of the scenes.
        scenes: the CSV's `video` column; a scene's first place in it, counted from 1, is its findings' row.
        num_frames, frame_stride: of a clip; scenes too short for one are found. None: do not look.
        frame_offset: of the motion convention, see `MotionConvention`.
    """
    rows: dict[str, int] = {}
    for row, scene in enumerate(scenes, start=1):
        rows.setdefault(scene, row)
    with ThreadPoolExecutor(THREADS) as pool:
        checked = list(pool.map(lambda scene: _check_scene(base_path, scene, frame_offset), rows))
    findings = [finding for _, its in checked for finding in its]
    if num_frames is not None:
        frames = {name: count for name, (count, _) in zip(rows, checked, strict=True) if count}
        findings += short_rules(frames, num_frames, frame_stride, frame_offset)
    return [replace(finding, row=rows.get(finding.scene)) for finding in findings]


def longest_clip(frames: int, frame_stride: Stride, frame_offset: int) -> int:
    """The most frames, 4k+1, that a clip of a scene with so many frames can have."""
    stride = 1 if frame_stride == "auto" else frame_stride
    return WAN22.longest_clip(max(0, usable_frames(frames, frame_offset) - 1) // stride + 1)


def short_rules(
    frames: Mapping[str, int], num_frames: int, frame_stride: Stride, frame_offset: int
) -> Iterator[Finding]:
    """One finding about the scenes that are too short for a clip, if there are any. frames: of all scenes, by name."""
    short = [scene for scene, n in frames.items() if windows(n, num_frames, frame_stride, frame_offset) == (0, 0)]
    if not short:
        return
    stride = 1 if frame_stride == "auto" else frame_stride
    needed = (num_frames - 1) * stride + 1 + max(0, frame_offset)
    counts = sorted({frames[scene] for scene in short})
    who, names = (short[0], "") if len(short) == 1 else (f"{len(short)} of {len(frames)} scenes", f": {some(short)}")
    message = (
        f"{who}: found {' to '.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))} frames, expected at least "
        f"{needed} for a clip of {num_frames} frames (--num_frames) at stride {stride}{names}"
    )
    fits = min(longest_clip(each, frame_stride, frame_offset) for each in frames.values())
    what = "it" if len(frames) == 1 else f"all {len(frames)} scenes"
    advice = f"--num_frames {fits} fits {what}" if fits >= SHORTEST_CLIP else "Leave out the shortest scenes"
    yield Finding("error", "scene_short", message, short[0] if len(short) == 1 else "", advice=advice)


def _check_scene(base_path: str | Path, name: str, frame_offset: int) -> tuple[int, list[Finding]]:
    """How many pictures a scene has, and what is wrong with it."""
    scene, findings = list_scene(base_path, name)
    if scene is None or not scene.files[RGB]:
        return 0, findings
    first, count = next(iter(scene.files[RGB])), len(scene.files[RGB])
    try:
        _ = scene.size
    except (ValueError, OSError) as error:
        return count, [*findings, unreadable(scene, RGB, first, error)]
    for kind, files in scene.files.items():
        # The first frame has no frame before it: its motion may be anything.
        frames = list(files)[1:] if kind == MOTION and frame_offset >= 0 else list(files)
        sizes = {frame: file_size(files[frame]) for frame in frames}
        if kind == RGB:
            chosen = {first: "", frames[count // 2]: "", frames[-1]: ""}
            chosen |= {frame: "" for frame in frames if not sizes[frame]}
        elif frames:
            usual = Counter(sizes.values()).most_common(1)[0][0]
            alike = [frame for frame in frames if sizes[frame] == usual]
            count_alike = len({files[frame] for frame in alike})
            chosen = {frame: "" for frame in frames if sizes[frame] != usual}
            chosen[alike[0]] = f" ({count_alike} files of this size)" if count_alike > 1 else ""
        findings += _check_headers(scene, kind, chosen if frames else {})
    return count, findings


def _check_headers(scene: Scene, kind: str, frames: Mapping[int, str]) -> Iterator[Finding]:
    """frames: each with a note for its finding."""
    for frame, note in sorted(frames.items()):
        try:
            scene.check(kind, frame)
        except (ValueError, OSError) as error:
            yield unreadable(scene, kind, frame, error, note)
