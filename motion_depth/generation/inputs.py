"""What a video is generated from, or which video is re-read: pictures, scenes, videos, and a CSV of many.

Inputs are looked at when a job is made, so that what cannot work says so before any model is loaded, and read when its
turn comes. Axes: t frame, h w pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from motion_depth.clips.clip import LoadImageSequenceWithMotionWrapper, MotionDepthClip, resize_image
from motion_depth.data.motion import cover_crop
from motion_depth.files.tables import read_csv
from motion_depth.pictures.media import read_frames, read_picture


@dataclass(frozen=True)
class Source:
    """What a job starts from.

    Attributes:
        frames: (t, h, w, 3) uint8; of a picture or scene to start from just one.
        numbers: what the frames of the video are called, one for each of its frames; None: from 0 on.
        truth: the scene's clip, if there is one.
    """

    frames: Tensor
    numbers: Sequence[int] | None = None
    truth: MotionDepthClip | None = None


@dataclass(frozen=True)
class Job:
    """One video to make or to read.

    Attributes:
        name: its folder in the output, "" for the output itself.
        prompt: what the model is told.
        position: which noise it is read with; tools/evaluate.py counts the rows of its CSV in the same way.
        source: the picture, scene or video.
        load: reads it.
        scene: the scene, if it is one; whoever makes jobs checks all scenes together (`preflight.scene_findings`).
    """

    name: str
    prompt: str
    position: int
    source: str
    load: Callable[[], Source]
    scene: str | None = None


def picture_job(path: Path, size: tuple[int, int], prompt: str, name: str = "", position: int = 0) -> Job:
    """A video from a first frame. Raises ValueError if the file is no picture."""
    read_picture(path)

    def load() -> Source:
        return Source(to_size([read_picture(path)], size))

    return Job(name, prompt, position, str(path), load)


def scene_job(
    operator: LoadImageSequenceWithMotionWrapper,
    scene: str,
    whole: bool,
    prompt: str,
    name: str = "",
    position: int = 0,
) -> Job:
    """A video from the first frame of a scene's first clip, or that clip as a whole."""

    def load() -> Source:
        clip = operator(scene)
        return Source(clip.frames if whole else clip.frames[:1], clip.frame_ids.tolist(), clip)

    return Job(name, prompt, position, scene, load, scene)


def video_job(path: Path, size: tuple[int, int], num_frames: int, prompt: str) -> Job:
    """The first frames of a video file or of a folder of pictures. Raises ValueError if there are fewer."""
    found, numbers = read_frames(path)
    if len(found) < num_frames:
        raise ValueError(f"{path}: found {len(found)} frames, expected at least {num_frames} (--num_frames)")
    numbers = numbers[:num_frames]
    frames = to_size([Image.fromarray(frame) for frame in found[:num_frames]], size)
    used = "" if len(found) == num_frames else f" (frames {numbers[0]} to {numbers[-1]} of {len(found)})"
    return Job("", prompt, 0, f"{path}{used}", lambda: Source(frames, numbers))


def csv_jobs(
    path: Path, operator: LoadImageSequenceWithMotionWrapper | None, size: tuple[int, int], whole: bool
) -> list[Job]:
    """A job for each row of a CSV with the columns prompt and either image (relative to the CSV) or video (a scene).

    Raises:
        ValueError: names every row that cannot be used, a line each.
    """
    try:
        columns, rows = read_csv(path, needed=())
    except ValueError as error:
        raise ValueError(f"--csv {error}") from None
    if "prompt" not in columns or len({"image", "video"} & set(columns)) != 1 or not rows:
        found = ", ".join(columns) if rows else "no row"
        raise ValueError(f"--csv {path}: found {found}, expected the columns prompt and either image or video")
    source = "video" if "video" in columns else "image"
    if source == "video" and operator is None:
        raise ValueError(f"--csv {path} lists scenes: expected --dataset_base_path, their folder")
    if source == "image" and whole:
        raise ValueError(f"--csv {path} --reread: a picture has no motion; expected a column video with scenes")
    jobs, problems = [], []
    for position, row in enumerate(rows):
        try:
            jobs.append(_row_job(path, position, row, source, operator, size, whole))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
    return jobs


def _row_job(
    path: Path,
    position: int,
    row: dict[str, str],
    source: str,
    operator: LoadImageSequenceWithMotionWrapper | None,
    size: tuple[int, int],
    whole: bool,
) -> Job:
    if not row[source]:
        raise ValueError(f"--csv {path} row {position + 1}: found an empty {source}, expected a text")
    stem = (row[source] if source == "video" else Path(row[source]).stem).strip("./").replace("/", "_")
    name, prompt = f"{position:04d}_{stem}", row["prompt"]
    try:
        if source == "video":
            return scene_job(operator, row[source], whole, prompt, name, position)
        return picture_job(path.parent / row[source], size, prompt, name, position)
    except ValueError as error:
        raise ValueError(f"--csv {path} row {position + 1}: {error}") from None


def to_size(pictures: list[Image.Image], size: tuple[int, int]) -> Tensor:
    """Scales pictures of one size to cover a (height, width) and cuts out the centre; (t, h, w, 3) uint8."""
    crop = cover_crop((pictures[0].height, pictures[0].width), size)
    return torch.stack([torch.from_numpy(np.array(resize_image(picture, crop))) for picture in pictures])
