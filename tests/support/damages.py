"""What can be wrong with a scene: each damage is done to a sound one, and must be found and named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from motion_depth.data.scene import DEPTH, MOTION, RGB

SCENE = "test_ball_collide/env_0/0/0"
FRAME = 9  # the one that a damage concerns


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


def shorten(scene: Path) -> None:
    for kind in (RGB, MOTION, DEPTH):
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
    ("a folder is empty", lambda s: [p.unlink() for p in files(s, MOTION)],
     "folder_empty", f"{SCENE}/motion_vectors: found no .npy file"),
    ("a picture is gone", lambda s: file(s, RGB).unlink(),
     "frame_missing", f"{SCENE}/rgb: frame 9 is missing, which motion_vectors has"),
    ("a motion file is gone", lambda s: file(s, MOTION).unlink(),
     "frame_missing", f"{SCENE}/motion_vectors: frame 9 is missing"),
    ("a depth file is gone", lambda s: file(s, DEPTH).unlink(),
     "frame_missing", f"{SCENE}/distance_to_camera: frame 9 is missing"),
    ("a picture too many", lambda s: shutil.copy(file(s, RGB), s / RGB / "rgb_0018.png"),
     "frame_missing", f"{SCENE}/motion_vectors: frame 18 is missing, which rgb has"),
    ("a screenshot", lambda s: shutil.copy(file(s, RGB), s / RGB / "screenshot_20261124.png"),
     "frame_stray", "screenshot_20261124.png: its frame number 20261124 is far from all others, 0 to 17"),
    ("a gap in all folders", lambda s: [file(s, kind).unlink() for kind in (RGB, MOTION, DEPTH)],
     "frame_gap", f"{SCENE}: frame 9 is missing between 0 and 17"),
    ("a number twice", lambda s: shutil.copy(file(s, DEPTH), s / DEPTH / "copy_9.npy"),
     "frame_twice", "distance_to_camera_0009.npy: found frame 9 twice, see copy_9.npy"),
    ("no number", lambda s: shutil.copy(file(s, DEPTH), s / DEPTH / "mean.npy"),
     "frame_number", "mean.npy: found no frame number"),
    ("other files", lambda s: (s / RGB / "Thumbs.db").write_text(""),
     "file_ignored", f"{SCENE}/rgb: 1 entries are no data and are ignored: Thumbs.db"),
    # contents
    ("a picture is cut off", lambda s: cut(file(s, RGB), 0.5), f"{RGB}_file", "rgb_0009.png: not readable"),
    ("a picture is empty", lambda s: cut(file(s, RGB), 0), f"{RGB}_file", "rgb_0009.png: not readable"),
    ("a picture is a pipe", lambda s: replace(file(s, RGB), os.mkfifo),
     f"{RGB}_file", "rgb_0009.png: not readable, expected an RGB picture (NotAFile: it is a named pipe"),
    ("a picture in 16-bit grey", lambda s: paint(s, lambda p: p[..., 0].astype(np.uint16) * 256, [FRAME]),
     f"{RGB}_file", "rgb_0009.png: found a picture of mode I;16"),
    ("a picture of another size", lambda s: paint(s, lambda p: p[:64], [FRAME]),
     f"{RGB}_file", "rgb_0009.png: found 64 x 96 (height x width), expected 96 x 96"),
    ("a motion file is cut off", lambda s: cut(file(s, MOTION), 0.5),
     f"{MOTION}_file", "motion_vectors_0009.npy: not readable"),
    ("a motion file is no npy", lambda s: copy(file(s, RGB), file(s, MOTION)),
     f"{MOTION}_file", "motion_vectors_0009.npy: not readable, expected an npy array"),
    ("a motion file is a folder", lambda s: replace(file(s, MOTION), Path.mkdir),
     f"{MOTION}_file", "motion_vectors_0009.npy: not readable, expected an npy array (NotAFile: it is a folder"),
    ("a motion file is a link to nothing", lambda s: replace(file(s, MOTION), lambda path: path.symlink_to("gone.npy")),
     f"{MOTION}_file", "motion_vectors_0009.npy: not readable, expected an npy array (NotAFile: it is a link to gone"),
    ("motion in integers", lambda s: change(s, MOTION, lambda m: m.astype(np.int16), [FRAME]),
     f"{MOTION}_file", "motion_vectors_0009.npy: found type int16, expected float32"),
    ("motion without channels", lambda s: change(s, MOTION, lambda m: m[..., 0], [FRAME]),
     f"{MOTION}_file", "motion_vectors_0009.npy: found an array of shape (96, 96), expected (96, 96, 4)"),
    ("motion, channels first", lambda s: change(s, MOTION, lambda m: np.moveaxis(m, -1, 0)),
     f"{MOTION}_file", "motion_vectors_0001.npy: found 4 x 96"),
    ("depth is cut off", lambda s: cut(file(s, DEPTH), 0.9),
     f"{DEPTH}_file", "distance_to_camera_0009.npy: not readable"),
    ("depth is a pipe", lambda s: replace(file(s, DEPTH), os.mkfifo),
     f"{DEPTH}_file", "distance_to_camera_0009.npy: not readable, expected an npy array (NotAFile: it is a named pipe"),
    ("depth of pickled objects", lambda s: save(file(s, DEPTH), np.array([{}], object), allow_pickle=True),
     f"{DEPTH}_file", "distance_to_camera_0009.npy: not readable"),
    ("depth in integers", lambda s: change(s, DEPTH, lambda d: np.ones_like(d, np.uint16)),
     f"{DEPTH}_file", "distance_to_camera_0000.npy: found type uint16"),
    ("depth of another size", lambda s: change(s, DEPTH, lambda d: d[:, :64], [FRAME]),
     f"{DEPTH}_file", "distance_to_camera_0009.npy: found 96 x 64"),
    # pictures
    ("all pictures black", lambda s: paint(s, lambda p: p // 64),
     "picture_black", f"{SCENE}/rgb: all 18 pictures are black"),
    ("a black picture", lambda s: paint(s, lambda p: p * 0, [FRAME]),
     "picture_black", "rgb_0009.png: found a picture that is black"),
    ("pictures of one colour", lambda s: paint(s, lambda p: p * 0 + 128),
     "picture_plain", f"{SCENE}/rgb: all 18 pictures are of one colour"),
    ("frozen pictures", lambda s: [copy(file(s, RGB, 5), p) for p in files(s, RGB)],
     "picture_frozen", f"{SCENE}/rgb: all pictures are the same"),
    ("a picture twice", lambda s: copy(file(s, RGB, FRAME - 1), file(s, RGB)),
     "picture_repeated", "rgb_0009.png: found the picture of the frame before"),
    # motion
    ("motion all zero", lambda s: change(s, MOTION, lambda m: m * 0),
     "motion_zero", f"{SCENE}/motion_vectors: the motion is all zero while the picture changes"),
    ("a motion file of zeros", lambda s: change(s, MOTION, lambda m: m * 0, [FRAME]),
     "motion_dropped", "motion_vectors_0009.npy: all vectors are zero"),
    ("a motion file twice", lambda s: copy(file(s, MOTION, FRAME - 1), file(s, MOTION)),
     "motion_repeated", "motion_vectors_0009.npy: found the vectors of the frame before"),
    ("motion not finite", lambda s: change(s, MOTION, lambda m: np.where(m != 0, np.nan, m), [FRAME]),
     "motion_not_finite", "motion_vectors_0009.npy: "),
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
     "depth_empty", "distance_to_camera_0009.npy: found no valid distance"),
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
     "depth_repeated", "distance_to_camera_0009.npy: found the distances of the frame before"),
    ("depth a frame late", lambda s: delay(s, DEPTH), "depth_offset", "the depth files are one frame late"),
    # scenes
    ("a scene too short", shorten, "scene_short", "found 15 frames, expected at least 17"),
    ("a scene twice", lambda s: shutil.copytree(s, s.parents[2] / "env_1/0/0"),
     "scenes_identical", "env_1/0/0: has the same pictures as test_ball_collide/env_0/0/0"),
)]
# fmt: on
