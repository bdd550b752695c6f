"""Every number that the training script takes has a range, and what lies beyond it is named before anything else."""

import pytest

from motion_depth.settings import HARMLESS, PLACES, RANGES, Settings, flags
from motion_depth.training.checks import check_settings
from tests.support.settings import make_settings

NO_HEADS = {"motion_loss_weight": 0.0, "depth_loss_weight": 0.0}
# What has few values, which are checked one by one.
CHECKED_ELSEWHERE = {"stage", "motion_balance", "motion_frame_offset"}


def test_every_number_has_a_range():
    numbers = {name for name, value in make_settings().values().items() if type(value) in (int, float)}
    assert numbers - CHECKED_ELSEWHERE == RANGES.keys()


def test_the_defaults_and_both_ends_are_accepted():
    check_settings(make_settings())
    for end in (0, 1):
        for name, ends in RANGES.items():
            check_settings(make_settings(**{"num_frames": 4097, name: ends[end]}))


@pytest.mark.parametrize("name", RANGES)
def test_beyond_its_range_a_number_is_named(name):
    lowest, highest = RANGES[name]
    for value in (lowest - 1, highest + 1, 10**22, 1e300, float("inf"), float("-inf"), float("nan")):
        with pytest.raises(ValueError, match=rf"^--{name} .*: expected [\d.,]+ to [\d.,]+$"):
            check_settings(make_settings(**{name: value}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_base_path": None}, "give one of --model_base_path, --model_paths, --model_id_with_origin_paths"),
        ({"model_paths": "[]"}, "give one of --model_base_path, --model_paths, --model_id_with_origin_paths"),
        ({"motion_loss_weight": 0.0, "depth_loss_weight": 0.0}, "--flow_loss_weight: all are 0, nothing trains"),
        ({"cache_only": True}, "--cache_only needs --cache_path"),
        ({"loss_frames": 50}, "--loss_frames 50: expected 0 (all) to 49"),
        ({"stage": 2}, "--heads_checkpoint: stage 2 starts from stage 1's heads"),
        ({"tune": "full"}, "--tune full: stage 1 keeps the DiT frozen"),
        ({"stage": 2, "flow_loss_weight": 0.0, **NO_HEADS}, "--flow_loss_weight: all are 0, nothing trains"),
        ({"stage": 2, "tune": "full", "head_size": "small", **NO_HEADS}, "--head_size small: there are no heads"),
        ({"stage": 2, "loss_frames": 3, **NO_HEADS}, "--loss_frames 3: there are no heads"),
        ({"noise_mixture": "1,2"}, "--noise_mixture 1,2: expected three numbers"),
    ],
)
def test_settings_that_do_not_go_together_are_named(changes, expected):
    with pytest.raises(ValueError) as refused:
        check_settings(make_settings(**changes))
    assert expected in str(refused.value)


def test_stage_2_needs_no_heads_where_all_of_the_dit_trains_or_there_are_none():
    check_settings(make_settings(stage=2, tune="full"))
    check_settings(make_settings(stage=2, tune="full", **NO_HEADS))
    check_settings(make_settings(stage=2, **NO_HEADS))


def test_a_run_of_a_version_without_a_setting_had_its_default():
    before = make_settings(stage=2).plain()
    del before["tune"], before["ema_decay"]
    assert make_settings(stage=2).differences(before, True) == []
    assert make_settings(stage=2, tune="full").differences(before, True) == ["--tune was None, is full"]


def test_settings_come_back_by_name():
    given = make_settings(height=96, motion_loss_weight=0.5)
    assert Settings.of(given.values()) == given
    assert f"--{max(given.plain())}" in flags(Settings)
    with pytest.raises(TypeError, match="no setting is called speed"):
        make_settings(speed=1)


@pytest.mark.parametrize(
    ("changes", "known", "expected"),
    [
        ({"save_steps": 7, "resume": "auto"}, False, []),
        ({"seed": 1, "height": 96}, True, ["--height was 480, is 96", "--seed was 0, is 1"]),
        ({"tokenizer_path": "t"}, False, ["--tokenizer_path was None, is t"]),
        ({"tokenizer_path": "t"}, True, []),
    ],
)
def test_what_a_continued_run_may_change(changes, known, expected):
    assert make_settings(**changes).differences(make_settings().plain(), known) == expected
    assert not HARMLESS & PLACES
