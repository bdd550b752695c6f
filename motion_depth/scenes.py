"""One scene on disk: find it, list its frames, read its files. Every inconsistency is a ValueError that names the file.

A scene is a folder that holds rgb/ (png or jpg), motion_vectors/ and distance_to_camera/ (npy). A file belongs to the
frame whose number ends its stem, whatever stands before it; the folder says what the file holds.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from PIL import Image

from motion_depth.findings import Finding, Severity, errors

try:
    import kornia_rs
except ImportError:  # no build for this machine: Pillow gives the same pixels, more slowly
    kornia_rs = None

RGB, MOTION, DEPTH = "rgb", "motion_vectors", "distance_to_camera"
SUFFIXES = {RGB: (".png", ".jpg", ".jpeg"), MOTION: (".npy",), DEPTH: (".npy",)}
# What Pillow turns into 8-bit RGB without losing range; 16-bit grey, for one, would be clipped.
IMAGE_MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "1")
HEADER_BYTES = 128  # of an npy file, with numpy's usual padding
FRAME_NUMBER = re.compile(r"[0-9]+$")


@dataclass(frozen=True)
class SceneIndex:
    """The files of one scene.

    Attributes:
        scene: folder relative to the base path, as asked for.
        frame_ids: frame numbers, ascending, without a gap.
        height, width: of every picture, motion and depth file, in pixels.
        rgb, motion, depth: each frame number's file.
    """

    scene: str
    frame_ids: tuple[int, ...]
    height: int
    width: int
    rgb: Mapping[int, Path]
    motion: Mapping[int, Path]
    depth: Mapping[int, Path]


def is_scene(folder: str | Path) -> bool:
    """Whether a folder holds the three subfolders."""
    return all(os.path.isdir(os.path.join(folder, name)) for name in SUFFIXES)


def find_scenes(base_path: str | Path) -> list[str]:
    """Every scene under a folder at any depth, relative to it, posix style, sorted; "." if it is a scene itself.

    Raises:
        ValueError: there is no such folder, a folder cannot be listed, or scenes lie behind a link that leaves it.
    """
    base = _base_folder(base_path)
    scenes = []
    for folder, links in _walk(base):
        if is_scene(folder):
            scenes.append(folder.relative_to(base).as_posix())
        for link in links:
            # A link that stays inside leads to scenes that are found anyway.
            target = link.resolve()
            if not target.is_relative_to(base) and any(is_scene(inner) for inner, _ in _walk(target)):
                raise ValueError(
                    f"{link}: a link to {target}, outside {base}; scenes must lie inside the dataset's folder. "
                    "Move them there, or give the folder that holds them"
                )
    return sorted(scenes)


def list_scene(base_path: str | Path, scene: str) -> tuple[dict[str, dict[int, Path]], list[Finding]]:
    """List a scene's files by kind (RGB, MOTION, DEPTH) and frame number, ascending, with all that is wrong with it.

    Looks at names only. Each finding is one that `index_scene` raises when it comes to it, or a note.
    """
    findings: list[Finding] = []

    def found(code: str, path: Path | str, message: str, severity: Severity = "error") -> None:
        findings.append(Finding(severity, code, message, scene, str(path)))

    try:
        folder = _scene_folder(base_path, scene)
    except ValueError as error:
        found("scene_folder", "", str(error))
        return {}, findings
    files = {name: _numbered_files(folder / name, suffixes, found) for name, suffixes in SUFFIXES.items()}
    if all(files.values()):
        _compare_frames(folder, files, found)
    return files, findings


def index_scene(base_path: str | Path, scene: str) -> SceneIndex:
    """List a scene's files and check their names; of their contents, one of each kind.

    Args:
        scene: folder relative to `base_path`, which it must not leave (by "..", as an absolute path, through a link).

    Raises:
        ValueError: names the file or folder, what was found and what was expected.
    """
    files, findings = list_scene(base_path, scene)
    if problems := errors(findings):
        raise ValueError(problems[0].message)
    frame_ids = tuple(files[RGB])
    height, width = picture_size(files[RGB][frame_ids[0]])
    # Read one file of each kind now: a whole scene in a wrong format should not wait for its turn to be found. Not the
    # first frame's motion, which may hold anything.
    middle = frame_ids[len(frame_ids) // 2]
    if len(frame_ids) > 1:
        read_motion(files[MOTION][middle], height, width)
    read_depth(files[DEPTH][middle], height, width)
    return SceneIndex(scene, frame_ids, height, width, files[RGB], files[MOTION], files[DEPTH])


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
    """One depth file, float32 (H, W), metres along the ray; 0 where nothing is there (inf, NaN, 0 or negative on disk).

    The file is float32 (H, W) or (H, W, 1); other floating types do as well. Raises ValueError, see `index_scene`.
    """
    depth = read_raw_depth(path, height, width)
    there = (depth > 0) & (depth < np.inf)
    if not there.all():
        depth[~there] = 0.0
    return depth


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


def _base_folder(base_path: str | Path) -> Path:
    base = Path(base_path)
    if not base.is_dir():
        raise ValueError(f"--dataset_base_path {base}: there is no such folder")
    return base.resolve()


def _scene_folder(base_path: str | Path, scene: str) -> Path:
    """The folder of a scene, after making sure that the name is one, and leads to a scene inside the base folder."""
    base = _base_folder(base_path)
    pure = PurePosixPath(scene)
    if not scene.strip() or "\0" in scene or pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"scene {scene!r}: expected a folder inside {base}, relative to it and without '..'")
    folder = base / pure
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such scene folder; the CSV's `video` is relative to {base}")
    for name in SUFFIXES:
        inner = folder / name
        if not inner.is_dir():
            raise ValueError(f"{folder}: has no folder {name}; a scene holds {', '.join(SUFFIXES)}")
        if not inner.resolve().is_relative_to(base):
            raise ValueError(f"{inner}: leads out of {base} through a link, to {inner.resolve()}")
    return folder


def _walk(top: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Folders under `top` with the links to folders in each; neither links nor the inside of scenes are entered."""

    def stop(error: OSError) -> None:
        raise ValueError(f"{error.filename}: cannot be listed ({error.strerror})")

    for name, folders, _ in os.walk(top, onerror=stop):
        folder = Path(name)
        yield folder, [folder / inner for inner in folders if (folder / inner).is_symlink()]
        if is_scene(folder):
            folders.clear()


def _numbered_files(folder: Path, suffixes: tuple[str, ...], found: Callable[..., None]) -> dict[int, Path]:
    """The folder's files with one of these suffixes, by frame number. Hidden and other files are not data."""
    files: dict[int, Path] = {}
    try:
        listed = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        found("folder_unreadable", folder, f"{folder}: cannot be listed ({error.strerror})")
        return {}
    data = [path for path in listed if path.suffix.lower() in suffixes]
    for path in data:
        number = FRAME_NUMBER.search(path.stem)
        if number is None:
            expected = f"expected one at the end, as in step_0007{path.suffix}"
            found("frame_number", path, f"{path}: found no frame number, {expected}")
        elif (frame := int(number.group())) in files:
            other = files[frame].name
            found("frame_twice", path, f"{path}: found frame {frame} twice, see {other}; expected one file a frame")
        else:
            files[frame] = path
    if not data:
        expected = f"found no {' or '.join(suffixes)} file, expected one for each frame"
        found("folder_empty", folder, f"{folder}: {expected}")
    elif others := [path.name for path in listed if path.suffix.lower() not in suffixes]:
        names = f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''}"
        found("file_ignored", folder, f"{folder}: {len(others)} entries are no data and are ignored: {names}", "note")
    return dict(sorted(files.items()))


def _compare_frames(folder: Path, files: Mapping[str, Mapping[int, Path]], found: Callable[..., None]) -> None:
    """Whether every kind has all frames, and none is left out between the first and the last."""
    everywhere = sorted(set().union(*files.values()))
    for name, its in files.items():
        if missing := [frame for frame in everywhere if frame not in its]:
            other = next(other for other, others in files.items() if missing[0] in others)
            found(
                "frame_missing",
                folder / name,
                f"{folder / name}: {_frames(missing)} missing, which {other} has; found {len(its)} frames, "
                f"expected the same frames in {', '.join(files)}",
            )
    expected = range(everywhere[0], everywhere[-1] + 1)
    if gap := sorted(set(expected) - set(everywhere)):
        found(
            "frame_gap",
            folder,
            f"{folder}: {_frames(gap)} missing between {everywhere[0]} and {everywhere[-1]}; expected numbers "
            "without a gap, because motion leads from each frame to the one before",
        )


def _frames(numbers: list[int]) -> str:
    """ "frame 7 is" or "frames 7, 8, 9, ... (12 in all) are"."""
    if len(numbers) == 1:
        return f"frame {numbers[0]} is"
    shown = ", ".join(str(number) for number in numbers[:3])
    return f"frames {shown}{f', ... ({len(numbers)} in all)' if len(numbers) > 3 else ''} are"


def _open_picture(path: Path, decode: bool) -> Image.Image:
    """The picture in its own mode, or only its size and mode. A broken file can raise anything in Pillow."""
    try:
        with Image.open(path) as image:
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
        with open(path, "rb", buffering=0) as file:
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
