"""Reading one file of a frame, a picture or an npy array, or only its header.

Whatever is wrong with a file is a ValueError that names it, what was found and what was expected.
"""

from __future__ import annotations

import contextlib
import io
import struct
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from motion_depth.files.atomic import expect_file

try:
    import kornia_rs
except ImportError:  # no build for this machine: Pillow gives the same pixels, more slowly
    kornia_rs = None

# What Pillow turns into 8-bit RGB without losing range; 16-bit grey, for one, would be clipped.
IMAGE_MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "1")
HEADER_BYTES = 128  # of an npy file, with numpy's usual padding


def read_picture(path: Path) -> np.ndarray:
    """A picture in 8-bit RGB, uint8 (H, W, 3), read-only; grey becomes RGB, transparency is dropped.

    Plain RGB in PNG is decoded by a faster library: on rendered pictures of 480 x 480, in 1.2 ms instead of Pillow's
    3.0 on one core.
    """
    if kornia_rs is not None and (size := _plain_png_size(path)):
        # What it cannot read, Pillow reads after all, or says what is wrong with it.
        with contextlib.suppress(Exception):
            pixels = kornia_rs.io.read_image_png_u8(str(path), "rgb")
            if pixels.shape == (*size, 3):
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
        expect_file(path)
        array = None if mmap_mode else _read_plain_array(path)
        if array is None:
            array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except Exception as error:
        raise _unreadable(path, "an npy array", error) from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: found an npz archive, expected float32")
    return array


def _read_plain_array(path: Path) -> np.ndarray | None:
    """What `np.load` gives for a whole file with the usual header; None for any other, which is left to it."""
    with open(path, "rb", buffering=0) as file:
        if (layout := _plain_layout(file.read(HEADER_BYTES))) is None:
            return None
        array = np.empty(*layout)
        return array if file.readinto(memoryview(array).cast("B")) == array.nbytes else None


@lru_cache(maxsize=64)
def _plain_layout(header: bytes) -> tuple[tuple[int, ...], np.dtype] | None:
    """Shape and type that an npy file's first bytes announce, if they are a whole header of a plain array.

    A scene's files share one header, and reading it takes longer than reading a depth map.
    """
    try:
        file = io.BytesIO(header)
        if np.lib.format.read_magic(file) != (1, 0):
            return None
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    except ValueError:
        return None
    plain = file.tell() == HEADER_BYTES and not fortran_order and not dtype.hasobject and 0 not in shape and shape
    return (shape, dtype) if plain else None


def _plain_png_size(path: Path) -> tuple[int, int] | None:
    """Height and width of a PNG in 8-bit RGB, not interlaced; None of any other file."""
    try:
        with expect_file(path).open("rb", buffering=0) as file:
            header = file.read(29)
    except OSError:
        return None
    if len(header) < 29 or header[:16] != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" or header[24:] != b"\x08\x02\0\0\0":
        return None
    width, height = struct.unpack(">II", header[16:24])
    return height, width


def _unreadable(path: Path, what: str, error: Exception) -> ValueError:
    return ValueError(f"{path}: not readable, expected {what} ({type(error).__name__}: {error})")
