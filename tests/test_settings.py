"""Every number that the training script takes has a range, and what lies beyond it is named before anything else."""

import pytest

import train_wan22_ti2v_motion_depth as training
from motion_depth.settings import RANGES, check_settings

NEEDED = ["--stage", "1", "--dataset_base_path", "a", "--dataset_metadata_path", "b", "--output_path", "c",
          "--model_base_path", "d"]  # fmt: skip
# What has few values, which are checked one by one.
CHECKED_ELSEWHERE = {"stage", "motion_balance", "motion_frame_offset"}


def settings(**changes: object):
    args = training.parse_args(NEEDED)
    vars(args).update(changes)
    return args


def test_every_number_has_a_range():
    numbers = {name for name, value in vars(settings()).items() if type(value) in (int, float)}
    assert numbers - CHECKED_ELSEWHERE == RANGES.keys()


def test_the_defaults_and_both_ends_are_accepted():
    check_settings(settings())
    for end in (0, 1):
        for name, ends in RANGES.items():
            check_settings(settings(**{"num_frames": 4097, name: ends[end]}))


@pytest.mark.parametrize("name", RANGES)
def test_beyond_its_range_a_number_is_named(name):
    lowest, highest = RANGES[name]
    for value in (lowest - 1, highest + 1, 10**22, 1e300, float("inf"), float("-inf"), float("nan")):
        with pytest.raises(ValueError, match=rf"^--{name} .*: expected [\d.,]+ to [\d.,]+$"):
            check_settings(settings(**{name: value}))
