"""What a check has measured is kept beside the CSV, and decides which flags training accepts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from motion_depth.data.motion import MotionConvention
from motion_depth.doctor.photometry import CANDIDATES
from motion_depth.doctor.record import Record, contradiction, record_path, recorded_check
from motion_depth.training.preflight import check_record
from tests.support.scene_files import gliding, make_operator, write_scene
from tools import make_metadata

FORWARD = MotionConvention(direction="forward")


@pytest.fixture
def recorded(tmp_path) -> Path:
    """Two scenes that glide, in the forward convention, checked with the flags for it; returns the CSV."""
    return make_checked(tmp_path, one=-1, two=-1)


def make_checked(folder: Path, **signs: int) -> Path:
    """Scenes that glide, their motion times a sign, checked with the flags of forward motion; returns the CSV."""
    for name, sign in signs.items():
        rgb, motion, depth = gliding(9, 48, 64, 2)
        write_scene(folder / "scenes" / name, rgb, sign * motion, depth)
    csv = folder / "my.csv"
    csv.write_text("video,prompt\n" + "".join(f"{name},Picture {name} glides.\n" for name in signs))
    flags = ("--check", "--num_frames", 9, "--motion_direction", "forward", "--workers", 1)
    command = ("--dataset_base_path", folder / "scenes", "--dataset_metadata_path", csv, *flags)
    make_metadata.main([str(each) for each in command])
    return csv


def record_of(csv: Path, *scenes: str, base: Path | None = None) -> Record | None:
    return recorded_check(csv, base or csv.parent / "scenes", scenes)


def test_flags_that_contradict_the_record_are_named_with_those_to_pass(recorded):
    record = record_of(recorded, "one", "two")
    assert record.convention == FORWARD
    assert record.path == record_path(recorded)
    assert contradiction(record, FORWARD) is None
    assert contradiction(record, MotionConvention(direction="forward", y_axis="up")) is None  # nobody knows
    message = contradiction(record, MotionConvention())
    assert "Pass --motion_direction forward" in message
    assert str(record.path) in message
    assert contradiction(None, MotionConvention()) is None
    # What is set now and wrong is named even where the measured value is the documented one.
    message = contradiction(record, MotionConvention(units="normalized", direction="backward"))
    assert message.endswith("Pass --motion_units pixels --motion_direction forward")
    for convention in CANDIDATES:
        assert (contradiction(record, convention) is None) == (convention in record.fitting)


def test_a_scene_that_differs_is_named_or_left_to_its_own_flags(tmp_path):
    csv = make_checked(tmp_path, one=1, two=1, odd=-1)
    both, alike, odd = (record_of(csv, *names) for names in (("one", "odd"), ("one",), ("odd",)))
    assert contradiction(alike, MotionConvention()) is None
    assert contradiction(odd, FORWARD) is None
    message = contradiction(both, MotionConvention())
    assert "in odd than in the others: --motion_direction forward. Convert" in message
    assert contradiction(both, FORWARD).endswith("Pass --motion_direction backward")
    assert "Pass --motion_direction forward" in contradiction(odd, MotionConvention())


def test_a_record_serves_the_parts_of_its_csv_and_copies_and_no_other_files(recorded):
    part = recorded.with_name("my_train.csv")
    assert record_of(part, "two") is not None
    assert record_of(part, "two", "three") is None
    scenes = recorded.parent / "scenes"
    copied = shutil.copytree(scenes, recorded.parent / "copied", copy_function=shutil.copyfile)
    assert record_of(recorded, "one", "two", base=copied) is not None
    motion = scenes / "two/motion_vectors/motion_vectors_0004.npy"
    np.save(motion, 2 * np.load(motion))
    assert record_of(recorded, "one", "two") is None
    assert record_of(recorded, "one") is not None


def test_the_record_of_the_list_itself_comes_before_a_newer_one_of_another(recorded):
    """Two data sets may share their motion files and differ in depth."""
    newer = record_path(recorded.with_name("another.csv"))
    content = json.loads(record_path(recorded).read_text())
    newer.write_text(json.dumps({**content, "checked": "2999-01-01T00:00:00+00:00"}))
    for name, record in (("my", "my"), ("my_train", "my"), ("another", "another"), ("third", "another")):
        assert record_of(recorded.with_name(f"{name}.csv"), "one", "two").path.name == f"{record}.check.json"


def test_a_run_says_that_there_is_a_record_of_other_files(recorded):
    operator = make_operator(recorded.parent / "scenes", 32, 64, motion_direction="forward")
    assert not [line for line in check_record(operator, [recorded], False) if "is not used" in line]
    (recorded.parent / "scenes/two/motion_vectors/motion_vectors_0004.npy").write_bytes(b"")
    part, other = recorded.with_name("my_train.csv"), recorded.with_name("other.csv")
    part.write_text("video,prompt\ntwo,A picture glides along.\n")
    (line,) = check_record(operator, [part], False)
    assert line.startswith(f"warning: {part}: {record_path(recorded)}: is not used")
    shutil.copy(part, other)
    assert check_record(operator, [other], False) == []


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"version": 2, "scenes": {"one": ""}}', '{"version": 99}'])
def test_a_record_that_is_none_is_not_used(recorded, content):
    record_path(recorded).write_text(content)
    assert record_of(recorded, "one") is None
