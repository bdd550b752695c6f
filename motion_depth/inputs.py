"""What a video is generated from, or which video is re-read: pictures, scenes, videos, and a CSV of many.

Inputs are looked at when a job is made, so that what cannot work says so before any model is loaded, and read when its
turn comes. Axes: t frame, h w pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from motion_depth.clips import LoadImageSequenceWithMotionWrapper, MotionDepthClip, resize_image
from motion_depth.csv_files import read_csv
from motion_depth.media import read_frames, read_picture
from motion_depth.motion import cover_crop

Load = Callable[[], tuple[Tensor, MotionDepthClip | None]]


@dataclass(frozen=True)
class Job:
    """One video to make or to read.

    Attributes:
        name: its folder in the output, "" for the output itself.
        prompt: what the model is told.
        position: which noise it is read with; tools/evaluate.py counts the rows of its CSV in the same way.
        source: the picture, scene or video.
        load: reads its frames (t, h, w, 3) uint8, of a picture to start from just one, and the clip of a scene.
    """

    name: str
    prompt: str
    position: int
    source: str
    load: Load


def picture_job(path: Path, size: tuple[int, int], prompt: str, name: str = "", position: int = 0) -> Job:
    """A video from a first frame. Raises ValueError if the file is no picture."""
    read_picture(path)

    def load() -> tuple[Tensor, None]:
        return to_size([read_picture(path)], size), None

    return Job(name, prompt, position, str(path), load)


def scene_job(
    operator: LoadImageSequenceWithMotionWrapper,
    scene: str,
    whole: bool,
    prompt: str,
    name: str = "",
    position: int = 0,
) -> Job:
    """A video from the first frame of a scene's first clip, or that clip as a whole. Raises ValueError."""
    operator.num_windows(scene)

    def load() -> tuple[Tensor, MotionDepthClip]:
        clip = operator(scene)
        return clip.frames if whole else clip.frames[:1], clip

    return Job(name, prompt, position, scene, load)


def video_job(path: Path, size: tuple[int, int], num_frames: int, prompt: str) -> Job:
    """The first frames of a video file or of a folder of pictures. Raises ValueError if there are fewer."""
    found = read_frames(path)
    if len(found) < num_frames:
        raise ValueError(f"{path}: found {len(found)} frames, expected at least {num_frames} (--num_frames)")
    frames = to_size([Image.fromarray(frame) for frame in found[:num_frames]], size)
    used = "" if len(found) == num_frames else f" (frames 0 to {num_frames - 1} of {len(found)})"
    return Job("", prompt, 0, f"{path}{used}", lambda: (frames, None))


def csv_jobs(
    path: Path, operator: LoadImageSequenceWithMotionWrapper | None, size: tuple[int, int], whole: bool
) -> list[Job]:
    """A job for each row of a CSV with the columns prompt and either image (relative to the CSV) or video (a scene).

    Raises:
        ValueError: names the row.
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
    return [_row_job(path, position, row, source, operator, size, whole) for position, row in enumerate(rows)]


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
