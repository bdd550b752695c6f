"""The order of clips, and loading them in several processes."""

import pickle
from collections import Counter
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from motion_depth.clips.dataset import LoadError, MotionDepthClip, MotionDepthDataset, raise_load_errors
from tests.support.scene_files import make_operator, plain_scene, same


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Three plain scenes of 12 frames of 64 x 96; frame numbers begin at 0, 0 and 40."""
    base = tmp_path_factory.mktemp("data")
    for name, first in (("ball/env_0", 0), ("ball/env_1", 0), ("ramp", 40)):
        plain_scene(base / name, first=first)
    return base


# --- the dataset ------------------------------------------------------------------------------------------------------


def make_dataset(base: Path, folder: Path, repeat: int = 6, seed: int = 0, reduce=None) -> MotionDepthDataset:
    path = folder / "train.csv"
    path.write_text("video,prompt,id\nball/env_0,One.,a\nball/env_1,Two.,b\nramp,Three.,c\n")
    return MotionDepthDataset(base, path, make_operator(base), repeat=repeat, seed=seed, reduce=reduce)


def describe(item: dict) -> tuple:
    """Small enough to cross the process boundary in a test; the sum tells clips apart."""
    clip: MotionDepthClip = item["video"]
    return (
        item["position"],
        item["window"],
        item["prompt"],
        clip.scene,
        clip.frame_ids[0].item(),
        clip.frames.sum().item(),
    )


def fail_on_ramp(item: dict) -> int:
    if item["video"].scene == "ramp":
        raise ValueError("the ramp is closed")
    return item["position"]


def test_an_epoch_visits_every_row_equally_often(base, tmp_path):
    dataset = make_dataset(base, tmp_path)
    assert len(dataset) == 18
    for epoch in range(3):
        clips = [dataset.clip_at(position) for position in range(epoch * 18, epoch * 18 + 18)]
        assert Counter(clip.row for clip in clips) == {0: 6, 1: 6, 2: 6}
        for begin in range(0, 18, 3):  # each pass over the CSV is complete
            assert {clip.row for clip in clips[begin : begin + 3]} == {0, 1, 2}
        assert all(clip.scene == dataset.data[clip.row]["video"] for clip in clips)


def test_a_row_sees_all_windows_before_one_comes_again(base, tmp_path):
    dataset = make_dataset(base, tmp_path)  # 6 visits an epoch, 4 windows: laps cross the epochs
    for row in range(3):
        windows = [clip.window for clip in map(dataset.clip_at, range(18 * 4)) if clip.row == row]
        laps = [windows[begin : begin + 4] for begin in range(0, len(windows), 4)]
        assert all(sorted(lap) == [0, 1, 2, 3] for lap in laps)
        assert len({tuple(lap) for lap in laps}) > 1


def test_the_order_follows_from_the_seed_alone(base, tmp_path):
    dataset = make_dataset(base, tmp_path)
    order = [dataset.clip_at(position) for position in range(72)]
    assert [dataset.clip_at(position) for position in reversed(range(72))] == order[::-1]
    again = pickle.loads(pickle.dumps(make_dataset(base, tmp_path)))
    assert [again.clip_at(position) for position in range(72)] == order
    other = make_dataset(base, tmp_path, seed=1)
    assert [other.clip_at(position) for position in range(72)] != order
    passes = {tuple(clip.row for clip in order[begin : begin + 3]) for begin in range(0, 72, 3)}
    assert len(passes) > 3  # of the 6 orders of 3 rows


def test_an_item_is_its_row_with_the_clip(base, tmp_path):
    dataset = make_dataset(base, tmp_path)
    position = 7 * 18 + 5
    row, scene, window = dataset.clip_at(position)
    item = dataset[position]
    assert same(item.pop("video"), dataset.operator((scene, window)))
    expected = {"prompt": dataset.data[row]["prompt"], "id": "abc"[row], "position": position, "window": window}
    assert item == expected
    assert dataset.data[row]["video"] == scene  # the row itself is not touched
    with pytest.raises(IndexError, match="position -1: expected 0 or more"):
        dataset[-1]


@pytest.mark.parametrize(
    ("csv", "settings", "message"),
    [
        ("ramp,A.\nnowhere,B.", {}, r"train\.csv row 2: .*/nowhere: there is no such scene folder"),
        ("ramp,A.\n../ramp,B.", {}, r"train\.csv row 2: scene '\.\./ramp': expected a folder inside"),
        ("ramp,A.", {"repeat": 0}, "--dataset_repeat: found 0, expected a whole number from 1 on"),
        ("ramp,A.", {"seed": -1}, "--seed: found -1"),
        ("ramp", {}, "row 1: found 1 fields"),
    ],
)
def test_a_dataset_that_cannot_be_trained_on_is_an_error_at_once(base, tmp_path, csv, settings, message):
    (tmp_path / "train.csv").write_text(f"video,prompt\n{csv}\n")
    with pytest.raises(ValueError, match=message):
        MotionDepthDataset(base, tmp_path / "train.csv", make_operator(base), **settings)


def test_a_dataset_wants_the_operators_folder_and_columns_of_its_own(base, tmp_path):
    (tmp_path / "train.csv").write_text("video,prompt,window\nramp,A.,3\n")
    with pytest.raises(ValueError, match="found the column window, which items have of their own"):
        MotionDepthDataset(base, tmp_path / "train.csv", make_operator(base))
    with pytest.raises(ValueError, match=r"base_path: found .*, expected the operator's"):
        MotionDepthDataset(tmp_path, tmp_path / "train.csv", make_operator(base))


def test_an_error_while_loading_becomes_one_clear_message(tmp_path):
    plain_scene(tmp_path / "ramp")
    (tmp_path / "train.csv").write_text("video,prompt\nramp,A.\n")
    dataset = MotionDepthDataset(tmp_path, tmp_path / "train.csv", make_operator(tmp_path))
    (tmp_path / "ramp/rgb/step_0004.png").write_bytes(b"damaged")
    position = next(position for position in range(4) if dataset.clip_at(position).window in (0, 2, 4))
    found = dataset[position]
    assert isinstance(found, LoadError)
    with pytest.raises(
        ValueError, match=r"^clip \d+ \(scene ramp, window \d\): .*step_0004\.png: not readable, expected"
    ):
        raise_load_errors([{"video": None}, found])


def test_a_batch_without_errors_passes():
    for batch in ([1, 2], {"video": 1}, (), "text"):
        assert raise_load_errors(batch) is batch


def test_workers_load_the_same_clips_in_the_same_order(base, tmp_path):
    dataset = make_dataset(base, tmp_path, reduce=describe)
    positions = range(24, 36)  # one lap: all 4 windows of the 3 scenes
    expected = [dataset[position] for position in positions]
    loader = DataLoader(dataset, sampler=positions, batch_size=3, num_workers=2, collate_fn=list)
    found = [item for batch in loader for item in raise_load_errors(batch)]
    assert found == expected
    assert len({(scene, start) for *_, scene, start, _ in found}) == 12


def test_a_workers_error_is_raised_in_the_main_process(base, tmp_path):
    dataset = make_dataset(base, tmp_path, reduce=fail_on_ramp)
    loader = DataLoader(dataset, sampler=range(6), batch_size=1, num_workers=2, collate_fn=list)
    with pytest.raises(ValueError, match=r"^clip \d \(scene ramp, window \d\): the ramp is closed$"):
        for batch in loader:
            raise_load_errors(batch)
