"""Every number that the training script takes has a range, and what lies beyond it is named before anything else."""

import pytest

import train_wan22_ti2v_motion_depth as training
from motion_depth.settings import RANGES, check_settings, warmup_remark

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


@pytest.mark.parametrize(
    ("scheduler", "warmup", "updates", "expected"),
    [
        (
            "constant_with_warmup",
            100,
            328,
            "--lr_warmup_steps 100: 30% of the run's 328 optimizer updates are warm-up;",
        ),
        ("cosine", 101, 1000, "a tenth would be 100"),
        ("linear", 50, 40, "100% of the run's 40 "),
        ("constant_with_warmup", 100, 2625, None),  # the reference job
        ("cosine", 100, 1000, None),
        ("constant", 100, 10, None),  # has no warm-up
        ("cosine", 0, 1, None),
    ],
)
def test_a_long_warm_up_is_remarked_on(scheduler, warmup, updates, expected):
    remark = warmup_remark(scheduler, warmup, updates)
    assert remark is None if expected is None else expected in remark
