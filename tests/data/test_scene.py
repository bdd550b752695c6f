"""One scene on disk: which folders are scenes, which names may be read, and what each kind of bad data says."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motion_depth.data.layouts import find_scenes, list_scene, open_scene
from motion_depth.data.layouts.isaac_sim import IsaacSimScene
from motion_depth.data.scene import DEPTH as DISTANCES
from motion_depth.data.scene import MOTION as VECTORS
from tests.support.scene_files import FRAMES, HEIGHT, WIDTH, plain_scene

MOTION, DEPTH = "motion_vectors/motion_vectors_{:04d}.npy", "distance_to_camera/{:04d}.npy"


@pytest.fixture
def scene(tmp_path) -> Path:
    return plain_scene(tmp_path / "data/ball/env_0")


def read_all(folder: Path) -> None:
    """Open a scene and read every file, as loading all of its clips would."""
    opened = open_scene(folder.parents[1], "ball/env_0")
    for frame in opened.frame_ids:
        opened.rgb(frame)
        opened.depth(frame)
        if frame != opened.frame_ids[0]:
            opened.motion(frame)


def one_array(folder: Path, array: np.ndarray) -> IsaacSimScene:
    """A scene of one frame, whose depth and motion are the same file."""
    np.save(folder / "1.npy", array)
    Image.new("RGB", array.shape[1::-1]).save(folder / "1.png")
    files = {"rgb": "1.png", VECTORS: "1.npy", DISTANCES: "1.npy"}
    return IsaacSimScene("s", {kind: {1: folder / name} for kind, name in files.items()})


# --- finding ----------------------------------------------------------------------------------------------------------


def test_scenes_are_found_at_any_depth_in_order(tmp_path):
    for name in ("b/env_0/0/0", "a/env_1", "a/env_0", "c"):
        plain_scene(tmp_path / name, frames=2, size=(4, 4))
    (tmp_path / "almost/rgb").mkdir(parents=True)
    (tmp_path / "almost/motion_vectors").mkdir()
    (tmp_path / "again").symlink_to(tmp_path / "b")
    assert find_scenes(tmp_path) == ["a/env_0", "a/env_1", "b/env_0/0/0", "c"]
    assert find_scenes(tmp_path / "c") == ["."]
    assert open_scene(tmp_path / "c", ".").frame_ids == (0, 1)
    assert find_scenes(tmp_path / "almost") == []


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"--dataset_base_path .*/nowhere: there is no such folder"):
        find_scenes(tmp_path / "nowhere")


def test_scenes_behind_a_link_out_of_the_folder_are_an_error_not_left_out(tmp_path):
    plain_scene(tmp_path / "elsewhere/ball", frames=2, size=(4, 4))
    (tmp_path / "other").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/notes").symlink_to(tmp_path / "other")
    assert find_scenes(tmp_path / "data") == []
    (tmp_path / "data/more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"/data/more: a link to .*/elsewhere, outside"):
        find_scenes(tmp_path / "data")


def test_an_index_lists_every_frame(scene):
    for stray in ("notes.txt", ".DS_Store", "._step_0003.png"):
        (scene / "rgb" / stray).write_text("not data")
    opened = open_scene(scene.parents[1], "ball/env_0")
    assert opened.frame_ids == tuple(range(FRAMES))
    assert (opened.height, opened.width) == (HEIGHT, WIDTH)
    assert opened.files["rgb"][7].name == "step_0007.png"
    assert opened.files[VECTORS][7].name == "motion_vectors_0007.npy"
    assert opened.files[DISTANCES][7].name == "0007.npy"


def test_frames_are_matched_by_number_whatever_the_names(tmp_path):
    folder = plain_scene(tmp_path / "s", frames=3, first=9, size=(8, 8))
    (folder / "rgb/step_0010.png").rename(folder / "rgb/cam2_frame10.PNG")
    picture = Image.open(folder / "rgb/step_0011.png")
    picture.save(folder / "rgb/000011.jpg")
    (folder / "rgb/step_0011.png").unlink()
    opened = open_scene(tmp_path, "s")
    assert opened.frame_ids == (9, 10, 11)
    assert [opened.files["rgb"][frame].name for frame in (10, 11)] == ["cam2_frame10.PNG", "000011.jpg"]


@pytest.mark.parametrize("name", ["../data/ball/env_0", "ball/../ball/env_0", "", " ", "a\0b"])
def test_a_name_that_is_no_path_inside_the_folder_is_refused(scene, name):
    with pytest.raises(ValueError, match=r"expected a folder inside .*, relative to it and without"):
        open_scene(scene.parents[1], name)


def test_an_absolute_name_is_refused(scene):
    with pytest.raises(ValueError, match="expected a folder inside"):
        open_scene(scene.parents[1], str(scene))


@pytest.mark.parametrize("link", ["ball/linked", "ball/env_1/rgb"])
def test_a_link_out_of_the_folder_is_refused(tmp_path, link):
    plain_scene(tmp_path / "secret", frames=2, size=(8, 8))
    base = tmp_path / "data"
    for name in ("motion_vectors", "distance_to_camera"):
        (base / "ball/env_1" / name).mkdir(parents=True)
    (base / link).symlink_to(tmp_path / "secret" / ("rgb" if link.endswith("rgb") else ""))
    with pytest.raises(ValueError, match=r"leads out of .* through a link, to .*secret"):
        open_scene(base, "ball/linked" if link.endswith("linked") else "ball/env_1")


# --- bad data ---------------------------------------------------------------------------------------------------------


def array(path: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda scene: np.save(scene / path, change(np.load(scene / path)))


def picture(path: str, change: Callable[[Image.Image], Image.Image]) -> Callable[[Path], None]:
    def apply(scene: Path) -> None:
        with Image.open(scene / path) as image:
            image.load()
        change(image).save(scene / path)

    return apply


def remove(*paths: str) -> Callable[[Path], None]:
    return lambda scene: [(scene / path).unlink() for path in paths]


def cut(path: str, size: int) -> Callable[[Path], None]:
    return lambda scene: (scene / path).write_bytes((scene / path).read_bytes()[:size])


def copy(source: str, target: str) -> Callable[[Path], None]:
    return lambda scene: (scene / target).write_bytes((scene / source).read_bytes())


def rename(frame: int, number: int) -> Callable[[Path], None]:
    """Gives a frame another number, in all three folders."""

    def apply(scene: Path) -> None:
        for name in ("rgb/step_{:04d}.png", MOTION, DEPTH):
            (scene / name.format(frame)).rename(scene / name.format(number))

    return apply


RGB7, MOTION7, DEPTH7 = "rgb/step_0007.png", MOTION.format(7), DEPTH.format(7)
BAD_DATA = {
    "frame without picture": (remove(RGB7), "rgb: frame 7 is missing, which motion_vectors has; found 11 frames"),
    "frame without motion": (remove(MOTION7), "motion_vectors: frame 7 is missing, which rgb has"),
    "frames without depth": (
        remove(*(DEPTH.format(frame) for frame in range(2, 8))),
        "distance_to_camera: frames 2, 3, 4, ... (6 in all) are missing, which rgb has; found 6 frames, expected the "
        "same frames in rgb, motion_vectors, distance_to_camera",
    ),
    "gap": (
        remove(RGB7, MOTION7, DEPTH7),
        "env_0: frame 7 is missing between 0 and 11; expected numbers without",
    ),
    "a picture of another day": (
        copy(RGB7, "rgb/screenshot_20261124.png"),
        "rgb/screenshot_20261124.png: its frame number 20261124 is far from all others, 0 to 11. Move away",
    ),
    "a picture with a time stamp": (
        copy(RGB7, "rgb/shot-20261124093015.png"),
        "its frame number 20261124093015 is far",
    ),
    "a picture with a number beyond all": (
        copy(RGB7, f"rgb/{'9' * 40}.png"),
        "9.png: found a frame number of 40 digits, expected at most 18",
    ),
    "a frame renumbered": (
        rename(7, 10**9),
        "rgb/step_1000000000.png: its frame number 1000000000 is far from all others, 0 to 11",
    ),
    "a frame renumbered downwards": (
        lambda scene: [rename(frame, 10**9 + frame)(scene) for frame in range(1, FRAMES)],
        "rgb/step_0000.png: its frame number 0 is far from all others, 1000000001 to 1000000011",
    ),
    "two halves far apart": (
        lambda scene: [rename(frame, 10**9 + frame)(scene) for frame in range(6, FRAMES)],
        "env_0: frames 6, 7, 8, ... (1000000000 in all) are missing between 0 and 1000000011; expected numbers",
    ),
    "two halves a little apart": (
        lambda scene: [rename(frame, 5 + frame)(scene) for frame in reversed(range(6, FRAMES))],
        "env_0: frames 6, 7, 8, ... (5 in all) are missing between 0 and 16; expected numbers",
    ),
    "two files of a frame": (copy(RGB7, "rgb/7.jpg"), "step_0007.png: found frame 7 twice, see 7.jpg"),
    "no number": (copy(RGB7, "rgb/cover.png"), "cover.png: found no frame number, expected one at the end"),
    "no pictures": (
        remove(*(f"rgb/step_{frame:04d}.png" for frame in range(FRAMES))),
        "rgb: found no .png or .jpg or .jpeg file, expected one for each frame",
    ),
    "cut picture": (cut(RGB7, 900), "step_0007.png: not readable, expected an RGB picture (OSError"),
    "empty picture": (cut(RGB7, 0), "step_0007.png: not readable, expected an RGB picture"),
    "first picture is text": (
        lambda scene: (scene / "rgb/step_0000.png").write_text("hello"),
        "step_0000.png: not readable, expected an RGB picture (UnidentifiedImageError",
    ),
    "16-bit grey": (
        picture(RGB7, lambda image: Image.fromarray(np.zeros(image.size[::-1], np.uint16))),
        "step_0007.png: found a picture of mode I;16, expected 8-bit RGB",
    ),
    "picture of another size": (
        picture(RGB7, lambda image: image.resize((48, 64))),
        "step_0007.png: found 64 x 48 (height x width), expected 64 x 96 as the scene's first picture",
    ),
    "first picture of another size": (
        picture("rgb/step_0000.png", lambda image: image.resize((48, 64))),
        "motion_vectors_0006.npy: found 64 x 96 (height x width), expected 64 x 48",
    ),
    "motion of another size": (array(MOTION7, lambda a: a[:, :-1]), "motion_vectors_0007.npy: found 64 x 95"),
    "motion with one channel": (
        array(MOTION7, lambda a: a[..., :1]),
        "motion_vectors_0007.npy: found an array of shape (64, 96, 1), expected (64, 96, 4)",
    ),
    "motion without channels": (array(MOTION7, lambda a: a[..., 0]), "found an array of shape (64, 96), expected"),
    "empty motion after the first frame": (array(MOTION7, lambda a: a[:0, 0, 0]), "found an array of shape (0,)"),
    "motion in integers": (array(MOTION7, lambda a: a.astype(np.int16)), "found type int16, expected float32"),
    "cut motion": (cut(MOTION7, 5000), "motion_vectors_0007.npy: not readable, expected an npy array (ValueError"),
    "motion of no bytes": (cut(MOTION7, 0), "motion_vectors_0007.npy: not readable, expected an npy array (EOFError"),
    "depth of another size": (array(DEPTH7, lambda a: a[1:]), "0007.npy: found 63 x 96"),
    "depth in millimetres": (array(DEPTH7, lambda a: a.astype(np.uint16)), "0007.npy: found type uint16"),
    "depth of three channels": (array(DEPTH7, lambda a: np.stack([a] * 3, -1)), "found an array of shape (64, 96, 3)"),
    "depth of objects": (
        lambda scene: np.save(scene / DEPTH7, np.array([None, {}]), allow_pickle=True),
        "0007.npy: not readable, expected an npy array (ValueError: Object arrays cannot be loaded",
    ),
    "depth in an archive": (
        lambda scene: np.savez((scene / DEPTH7).open("wb"), np.zeros(3)),
        "0007.npy: found an npz archive, expected float32",
    ),
    "no depth folder": (
        lambda scene: (scene / "distance_to_camera").rename(scene / "depth"),
        "env_0: holds rgb, motion_vectors but not distance_to_camera; a scene is a folder that holds rgb/,",
    ),
    "no scene": (lambda scene: scene.rename(scene.with_name("env_1")), "env_0: there is no such scene folder"),
}


@pytest.mark.parametrize("kind", BAD_DATA)
def test_bad_data_says_what_is_wrong(scene, kind):
    read_all(scene)
    spoil, message = BAD_DATA[kind]
    spoil(scene)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_all(scene)
    assert str(scene) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stray_is_told_beside_what_is_missing_and_left_out(scene):
    rename(7, 10**15)(scene)
    listed, findings = list_scene(scene.parents[1], "ball/env_0")
    assert [finding.code for finding in findings] == [*["frame_stray"] * 3, "frame_gap"]
    assert "frame 7 is missing between 0 and 11" in findings[-1].message
    assert all(list(its) == [frame for frame in range(FRAMES) if frame != 7] for its in listed.files.values())


def test_numbers_of_18_digits_are_frames_like_others(tmp_path):
    first = 10**18 - 4
    plain_scene(tmp_path / "s", frames=4, first=first, size=(8, 8))
    assert open_scene(tmp_path, "s").frame_ids == tuple(range(first, 10**18))


def test_a_whole_scene_in_a_wrong_format_is_found_on_indexing(scene):
    for path in (scene / "motion_vectors").iterdir():
        np.save(path, np.zeros((HEIGHT, WIDTH), np.float32))
    with pytest.raises(ValueError, match=r"motion_vectors_0006.npy: found an array of shape \(64, 96\)"):
        open_scene(scene.parents[1], "ball/env_0")
