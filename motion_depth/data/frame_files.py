"""One frame's files: reading a picture, a motion file, a depth file, or only their headers.

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

RGB, MOTION, DEPTH = "rgb", "motion_vectors", "distance_to_camera"
# What Pillow turns into 8-bit RGB without losing range; 16-bit grey, for one, would be clipped.
IMAGE_MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "1")
HEADER_BYTES = 128  # of an npy file, with numpy's usual padding
# Metres between which a distance is that of something. Renderers write 1e10 and the like for the sky. Nearer than
# float16's smallest normal number (0.06 mm) a distance would lose its digits, and below half of 6e-8 become 0, where
# targets travel in float16.
NEAR_DEPTH, FAR_DEPTH = 2.0**-14, 60_000.0


def read_rgb(path: Path, height: int, width: int) -> Image.Image:
    """One picture in 8-bit RGB; grey becomes RGB, transparency is dropped. Raises ValueError, see `index_scene`."""
    image = _open_picture(path, decode=True)
    _expect_rgb(path, image, height, width)
    return image.convert("RGB")


def read_pixels(path: Path, height: int, width: int) -> np.ndarray:
    """`read_rgb` as an array, uint8 (H, W, 3), read-only; plain RGB in PNG is decoded by a faster library.

    Measured on rendered pictures of 480 x 480 on one core: 1.2 ms instead of Pillow's 3.0.
    """
    if kornia_rs is not None and _is_plain_png(path, height, width):
        # What it cannot read, Pillow reads after all, or says what is wrong with it.
        with contextlib.suppress(Exception):
            pixels = kornia_rs.io.read_image_png_u8(str(path), "rgb")
            if pixels.shape == (height, width, 3):
                return pixels
    return np.asarray(read_rgb(path, height, width))


def read_motion(path: Path, height: int, width: int) -> np.ndarray:
    """One motion file's first two channels, float32 (H, W, 2), as they are on disk: x and y, of any convention.

    The file is float32 (H, W, 4) as Replicator writes it; two channels or more and other floating types do as well.
    Raises ValueError, see `index_scene`.
    """
    motion = _read_array(path)
    _expect_motion(path, motion, height, width)
    return _to_float32(motion[..., :2])


def read_depth(path: Path, height: int, width: int) -> np.ndarray:
    """One depth file, float32 (H, W), metres along the ray; 0 where nothing is there (`is_there`).

    The file is float32 (H, W) or (H, W, 1); other floating types do as well. Raises ValueError, see `index_scene`.
    """
    depth = read_raw_depth(path, height, width)
    there = is_there(depth)
    if not there.all():
        depth[~there] = 0.0
    return depth


def is_there(depth: np.ndarray) -> np.ndarray:
    """Whether distances (...) as on disk are those of something: from NEAR_DEPTH on and below FAR_DEPTH; (...) bool.

    inf, NaN, 0, negative values and what lies beyond these two mean that nothing is there.
    """
    return (depth >= NEAR_DEPTH) & (depth < FAR_DEPTH)


def read_raw_depth(path: Path, height: int, width: int) -> np.ndarray:
    """`read_depth` with what stands for nothing left as it is on disk."""
    depth = _read_array(path)
    _expect_depth(path, depth, height, width)
    return _to_float32(depth.reshape(height, width))


def check_header(kind: str, path: Path, height: int, width: int) -> None:
    """Whether a file of a kind (RGB, MOTION, DEPTH) begins as it should; its data are not read.

    Raises ValueError with what `read_rgb`, `read_motion` or `read_depth` would say.
    """
    if kind == RGB:
        _expect_rgb(path, _open_picture(path, decode=False), height, width)
    else:
        expect = _expect_motion if kind == MOTION else _expect_depth
        expect(path, _read_array(path, mmap_mode="r"), height, width)


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width of a picture, from its header. Raises ValueError, see `index_scene`."""
    image = _open_picture(path, decode=False)
    return image.height, image.width


def _open_picture(path: Path, decode: bool) -> Image.Image:
    """The picture in its own mode, or only its size and mode. A broken file can raise anything in Pillow."""
    try:
        with Image.open(expect_file(path)) as image:
            if decode:
                image.load()
            return image
    except Exception as error:
        raise _unreadable(path, "an RGB picture", error) from None


def _read_array(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """A floating-point array from an npy file. A broken header can raise anything, from SyntaxError to MemoryError.

    Data are read, not mapped: a mapped file that shrinks would kill the process. `mmap_mode` is for the header alone.
    """
    try:
        expect_file(path)
        array = None if mmap_mode else _read_plain_array(path)
        if array is None:
            array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except Exception as error:
        raise _unreadable(path, "an npy array", error) from None
    if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.floating):
        found = f"type {array.dtype}" if isinstance(array, np.ndarray) else "an npz archive"
        raise ValueError(f"{path}: found {found}, expected float32")
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


def _is_plain_png(path: Path, height: int, width: int) -> bool:
    """Whether a file begins as a PNG of this size in 8-bit RGB, not interlaced."""
    expected = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0)
    try:
        with expect_file(path).open("rb", buffering=0) as file:
            return file.read(len(expected)) == expected
    except OSError:
        return False


def _expect_rgb(path: Path, image: Image.Image, height: int, width: int) -> None:
    _expect_size(path, (image.height, image.width), height, width)
    if image.mode not in IMAGE_MODES:
        raise ValueError(f"{path}: found a picture of mode {image.mode}, expected 8-bit RGB")


def _expect_motion(path: Path, motion: np.ndarray, height: int, width: int) -> None:
    if motion.ndim != 3 or motion.shape[2] < 2:
        raise ValueError(f"{path}: found an array of shape {motion.shape}, expected ({height}, {width}, 4)")
    _expect_size(path, motion.shape[:2], height, width)


def _expect_depth(path: Path, depth: np.ndarray, height: int, width: int) -> None:
    if depth.ndim != 2 and not (depth.ndim == 3 and depth.shape[2] == 1):
        raise ValueError(f"{path}: found an array of shape {depth.shape}, expected ({height}, {width})")
    _expect_size(path, depth.shape[:2], height, width)


def _to_float32(array: np.ndarray) -> np.ndarray:
    """In float32; float64 beyond its range becomes inf, which is invalid like any other inf."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def _expect_size(path: Path, found: tuple[int, int], height: int, width: int) -> None:
    if found != (height, width):
        raise ValueError(
            f"{path}: found {found[0]} x {found[1]} (height x width), expected {height} x {width} as the scene's first "
            "picture"
        )


def _unreadable(path: Path, what: str, error: Exception) -> ValueError:
    return ValueError(f"{path}: not readable, expected {what} ({type(error).__name__}: {error})")
