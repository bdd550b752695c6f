"""What can be wrong with a scene: each damage is done to a sound one, and must be named by the check and on reading."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from motion_depth.data.scene import DEPTH, KINDS, MOTION, RGB

SCENE = "test_ball_collide/env_0/0/0"
FRAME = 11  # the one that a damage concerns; not the middle one, which is read first

# By names, headers and lengths, which the check before training must find too, in the same words.
IN_HEADERS = {"folder_empty", "frame_missing", "frame_gap", "frame_stray", "frame_twice", "frame_number",
              "file_ignored", f"{MOTION}_file", f"{DEPTH}_file", "scene_short"}  # fmt: skip
ON_READING = IN_HEADERS - {"file_ignored", "scene_short"} | {f"{RGB}_file", "scene_incomplete"}


def file(scene: Path, kind: str, frame: int = FRAME) -> Path:
    return sorted((scene / kind).iterdir())[frame]


def files(scene: Path, kind: str) -> list[Path]:
    return sorted((scene / kind).iterdir())


def copy(source: Path, target: Path) -> None:
    """A new file in place of one that other scenes may share."""
    data = source.read_bytes()
    target.unlink(missing_ok=True)
    target.write_bytes(data)


def replace(path: Path, make: Callable[[Path], object]) -> None:
    """Something else in place of a file."""
    path.unlink()
    make(path)


def save(path: Path, array: np.ndarray, **options: object) -> None:
    path.unlink()
    np.save(path, array, **options)


def change(scene: Path, kind: str, how: Callable[[np.ndarray], np.ndarray], frames: list[int] | None = None) -> None:
    for number, path in enumerate(files(scene, kind)):
        if frames is None or number in frames:
            save(path, how(np.load(path)))


def paint(scene: Path, how: Callable[[np.ndarray], np.ndarray], frames: list[int] | None = None) -> None:
    for number, path in enumerate(files(scene, RGB)):
        if frames is None or number in frames:
            picture = Image.fromarray(how(np.array(Image.open(path))))
            path.unlink()
            picture.save(path)


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: int(len(data) * share)])


def delay(scene: Path, kind: str) -> None:
    """Every frame's file takes the content of the frame before."""
    paths = files(scene, kind)
    for later, earlier in zip(reversed(paths[1:]), reversed(paths[:-1]), strict=True):
        copy(earlier, later)


def renumber(scene: Path, frame: int, number: int) -> None:
    """Gives a frame another number, in all folders."""
    for kind in KINDS:
        (path,) = (scene / kind).glob(f"*{frame:04d}.*")
        path.rename(path.with_stem(path.stem.removesuffix(f"{frame:04d}") + f"{number:04d}"))


def shorten(scene: Path) -> None:
    for kind in KINDS:
        for path in files(scene, kind)[2:5]:
            path.unlink()


def to_image_plane(depth: np.ndarray) -> np.ndarray:
    """Of the demo scenes' cameras, roughly: any field of view gives depth that is not along the ray."""
    height, width = depth.shape
    y, x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    focal = width / 2 / np.tan(np.radians(41.5669) / 2)
    return (depth / np.hypot(1, np.hypot(x, y) / focal)).astype(np.float32)


class Damage(NamedTuple):
    """What is done to a scene, and the finding that must name it: its code, and what its message contains."""

    name: str
    do: Callable[[Path], object]
    code: str
    says: str


def nothing_behind(depth: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(depth), depth, np.float32(10_000))


# fmt: off
DAMAGES = [Damage(*row) for row in (
    # names and numbers
    ("a folder is gone", lambda s: shutil.rmtree(s / DEPTH),
     "scene_incomplete", f"{SCENE}: holds rgb, motion_vectors but not distance_to_camera"),
    ("a folder is empty", lambda s: [p.unlink() for p in files(s, RGB)],
     "folder_empty", f"{SCENE}/rgb: found no .png or .jpg or .jpeg file, expected one for each frame"),
    ("a picture is gone", lambda s: file(s, RGB).unlink(),
     "frame_missing", f"{SCENE}/rgb: frame 11 is missing, which motion_vectors has; found 17 frames"),
    ("a motion file is gone", lambda s: file(s, MOTION).unlink(),
     "frame_missing", f"{SCENE}/motion_vectors: frame 11 is missing"),
    ("six depth files are gone", lambda s: [path.unlink() for path in files(s, DEPTH)[2:8]],
     "frame_missing", f"{SCENE}/distance_to_camera: frames 2, 3, 4, ... (6 in all) are missing, which rgb has; found "
     "12 frames, expected the same frames in rgb, motion_vectors, distance_to_camera"),
    ("a picture too many", lambda s: shutil.copy(file(s, RGB), s / RGB / "rgb_0018.png"),
     "frame_missing", f"{SCENE}/motion_vectors: frame 18 is missing, which rgb has"),
    ("a screenshot", lambda s: shutil.copy(file(s, RGB), s / RGB / "screenshot_20261124.png"),
     "frame_stray", "screenshot_20261124.png: its frame number 20261124 is far from all others, 0 to 17"),
    ("a frame renumbered", lambda s: renumber(s, 7, 10**9),
     "frame_stray", "rgb/rgb_1000000000.png: its frame number 1000000000 is far from all others, 0 to 17"),
    ("all but one frame renumbered", lambda s: [renumber(s, frame, 10**9 + frame) for frame in range(1, 18)],
     "frame_stray", "rgb/rgb_0000.png: its frame number 0 is far from all others, 1000000001 to 1000000017"),
    ("two halves far apart", lambda s: [renumber(s, frame, 10**9 + frame) for frame in range(9, 18)],
     "frame_gap", f"{SCENE}: frames 9, 10, 11, ... (1000000000 in all) are missing between 0 and 1000000017; expected"),
    ("two halves a little apart", lambda s: [renumber(s, frame, 5 + frame) for frame in reversed(range(9, 18))],
     "frame_gap", f"{SCENE}: frames 9, 10, 11, ... (5 in all) are missing between 0 and 22; expected numbers"),
    ("a gap in all folders", lambda s: [file(s, kind).unlink() for kind in KINDS],
     "frame_gap", f"{SCENE}: frame 11 is missing between 0 and 17"),
    ("a number twice", lambda s: shutil.copy(file(s, DEPTH), s / DEPTH / "copy_11.npy"),
     "frame_twice", "distance_to_camera_0011.npy: found frame 11 twice, see copy_11.npy"),
    ("no number", lambda s: shutil.copy(file(s, DEPTH), s / DEPTH / "mean.npy"),
     "frame_number", "mean.npy: found no frame number, expected one at the end"),
    ("a number beyond all", lambda s: shutil.copy(file(s, RGB), s / RGB / f"{'9' * 40}.png"),
     "frame_number", "9.png: found a frame number of 40 digits, expected at most 18"),
    ("other files", lambda s: (s / RGB / "Thumbs.db").write_text(""),
     "file_ignored", f"{SCENE}/rgb: 1 entries are no data and are ignored: Thumbs.db"),
    # contents
    ("a picture is cut off", lambda s: cut(file(s, RGB), 0.5), f"{RGB}_file", "rgb_0011.png: not readable"),
    ("a picture is empty", lambda s: cut(file(s, RGB), 0), f"{RGB}_file", "rgb_0011.png: not readable"),
    ("a picture is a pipe", lambda s: replace(file(s, RGB), os.mkfifo),
     f"{RGB}_file", "rgb_0011.png: not readable, expected an RGB picture (NotAFile: it is a named pipe"),
    ("a picture in 16-bit grey", lambda s: paint(s, lambda p: p[..., 0].astype(np.uint16) * 256, [FRAME]),
     f"{RGB}_file", "rgb_0011.png: found a picture of mode I;16, expected 8-bit RGB"),
    ("the first picture is text", lambda s: replace(file(s, RGB, 0), lambda path: path.write_text("hello")),
     f"{RGB}_file", "rgb_0000.png: not readable, expected an RGB picture (UnidentifiedImageError"),
    ("the first picture is of another size", lambda s: paint(s, lambda p: p[:, :48], [0]),
     f"{MOTION}_file", ".npy: found 96 x 96 (height x width), expected 96 x 48"),
    ("a picture of another size", lambda s: paint(s, lambda p: p[:64], [FRAME]),
     f"{RGB}_file", "rgb_0011.png: found 64 x 96 (height x width), expected 96 x 96"),
    ("a motion file is cut off", lambda s: cut(file(s, MOTION), 0.5),
     f"{MOTION}_file", "motion_vectors_0011.npy: not readable"),
    ("a motion file is no npy", lambda s: copy(file(s, RGB), file(s, MOTION)),
     f"{MOTION}_file", "motion_vectors_0011.npy: not readable, expected an npy array"),
    ("motion in integers", lambda s: change(s, MOTION, lambda m: m.astype(np.int16), [FRAME]),
     f"{MOTION}_file", "motion_vectors_0011.npy: found type int16, expected float32"),
    ("motion without channels", lambda s: change(s, MOTION, lambda m: m[..., 0], [FRAME]),
     f"{MOTION}_file", "motion_vectors_0011.npy: found an array of shape (96, 96), expected (96, 96, 4)"),
    ("motion with one channel", lambda s: change(s, MOTION, lambda m: m[..., :1], [FRAME]),
     f"{MOTION}_file", "motion_vectors_0011.npy: found an array of shape (96, 96, 1), expected (96, 96, 4)"),
    ("motion, channels first", lambda s: change(s, MOTION, lambda m: np.moveaxis(m, -1, 0)),
     f"{MOTION}_file", ".npy: found 4 x 96"),
    ("empty motion after the first frame", lambda s: change(s, MOTION, lambda m: m[:0, 0, 0], [FRAME]),
     f"{MOTION}_file", "motion_vectors_0011.npy: found an array of shape (0,)"),
    ("depth is cut off", lambda s: cut(file(s, DEPTH), 0.9),
     f"{DEPTH}_file", "distance_to_camera_0011.npy: not readable"),
    ("depth of pickled objects", lambda s: save(file(s, DEPTH), np.array([{}], object), allow_pickle=True),
     f"{DEPTH}_file", "distance_to_camera_0011.npy: not readable, expected an npy array (ValueError: "),
    ("depth in an archive", lambda s: replace(file(s, DEPTH), lambda path: np.savez(path.open("wb"), np.zeros(3))),
     f"{DEPTH}_file", "distance_to_camera_0011.npy: found an npz archive, expected float32"),
    ("depth in integers", lambda s: change(s, DEPTH, lambda d: np.ones_like(d, np.uint16), [FRAME]),
     f"{DEPTH}_file", "distance_to_camera_0011.npy: found type uint16, expected float32"),
    ("depth of three channels", lambda s: change(s, DEPTH, lambda d: np.stack([d] * 3, -1), [FRAME]),
     f"{DEPTH}_file", "distance_to_camera_0011.npy: found an array of shape (96, 96, 3)"),
    ("depth of another size", lambda s: change(s, DEPTH, lambda d: d[:, :64], [FRAME]),
     f"{DEPTH}_file", "distance_to_camera_0011.npy: found 96 x 64"),
    # pictures
    ("all pictures black", lambda s: paint(s, lambda p: p // 64),
     "picture_black", f"{SCENE}/rgb: all 18 pictures are black"),
    ("a black picture", lambda s: paint(s, lambda p: p * 0, [FRAME]),
     "picture_black", "rgb_0011.png: found a picture that is black"),
    ("pictures of one colour", lambda s: paint(s, lambda p: p * 0 + 128),
     "picture_plain", f"{SCENE}/rgb: all 18 pictures are of one colour"),
    ("frozen pictures", lambda s: [copy(file(s, RGB, 5), p) for p in files(s, RGB)],
     "picture_frozen", f"{SCENE}/rgb: all pictures are the same"),
    ("a picture twice", lambda s: copy(file(s, RGB, FRAME - 1), file(s, RGB)),
     "picture_repeated", "rgb_0011.png: found the picture of the frame before"),
    # motion
    ("motion all zero", lambda s: change(s, MOTION, lambda m: m * 0),
     "motion_zero", f"{SCENE}/motion_vectors: the motion is all zero while the picture changes"),
    ("a motion file of zeros", lambda s: change(s, MOTION, lambda m: m * 0, [FRAME]),
     "motion_dropped", "motion_vectors_0011.npy: all vectors are zero"),
    ("a motion file twice", lambda s: copy(file(s, MOTION, FRAME - 1), file(s, MOTION)),
     "motion_repeated", "motion_vectors_0011.npy: found the vectors of the frame before"),
    ("motion not finite", lambda s: change(s, MOTION, lambda m: np.where(m != 0, np.nan, m), [FRAME]),
     "motion_not_finite", "motion_vectors_0011.npy: "),
    ("motion a frame late", lambda s: delay(s, MOTION),
     "convention", "the motion files are one frame late. Pass --motion_frame_offset 1"),
    ("motion of the other sign", lambda s: change(s, MOTION, lambda m: -m),
     "convention", "Pass --motion_direction forward"),
    ("motion of another scene", lambda s: change(s, MOTION, lambda m: np.roll(m[::-1, ::-1], 40, axis=(0, 1))),
     "convention_unexplained", "no motion convention explains"),
    # depth
    ("nothing in all depth", lambda s: change(s, DEPTH, lambda d: d * np.inf),
     "depth_nothing", f"{SCENE}/distance_to_camera: no file holds a valid distance"),
    ("nothing in a depth file", lambda s: change(s, DEPTH, np.zeros_like, [FRAME]),
     "depth_empty", "distance_to_camera_0011.npy: found no valid distance"),
    ("hardly any depth",
     lambda s: change(s, DEPTH, lambda d: np.where(np.arange(96)[:, None] < 94, np.inf, d).astype(np.float32)),
     "depth_sparse", "of the pixels hold a valid distance"),
    ("a far value for nothing", lambda s: change(s, DEPTH, nothing_behind),
     "depth_far_constant", "hold exactly 10000, far behind all others"),
    ("a distance beyond all for nothing, everywhere", lambda s: change(s, DEPTH, lambda d: np.full_like(d, 1e10)),
     "depth_nothing", f"{SCENE}/distance_to_camera: no file holds a valid distance, from 0.061 mm to 60 km"),
    ("negative depth", lambda s: change(s, DEPTH, lambda d: np.where(np.isfinite(d), d, np.float32(-1))),
     "depth_negative", "found negative distances"),
    ("depth of one value", lambda s: change(s, DEPTH, lambda d: np.full_like(d, 2)),
     "depth_flat", "all distances of a file are the same, such as 2"),
    ("depth in millimetres", lambda s: change(s, DEPTH, lambda d: d * 1000), "depth_unit", "it looks like millimetres"),
    ("depth along the axis", lambda s: change(s, DEPTH, to_image_plane),
     "depth_image_plane", "distance to the image plane, not to the camera"),
    ("frozen depth", lambda s: [copy(file(s, DEPTH, 5), p) for p in files(s, DEPTH)],
     "depth_frozen", f"{SCENE}/distance_to_camera: all files are the same"),
    ("a depth file twice", lambda s: copy(file(s, DEPTH, FRAME - 1), file(s, DEPTH)),
     "depth_repeated", "distance_to_camera_0011.npy: found the distances of the frame before"),
    ("depth a frame late", lambda s: delay(s, DEPTH), "depth_offset", "the depth files are one frame late"),
    # scenes
    ("a scene too short", shorten, "scene_short", "found 15 frames, expected at least 17"),
    ("a scene twice", lambda s: shutil.copytree(s, s.parents[2] / "env_1/0/0"),
     "scenes_identical", "env_1/0/0: has the same pictures as test_ball_collide/env_0/0/0"),
)]
# fmt: on
