"""Clips that are read together are the same as those that are read alone, and each frame is read once."""

from collections import Counter

import pytest
import torch

from motion_depth.clips.batch import pack_targets
from motion_depth.clips.dataset import LoadImageSequenceWithMotionWrapper
from motion_depth.clips.overlapping import OverlappingClips, group_overlapping, in_order_of_overlap, read_overlapping
from motion_depth.readouts.targets import Targets
from tests.support.cache_setup import same_targets
from tests.support.scene_files import FRAMES, make_operator, plain_scene


def every_clip(operator: LoadImageSequenceWithMotionWrapper, *scenes: str) -> list[tuple[str, int]]:
    clips = [(scene, window) for scene in scenes for window in range(operator.num_windows(scene))]
    return in_order_of_overlap(operator, clips)


def targets_of(read: OverlappingClips, number: int) -> Targets:
    """Of one clip, with its frame axis."""
    return Targets.stack(read.targets[number])


@pytest.mark.parametrize("size", [(64, 96), (32, 64)], ids=["resized", "smaller"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("offset", [0, 1])
def test_clips_read_together_are_those_read_alone(tmp_path, size, stride, offset):
    plain_scene(tmp_path / "ball")
    operator = make_operator(tmp_path, *size, frame_stride=stride, motion_frame_offset=offset)
    clips = every_clip(operator, "ball")
    assert len(clips) == FRAMES - offset - 4 * stride
    compared = 0
    for scene, windows in group_overlapping(operator, clips):
        read = read_overlapping(operator, scene, windows)
        assert len(read.frames) <= 2 * operator.num_frames
        for number, window in enumerate(windows):
            alone, start = operator((scene, window)), read.starts[number]
            assert torch.equal(read.frames[start : start + operator.num_frames], alone.frames)
            assert same_targets(targets_of(read, number), pack_targets(alone))
            compared += 1
    assert compared == len(clips)


def test_groups_hold_every_clip_once_and_reach_no_farther_than_two_clips(tmp_path):
    for scene, frames in {"long": 23, "short": 6}.items():
        plain_scene(tmp_path / scene, frames)
    operator = make_operator(tmp_path, frame_stride=1)
    groups = group_overlapping(operator, every_clip(operator, "long", "short"))
    assert groups == [("long", [*range(5)]), ("long", [*range(5, 10)]), ("long", [*range(10, 15)]),
                      ("long", [*range(15, 19)]), ("short", [0, 1])]  # fmt: skip
    strided = make_operator(tmp_path, frame_stride=2)
    clips = [("long", window) for window in (0, 1, 2, 3, 9, 11, 14)]
    assert group_overlapping(strided, in_order_of_overlap(strided, clips)) == [
        ("long", [0, 2]), ("long", [14]), ("long", [1, 3, 9]), ("long", [11])]  # fmt: skip
    assert group_overlapping(operator, []) == []


def test_every_file_is_read_once_and_what_clips_share_is_one_tensor(tmp_path, monkeypatch):
    plain_scene(tmp_path / "ball")
    operator = make_operator(tmp_path, frame_stride=1)
    scene, times = operator.scene("ball"), Counter()
    read_file = scene.read
    monkeypatch.setattr(scene, "read", lambda kind, frame: (times.update([(kind, frame)]), read_file(kind, frame))[1])
    read = read_overlapping(operator, "ball", [0, 1, 3])
    assert set(times.values()) == {1}
    assert len(times) == 3 * len(read.frames) - 1  # nothing needs the motion of the very first frame
    first, second, third = read.targets
    assert first[3] is second[2]
    assert first[3]["depth"].map is third[0]["depth"].map
    assert first[3]["motion"].map is not third[0]["motion"].map  # a clip's first frame has none
