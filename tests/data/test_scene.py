"""One scene on disk: which folders are scenes, which names may be read, and what each kind of bad data says."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motion_depth.data.layouts import find_scenes, list_scene, open_scene
from motion_depth.data.layouts.isaac_sim import IsaacSimScene
from motion_depth.data.scene import DEPTH, MOTION
from tests.support.damages import DAMAGES, ON_READING, SCENE, renumber
from tests.support.scene_files import FRAMES, HEIGHT, WIDTH, link_files, plain_scene


@pytest.fixture
def scene(tmp_path) -> Path:
    return plain_scene(tmp_path / "data/ball/env_0")


def read_all(base: Path, name: str) -> None:
    """Open a scene and read every file, as loading all of its clips would."""
    opened = open_scene(base, name)
    for frame in opened.frame_ids:
        opened.rgb(frame)
        opened.depth(frame)
        if frame != opened.frame_ids[0]:
            opened.motion(frame)


def one_array(folder: Path, array: np.ndarray) -> IsaacSimScene:
    """A scene of one frame, whose depth and motion are the same file."""
    np.save(folder / "1.npy", array)
    Image.new("RGB", array.shape[1::-1]).save(folder / "1.png")
    files = {"rgb": "1.png", MOTION: "1.npy", DEPTH: "1.npy"}
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
    assert opened.files[MOTION][7].name == "motion_vectors_0007.npy"
    assert opened.files[DEPTH][7].name == "0007.npy"


def test_frames_are_matched_by_number_whatever_the_names(tmp_path):
    folder = plain_scene(tmp_path / "s", frames=3, first=9, size=(8, 8))
    (folder / "rgb/step_0010.png").rename(folder / "rgb/cam2_frame10.PNG")
    picture = Image.open(folder / "rgb/step_0011.png")
    picture.save(folder / "rgb/000011.jpg")
    (folder / "rgb/step_0011.png").unlink()
    opened = open_scene(tmp_path, "s")
    assert opened.frame_ids == (9, 10, 11)
    assert [opened.files["rgb"][frame].name for frame in (10, 11)] == ["cam2_frame10.PNG", "000011.jpg"]


@pytest.mark.parametrize("name", ["../data/ball/env_0", "ball/../ball/env_0", "", " ", "a\0b", "/etc"])
def test_a_name_that_is_no_path_inside_the_folder_is_refused(scene, name):
    with pytest.raises(ValueError, match=r"expected a folder inside .*, relative to it and without"):
        open_scene(scene.parents[1], name)


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


@pytest.mark.parametrize("damage", [each for each in DAMAGES if each.code in ON_READING], ids=lambda each: each.name)
def test_bad_data_says_what_is_wrong(demo_scenes, tmp_path, damage):
    link_files(demo_scenes / SCENE, tmp_path / SCENE)
    read_all(tmp_path, SCENE)
    damage.do(tmp_path / SCENE)
    with pytest.raises(ValueError, match=re.escape(damage.says)) as caught:
        read_all(tmp_path, SCENE)
    assert str(tmp_path / SCENE) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stray_is_told_beside_what_is_missing_and_left_out(scene):
    renumber(scene, 7, 10**15)
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
