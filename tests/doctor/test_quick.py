"""The check before training: names, headers and lengths of scenes; and the CSV's rows."""

from __future__ import annotations

import numpy as np
import pytest

from motion_depth.data.findings import raise_errors
from motion_depth.doctor.quick import longest_clip, quick_check, short_rules
from motion_depth.doctor.rows import MAX_TOKENS, check_rows
from tests.support.scene_files import link_files


def test_the_quick_check_lists_every_problem_row_by_row(demo_scenes, tmp_path):
    link_files(demo_scenes, tmp_path / "scenes")
    ramp = tmp_path / "scenes/test_ball_ramp/env_0/0/0"
    (ramp / "rgb/rgb_0003.png").unlink()
    (ramp / "distance_to_camera/distance_to_camera_0005.npy").unlink()
    np.save(ramp / "distance_to_camera/distance_to_camera_0005.npy", np.ones((4, 4), np.float32))
    rows = ["test_duck_and_domino/env_0/0/0", "test_gone", "test_ball_ramp/env_0/0/0", "../scenes"]
    findings = quick_check(tmp_path / "scenes", rows, num_frames=21)
    assert [(each.row, each.code) for each in findings] == [
        (2, "scene_folder"),
        (3, "frame_missing"),
        (3, "distance_to_camera_file"),
        (4, "scene_folder"),
        (None, "scene_short"),
    ]
    with pytest.raises(ValueError, match=r"(?s)^my.csv: 5 problems\n  row 2: .*\n  row 4: .*\n  2 of 2 scenes: found "):
        raise_errors(findings, "my.csv")
    assert quick_check(demo_scenes, rows[:1], num_frames=17) == []


@pytest.mark.parametrize(
    ("frames", "stride", "says"),
    [
        ({"a": 33}, "auto", "a: found 33 frames, expected at least 49 for a clip of 49 frames (--num_frames) at "
         "stride 1. --num_frames 33 fits it"),
        ({"a": 60, "b": 36}, "auto", "b: found 36 frames, expected at least 49"),
        (dict.fromkeys("abcde", 33), 1, "5 of 5 scenes: found 33 frames, expected at least 49 for a clip of 49 frames "
         "(--num_frames) at stride 1: a, b, c, .... --num_frames 33 fits all 5 scenes"),
        ({"a": 60, "b": 40, "c": 22}, 2, "3 of 3 scenes: found 22 to 60 frames, expected at least 97"),
        ({"a": 60, "b": 40, "c": 22}, 2, "--num_frames 9 fits all 3 scenes"),
        ({"a": 60, "b": 4}, "auto", "b: found 4 frames, expected at least 49"),
        ({"a": 60, "b": 4}, "auto", "Leave out the shortest scenes"),
    ],
)  # fmt: skip
def test_scenes_that_are_too_short_are_one_finding_that_says_what_fits(frames, stride, says):
    (finding,) = short_rules(frames, 49, stride, 0)
    assert says in str(finding)
    assert finding.scene in frames or "scenes:" in finding.message
    fits = min(longest_clip(each, stride, 0) for each in frames.values())
    assert fits < 5 or not list(short_rules(frames, fits, stride, 0))
    assert list(short_rules(frames, fits + 4, stride, 0))


@pytest.mark.parametrize(
    ("content", "severity", "code", "says"),
    [
        (b"video,prompt\na,b\n./a/,b\n", "warning", "row_twice", "row 2: my.csv: the same scene with the same prompt"),
        (b"video,prompt\na,x\nb,x\n", "note", "prompt_shared", "2 scenes share the prompt 'x': a, b"),
        (b"video,prompt\nq/test_ball/0,See test_ball.\n", "warning", "prompt_folder", "folder's name 'test_ball'"),
        (b"video,prompt\nq,A physics scene: frob.\n", "note", "prompt_made_up", "made of the folder's name"),
        (b"video,prompt\nq," + b"a " * MAX_TOKENS + b"\n", "error", "prompt_long", "the prompt has 512 words"),
        (b"video,prompt\nq," + b"abcdefghi " * 300 + b"\n", "warning", "prompt_long", "has about 749 tokens"),
    ],
)
def test_a_row_is_named_with_what_is_wrong(tmp_path, content, severity, code, says):
    path = tmp_path / "my.csv"
    path.write_bytes(content)
    _, findings = check_rows(path)
    assert [(each.severity, each.code) for each in findings] == [(severity, code)]
    assert says in str(findings[0])


def test_rows_that_cannot_be_read_count_as_rows(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("video,prompt\na,b,c\na,b\na,b\n")
    _, findings = check_rows(path)
    assert [(each.code, each.row) for each in findings] == [("csv_fields", 1), ("row_twice", 3)]
    assert "as in row 2" in findings[1].message
