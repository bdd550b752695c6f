"""Pictures and videos as files: written whole or not at all, read completely or refused."""

import re
import subprocess
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe, get_ffmpeg_version
from PIL import Image
from torch import Tensor

from motion_depth.data import arrays
from motion_depth.data.findings import errors
from motion_depth.data.numbered_files import numbered_files
from motion_depth.files.atomic import complete_file, expect_file

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


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
    with complete_file(path) as file:
        iio.imwrite(file, frames, plugin="FFMPEG", fps=fps, output_params=output, **options)


def read_video(path: str | Path) -> np.ndarray:
    """All frames of a video in their order, each once, (t, h, w, 3) uint8; when they are shown plays no part.

    Raises ValueError if the file is none, or is cut off.
    """
    try:
        frames = iio.imread(expect_file(path), plugin="FFMPEG", output_params=_each_frame_once())
    except (OSError, IndexError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]  # ffmpeg's; all before is its banner
        raise ValueError(f"{path}: found no readable video, expected a file such as an .mp4 ({reason})") from error
    # ffmpeg decodes what is there of half a file, and shows only here that there should be more.
    copy = ["-v", "error", "-i", str(path), "-map", "0:v:0", "-c", "copy", "-f", "null", "-"]
    done = subprocess.run([get_ffmpeg_exe(), *copy], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, errors="replace")
    if done.returncode or done.stderr.strip():
        reason = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
        raise ValueError(f"{path}: found {len(frames)} frames and then an error: the file is cut off ({reason})")
    return frames


def _each_frame_once() -> list[str]:
    """ffmpeg's option for it; without, frames come at a constant rate, some of them often and others never."""
    version = re.search(r"([0-9]+)\.([0-9]+)", get_ffmpeg_version())
    is_old = version is not None and (int(version[1]), int(version[2])) < (5, 1)
    return ["-vsync" if is_old else "-fps_mode", "passthrough"]


def read_picture(path: str | Path) -> Image.Image:
    """A picture in RGB. Raises ValueError if the file is none, is cut off, or is of more than 8 bits a channel."""
    return Image.fromarray(arrays.read_picture(Path(path)))


def read_frames(path: str | Path) -> tuple[np.ndarray, list[int]]:
    """All frames of a video file, or of a folder of numbered pictures of one size.

    Returns:
        (t, h, w, 3) uint8, and the frames' numbers: those of the pictures' names, from 0 on in a video.

    Raises:
        ValueError: nothing is there, or a picture has no number, another's number, another size, or cannot be read.
    """
    path, findings = Path(path), []
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder, expected a video or a folder of pictures")
    if not path.is_dir():
        frames = read_video(path)
        return frames, list(range(len(frames)))
    files = numbered_files(path, PICTURES, "", findings)
    for problem in errors(findings):
        raise ValueError(problem.message)
    frames = {file: arrays.read_picture(file) for file in files.values()}
    (first, expected), *_ = frames.items()
    for file, frame in frames.items():
        if frame.shape != expected.shape:
            (height, width), (expected_height, expected_width) = frame.shape[:2], expected.shape[:2]
            size = f"{expected_height}x{expected_width} of {first.name}"
            raise ValueError(f"{file}: found {height}x{width} (height x width), expected the {size}")
    return np.stack(list(frames.values())), list(files)


def write_png(path: str | Path, picture: np.ndarray) -> None:
    """Write a picture (h, w, 3) uint8; there is no file before it is complete."""
    with complete_file(path) as file:
        Image.fromarray(picture).save(file, format="PNG")
