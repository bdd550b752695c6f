"""What is looked at before a run starts: scenes held out or trained on under two names, shared memory."""

import re
import shutil
from collections import namedtuple

import pytest
import torch
from torch import Tensor

from motion_depth.clips.batch import Sample, pack_targets, reduce_item
from motion_depth.clips.dataset import MotionDepthDataset
from motion_depth.latents import WAN22
from motion_depth.settings import Settings
from motion_depth.training.preflight import check_distinct, check_shared_memory, sample_bytes
from tests.support.inprocess import refused
from tests.support.scene_files import make_operator, plain_scene
from tests.support.settings import make_settings

Usage = namedtuple("Usage", "total used free")


def settings(**changes: object) -> Settings:
    """The reference job's."""
    return make_settings(**{"cache_path": "cache", **changes})


def total_bytes(sample: Sample) -> int:
    tensors = [*vars(sample).values(), *sample.targets.tensors()]
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))


def test_a_samples_bytes_are_those_of_its_tensors(tmp_path):
    plain_scene(tmp_path / "scene")
    clip = make_operator(tmp_path)("scene")
    sample = reduce_item({"video": clip, "position": 0, "window": 0, "prompt": ""})
    frames, height, width = clip.depth.shape
    assert sample_bytes(WAN22, frames, height, width, encoded=False, float_bytes=2) == total_bytes(sample)
    latents = torch.zeros(48, 1 + (frames - 1) // 4, height // 16, width // 16, dtype=torch.bfloat16)
    sample = Sample(0, "scene", 0, "", pack_targets(clip), latents=latents, first=latents[:, :1].clone())
    assert sample_bytes(WAN22, frames, height, width, encoded=True, float_bytes=2) == total_bytes(sample)


def two_lists(folder, train: str, held_out: str) -> list[MotionDepthDataset]:
    """Of scenes a and b, an inner one, and links: to a scene, to its pictures' folder, to each picture."""
    for scene in ("a", "b", "inner/c", "pictures", "files"):
        plain_scene(folder / "data" / scene)
    (folder / "data/link").symlink_to("a")
    shutil.rmtree(folder / "data/pictures/rgb")
    (folder / "data/pictures/rgb").symlink_to("../a/rgb")
    for path in (folder / "data/files/rgb").iterdir():
        path.unlink()
        path.symlink_to(f"../../a/rgb/{path.name}")
    found = []
    for name, scenes in ("train", train), ("val", held_out):
        (folder / f"{name}.csv").write_text("video,prompt\n" + "".join(f"{scene},x\n" for scene in scenes.split()))
        found.append(MotionDepthDataset(folder / "data", folder / f"{name}.csv", make_operator(folder / "data")))
    return found


@pytest.mark.parametrize("name", ["./a", "a//", "a/.", "link", "link/", "pictures", "files"])
def test_a_training_scene_is_known_under_any_name(tmp_path, name):
    train, held_out = two_lists(tmp_path, "inner/c a", f"b {name}")
    message = rf"val.csv: {name} is a training scene too, as a \(both are .*/data/a/rgb\); leave it out there or in"
    with pytest.raises(ValueError, match=message):
        check_distinct(train, held_out)
    with pytest.raises(ValueError, match=rf"val.csv: a is a training scene too, as {name} "):
        check_distinct(*two_lists(tmp_path / "turned", name, "a"))


def test_other_scenes_are_no_training_scenes(tmp_path):
    assert check_distinct(*two_lists(tmp_path, "a inner/c", "b")) == []
    assert check_distinct(two_lists(tmp_path / "alone", "a", "b")[0], None) == []


def test_one_scene_under_two_names_in_one_list_is_told(tmp_path):
    """The same name in two rows is meant: a scene may have several prompts."""
    remarks = check_distinct(*two_lists(tmp_path, "a a", "b ./b inner/c"))
    assert [text.split(": ")[1] for text in remarks] == [
        f"b and ./b are one scene ({tmp_path / 'data/b/rgb'}); it counts 2 times"
    ]
    assert "train.csv: a and link are one scene" in check_distinct(*two_lists(tmp_path / "2", "a link", "b"))[0]


@pytest.fixture
def free(monkeypatch, tmp_path):
    """Says how much shared memory is free, in MB; nothing of it is used."""
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)

    def set_free(megabytes: float):
        usage = Usage(int(megabytes * 1e6), 0, int(megabytes * 1e6))
        monkeypatch.setattr("motion_depth.training.preflight.shutil.disk_usage", lambda _: usage)
        return tmp_path

    return set_free


def test_a_container_with_dockers_64_mb_is_refused_with_what_to_do(free):
    expected = (
        "--dataset_num_workers 4: loader processes keep 0.73 GB ready in .*, found 0.07 GB free; start the container "
        r"with --shm-size=1g or more \(docker, podman\), or use --dataset_num_workers 0$"
    )
    with pytest.raises(ValueError, match=expected):
        check_shared_memory(settings(), WAN22, free(67.1))
    with pytest.raises(ValueError, match=r"--dataset_num_workers 2$"):
        check_shared_memory(settings(), WAN22, free(500))


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, 732.2),
        ({"dataset_num_workers": 1}, 183.1),
        ({"batch_size": 3}, 2196.6),
        ({"cache_path": None}, 993.5),
        ({"cache_only": True}, 270.9),
        ({"mixed_precision": "no"}, 741.9),
    ],
)
def test_how_much_is_needed(free, changes, needed):
    check_shared_memory(settings(**changes), WAN22, free(needed + 0.1))
    with pytest.raises(ValueError, match=re.escape(f"{needed / 1e3:.2f} GB ready")):
        check_shared_memory(settings(**changes), WAN22, free(needed - 0.1))


def test_the_processes_of_a_machine_share_it(free, monkeypatch):
    folder = free(5800)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(ValueError, match=r"5.86 GB ready .* --shm-size=6g"):
        check_shared_memory(settings(), WAN22, folder)


def test_nothing_is_asked_where_no_process_hands_over(free, tmp_path):
    check_shared_memory(settings(dataset_num_workers=0), WAN22, free(0))
    check_shared_memory(settings(), WAN22, tmp_path / "no such folder")


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(inputs, monkeypatch):
    monkeypatch.setattr("motion_depth.checkpoints.checkpoint.shutil.disk_usage", lambda _: Usage(2e6, 1e6, 1e6))
    assert "no room for 2 step folders, best/ and final/, which takes" in refused(*inputs.argv(), unchanged=inputs.root)


def test_a_read_only_output_folder_is_told(inputs, monkeypatch):
    monkeypatch.setattr("motion_depth.training.preflight.os.access", lambda *_: False)
    assert f"no permission to write into {inputs.root}" in refused(*inputs.argv())
