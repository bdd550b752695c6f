"""Pictures and videos as files: whole or not there, and read completely or refused."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from PIL import Image
from torch import Tensor


def write_video(path: str | Path, frames: np.ndarray | Tensor, fps: float) -> None:
    """Write an .mp4 (h264, yuv420p) that browsers play; there is no file before it is complete.

    frames: (t, h, w, 3) uint8. Odd heights and widths, which yuv420p does not have, get their last line twice.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(f"{path}: found {frames.dtype} {frames.shape}, expected uint8 frames (t, h, w, 3)")
    if not fps > 0:
        raise ValueError(f"{path}: found {fps} frames per second, expected more than 0")
    height, width = frames.shape[1:3]
    frames = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    # Players take untagged video of some sizes for BT.709 and of others for BT.601: say which, or colours shift.
    tag = "scale=out_color_matrix=bt709,setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709"
    output = ["-crf", "16", "-vf", tag, "-movflags", "+faststart"]
    options = {"codec": "libx264", "pixelformat": "yuv420p", "macro_block_size": 1, "quality": None}
    with _complete_file(Path(path)) as file:
        iio.imwrite(file, frames, plugin="FFMPEG", fps=fps, output_params=output, **options)


def read_video(path: str | Path) -> np.ndarray:
    """All frames of a video, (t, h, w, 3) uint8. Raises ValueError if the file is none, or is cut off."""
    try:
        frames, header = iio.imread(path, plugin="FFMPEG"), iio.immeta(path, plugin="FFMPEG")
    except (OSError, IndexError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]  # ffmpeg's; all before is its banner
        raise ValueError(f"{path}: found no readable video, expected a file such as an .mp4 ({reason})") from error
    # ffmpeg decodes what is there of half a file. A tenth of a second is rounding, or sound that ends a little later.
    seconds, announced = len(frames) / header["fps"], header["duration"]
    if announced - seconds > 0.1 + 1 / header["fps"]:
        raise ValueError(f"{path}: found {seconds:.2f} s of pictures, expected {announced:.2f} s: the file is cut off")
    return frames


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Write a picture (h, w, 3) uint8; there is no file before it is complete."""
    with _complete_file(Path(path)) as file:
        Image.fromarray(picture).save(file, format="PNG")


@contextmanager
def _complete_file(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, renamed to `path` if all went well and removed if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
