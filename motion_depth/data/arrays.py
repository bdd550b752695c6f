"""Reading one file of a frame, a picture or an npy array, or only its header.

Whatever is wrong with a file is a ValueError that names it, what was found and what was expected.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from motion_depth.files.atomic import expect_file

try:
    import kornia_rs  # decodes a picture of 480 x 480 in 1.2 ms instead of Pillow's 3.0
except ImportError:  # no build for this machine: Pillow gives the same pixels
    kornia_rs = None

# What Pillow turns into 8-bit RGB without losing range; 16-bit grey, for one, would be clipped.
IMAGE_MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "1")
UNUSUAL = {"interlace", "transparency"}  # in a PNG, which is left to Pillow


def read_picture(path: Path) -> np.ndarray:
    """A picture in 8-bit RGB, uint8 (H, W, 3), read-only; grey becomes RGB, transparency is dropped."""
    image = _open_picture(path, decode=False)
    if kornia_rs is not None and image.format == "PNG" and image.tile[0][-1] == "RGB" and not {*image.info} & UNUSUAL:
        # What it cannot read, Pillow reads after all, or says what is wrong with it.
        with contextlib.suppress(Exception):
            pixels = kornia_rs.io.read_image_png_u8(str(path), "rgb")
            if pixels.shape == (image.height, image.width, 3):
                return pixels
    return np.asarray(_open_picture(path, decode=True).convert("RGB"))


def picture_header(path: Path) -> tuple[tuple[int, int, int], np.dtype]:
    """Shape and type of what `read_picture` gives."""
    image = _open_picture(path, decode=False)
    return (image.height, image.width, 3), np.dtype(np.uint8)


def read_npy(path: Path) -> np.ndarray:
    """The array in an npy file.

    It is read, not mapped: a mapped file that shrinks would kill the process.
    """
    return _load(path)


def npy_header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of what `read_npy` gives; a file too short for them is an error."""
    array = _load(path, mmap_mode="r")
    return array.shape, array.dtype


def _open_picture(path: Path, decode: bool) -> Image.Image:
    """The picture in its own mode, or only its size and mode. A broken file can raise anything in Pillow."""
    try:
        with Image.open(expect_file(path)) as image:
            if decode:
                image.load()
    except Exception as error:
        raise _unreadable(path, "an RGB picture", error) from None
    if image.mode not in IMAGE_MODES:
        raise ValueError(f"{path}: found a picture of mode {image.mode}, expected 8-bit RGB")
    return image


def _load(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """A broken header can raise anything, from SyntaxError to MemoryError."""
    try:
        array = np.load(expect_file(path), mmap_mode=mmap_mode, allow_pickle=False)
    except Exception as error:
        raise _unreadable(path, "an npy array", error) from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: found an npz archive, expected float32")
    return array


def _unreadable(path: Path, what: str, error: Exception) -> ValueError:
    return ValueError(f"{path}: not readable, expected {what} ({type(error).__name__}: {error})")
