"""make_metadata.py --check: what it prints, the report's page and data, the record for training, the CSV's rows."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from motion_depth.clips.clip import create_motion_data_operator
from motion_depth.data.findings import raise_errors
from motion_depth.data.motion import MotionConvention
from motion_depth.doctor.check import Settings, check_dataset
from motion_depth.doctor.photometry import CANDIDATES
from motion_depth.doctor.quick import longest_clip, quick_check, short_rules, windows
from motion_depth.doctor.record import contradiction, record_path, recorded_check
from motion_depth.doctor.report import as_dict, html
from motion_depth.doctor.rows import MAX_TOKENS, check_rows
from motion_depth.training.preflight import check_record
from tests.support.scene_files import gliding, make_operator, plain_scene, write_scene
from tools import make_metadata

VOID = {"meta", "br", "img", "wbr", "link", "hr", "input"}
EVIL = "a<script>alert(1)</script>&\"'"


def link(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=lambda a, b: Path(b).hardlink_to(a))


def run(base: Path, *flags: object) -> int:
    return make_metadata.main(["--dataset_base_path", str(base), "--workers", "1", *map(str, flags)])


class Page(HTMLParser):
    """Reads a page strictly: every element closed in order; collects what it refers to and its text."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.references, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [
            value for name, value in attributes if name in ("src", "href", "xlink:href", "data", "action")
        ]
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def dataset(demo_scenes, tmp_path_factory) -> Path:
    """Two sound scenes, one of them with a name that a page must escape, and one whose motion is forward."""
    base = tmp_path_factory.mktemp("dataset") / "scenes"
    first, second, third = sorted(path.parent for path in demo_scenes.rglob("rgb"))
    link(first, base / "test_one/env_0")
    link(second, base / EVIL / "env_0")
    link(third, base / "test_three")
    for path in (base / "test_three/motion_vectors").iterdir():
        motion = np.load(path)
        path.unlink()
        np.save(path, -motion)
    return base


@pytest.fixture(scope="module")
def checked(dataset):
    return check_dataset(dataset, None, Settings(num_frames=17), workers=2)


# ---------------------------------------------------------------------------------------------------- the report


def test_the_page_is_well_formed_and_needs_nothing_else(checked):
    page = Page(html(checked))
    assert page.references
    assert all(reference.startswith(("data:image/", "#")) for reference in page.references)
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert page.tags.count("img") == 3  # a picture, motion and depth of each scene
    assert page.tags.count("svg") == 2 + 3  # two plots, a line for each scene
    assert "url(http" not in html(checked).replace(" ", "")


def test_the_page_says_what_was_found_and_escapes_names(checked):
    page = Page(html(checked))
    text = " ".join("".join(page.text).split())
    assert "1 error in 3 scenes." in text
    assert "test_three: its motion follows forward motion in pixels" in text
    assert EVIL.split("/")[0] in text
    assert "<script>" not in html(checked)


def test_the_data_say_the_same_and_are_strict_json(checked, dataset, tmp_path):
    def refuse(constant: str):
        raise AssertionError(f"{constant} is no JSON")

    assert run(dataset, "--output", tmp_path / "my.csv", "--check", "--num_frames", 17, "--report", tmp_path / "r") == 1
    data = json.loads((tmp_path / "r/report.json").read_text(), parse_constant=refuse)
    assert data["counts"]["error"] == 1
    assert data["convention"]["measured"] == vars(MotionConvention())
    assert [each["code"] for each in data["findings"] if each["severity"] == "error"] == ["convention_differs"]
    assert [each["scene"] for each in data["scenes"]] == [each["scene"] for each in as_dict(checked)["scenes"]]
    first = data["scenes"][1]
    assert (first["frames"], first["width"], first["windows"], first["stride"]) == (18, 96, 2, 1)
    assert first["depth_kind"] == "camera"
    assert 0 < first["moving"] < 1
    assert 0 < first["nearest"] < first["median"] < first["farthest"]
    assert list(first["nothing"]) == ["inf"]
    assert [each["stride"] for each in data["strides"]] == [1]
    assert (tmp_path / "r/report.html").stat().st_size > 10_000


# ------------------------------------------------------------------------------------------------------ the tool


def test_it_prints_each_scene_the_convention_and_the_findings(demo_scenes, demo_csv, tmp_path, capsys):
    csv = tmp_path / "demo.csv"
    shutil.copy(demo_csv, csv)
    assert run(demo_scenes, "--dataset_metadata_path", csv, "--check", "--num_frames", 17) == 0
    printed = capsys.readouterr().out
    for name in ("test_ball_collide", "test_ball_ramp", "test_duck_and_domino"):
        assert re.search(rf"ok +{name}/env_0/0/0 +18 frames +96x96 +2 clips  moving +\d", printed)
    assert "backward motion in pixels, y down, in the file of its frame: the documented convention" in printed
    assert "Nothing is wrong with these 3 scenes." in printed
    assert re.search(r"GB in .* MB/s, 1 processes", printed)
    assert {path.name for path in tmp_path.iterdir()} == {"demo.csv", "demo.check.json"}
    assert csv.read_bytes() == demo_csv.read_bytes()


def test_a_damaged_scene_fails_the_list_but_the_check_says_all(demo_scenes, tmp_path, capsys):
    link(demo_scenes, tmp_path / "scenes")
    motion = sorted((tmp_path / "scenes/test_ball_ramp/env_0/0/0/motion_vectors").iterdir())
    motion[4].unlink()
    motion[7].unlink()
    motion[7].write_bytes(b"no array")
    output = tmp_path / "lists/my.csv"
    assert run(tmp_path / "scenes", "--output", output, "--check", "--num_frames", 17) == 2
    printed = capsys.readouterr()
    assert "motion_vectors: frame 4 is missing" in printed.out
    assert "motion_vectors_0007.npy: not readable" in printed.out
    assert printed.err.startswith("error: 1 of 3 scenes cannot be used")
    assert not output.exists()


def test_scenes_too_short_for_a_clip_still_give_a_page(demo_scenes, demo_csv, tmp_path, capsys):
    csv = tmp_path / "demo.csv"
    shutil.copy(demo_csv, csv)
    flags = ("--dataset_metadata_path", csv, "--check", "--num_frames", 49, "--report", tmp_path / "r")
    assert run(demo_scenes, *flags) != 0
    printed = capsys.readouterr().out
    assert printed.count("expected at least 49") == 1
    assert "--num_frames 17 fits all 3 scenes" in printed
    assert printed.count("ERROR test_") == 3
    page = (tmp_path / "r/report.html").read_text()
    assert "expected at least 49" in page
    assert page.count('<span class="badge error">too short</span>') == 3


def test_a_stride_says_for_how_many_scenes_it_holds(demo_scenes, tmp_path, capsys):
    link(demo_scenes, tmp_path / "scenes")
    for path in (tmp_path / "scenes/test_ball_ramp").rglob("*_001?.*"):
        path.unlink()
    assert run(tmp_path / "scenes", "--output", tmp_path / "my.csv", "--check", "--num_frames", 17) == 1
    printed = capsys.readouterr().out
    assert "(in 2 of 3 scenes; others are too short, or still)" in printed
    assert run(tmp_path / "scenes", "--output", tmp_path / "my.csv", "--check", "--num_frames", 9) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.endswith(", or still)") for line in lines if line.startswith("stride ")] == [False, True]


def test_the_csv_alone_decides_which_scenes_are_checked(demo_scenes, tmp_path, capsys):
    csv = tmp_path / "one.csv"
    csv.write_text("video,prompt\ntest_ball_ramp/env_0/0/0,A ball rolls down.\ntest_gone/env_0,A ball is gone.\n")
    assert run(demo_scenes, "--dataset_metadata_path", csv, "--check", "--num_frames", 17) == 1
    printed = capsys.readouterr().out
    assert "test_gone/env_0: there is no such scene folder" in printed
    assert "2 scenes are not in the CSV and were not checked: test_ball_collide/env_0/0/0" in printed


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), "give one of --output"),
        (("--output", "a.csv", "--dataset_metadata_path", "b.csv"), "give one of --output"),
        (("--dataset_metadata_path", "b.csv"), "--dataset_metadata_path: needs --check"),
        (("--output", "a.csv", "--report", "r"), "--report: needs --check"),
        (("--dataset_metadata_path", "b.csv", "--check"), "b.csv: not readable, expected a CSV"),
        (("--output", "a.csv", "--check", "--num_frames", 16), "--num_frames: found 16, expected 4k+1"),
        (("--output", "a.csv", "--check", "--frame_stride", "two"), "--frame_stride: found two"),
        (("--output", "a.csv", "--check", "--motion_units", "metres"), "--motion_units: found 'metres'"),
        (
            ("--output", "a.csv", "--check", "--tokenizer_path", "none"),
            "--tokenizer_path none: there is no such folder",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(demo_scenes, tmp_path, monkeypatch, capsys, flags, expected):
    monkeypatch.chdir(tmp_path)
    assert run(demo_scenes, *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {expected}")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------- the record


@pytest.fixture
def recorded(tmp_path) -> Path:
    """Two scenes that glide, in the forward convention, checked with the flags for it; returns the CSV."""
    for name in ("one", "two"):
        rgb, motion, depth = gliding(9, 48, 64, 2)
        write_scene(tmp_path / "scenes" / name, rgb, -motion, depth)
    csv = tmp_path / "my.csv"
    csv.write_text("video,prompt\none,A picture glides.\ntwo,A picture glides along.\n")
    flags = ("--num_frames", 9, "--motion_direction", "forward")
    run(tmp_path / "scenes", "--dataset_metadata_path", csv, "--check", *flags)
    return csv


def test_flags_that_contradict_the_record_are_named_with_those_to_pass(recorded):
    record = recorded_check(recorded, recorded.parent / "scenes", ["one", "two"])
    assert record.convention == MotionConvention(direction="forward")
    assert record.path == record_path(recorded)
    assert contradiction(record, MotionConvention(direction="forward")) is None
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


def test_a_scene_that_differs_is_named_or_left_to_its_own_flags(dataset, tmp_path):
    csv = tmp_path / "my.csv"
    run(dataset, "--output", csv, "--check", "--num_frames", 17)
    alike, odd = "test_one/env_0", "test_three"
    forward = MotionConvention(direction="forward")
    both = recorded_check(csv, dataset, [alike, odd])
    assert contradiction(recorded_check(csv, dataset, [alike]), MotionConvention()) is None
    assert contradiction(recorded_check(csv, dataset, [odd]), forward) is None
    assert f"in {odd} than in the others: --motion_direction forward. Convert" in contradiction(
        both, MotionConvention()
    )
    assert contradiction(both, forward).endswith("Pass --motion_direction backward")
    assert "Pass --motion_direction forward" in contradiction(recorded_check(csv, dataset, [odd]), MotionConvention())


def test_a_record_serves_the_parts_of_its_csv(recorded):
    part = recorded.with_name("my_train.csv")
    assert recorded_check(part, recorded.parent / "scenes", ["two"]) is not None
    assert recorded_check(part, recorded.parent / "scenes", ["two", "three"]) is None


def test_a_record_serves_copies_and_no_other_files(recorded):
    scenes = recorded.parent / "scenes"
    copy = shutil.copytree(scenes, recorded.parent / "copied", copy_function=shutil.copyfile)
    assert recorded_check(recorded, copy, ["one", "two"]) is not None
    motion = scenes / "two/motion_vectors/motion_vectors_0004.npy"
    np.save(motion, 2 * np.load(motion))
    assert recorded_check(recorded, scenes, ["one", "two"]) is None
    assert recorded_check(recorded, scenes, ["one"]) is not None


def test_the_record_of_the_list_itself_comes_before_a_newer_one_of_another(recorded):
    """Two data sets may share their motion files and differ in depth."""
    newer = record_path(recorded.with_name("another.csv"))
    content = json.loads(record_path(recorded).read_text())
    newer.write_text(json.dumps({**content, "checked": "2999-01-01T00:00:00+00:00"}))
    for name, record in (("my", "my"), ("my_train", "my"), ("another", "another"), ("third", "another")):
        found = recorded_check(recorded.with_name(f"{name}.csv"), recorded.parent / "scenes", ["one", "two"])
        assert found.path.name == f"{record}.check.json"


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
    assert recorded_check(recorded, recorded.parent / "scenes", ["one"]) is None


# --------------------------------------------------------------------------------------- rows, and the quick check


@pytest.mark.parametrize(
    ("content", "severity", "code", "says"),
    [
        (b"", "error", "csv_empty", "found an empty file"),
        (b"video,prompt\n", "error", "csv_empty", "found no row"),
        (b"scene,prompt\na,b\n", "error", "csv_columns", "found the columns scene, prompt"),
        (b'video,prompt\na,"b\n', "error", "csv_broken", "not readable, expected a CSV"),
        (b"video,prompt\na,b\na,b, c\n", "error", "csv_fields", "row 2: my.csv: found 3 fields, expected 2"),
        (b"video,prompt\na,caf\xe9\n", "error", "csv_not_utf8", "row 1: my.csv: found text that is not UTF-8"),
        (b"video,prompt\na,b\na, \n", "error", "prompt_empty", "row 2: my.csv: found an empty prompt"),
        (b"video,prompt\n,b\n", "error", "video_empty", "row 1: my.csv: found an empty video"),
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


def test_a_tokenizer_counts_exactly(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("video,prompt\na,two words\nb,two other words\n")
    _, findings = check_rows(path, count_tokens=lambda prompt: 256 * len(prompt.split()))
    (finding,) = findings
    assert (finding.code, finding.row) == ("prompt_long", 2)
    assert "768 tokens" in finding.message


def test_the_quick_check_lists_every_problem_row_by_row(demo_scenes, tmp_path):
    link(demo_scenes, tmp_path / "scenes")
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


@pytest.mark.parametrize("num_frames", [5, 9, 13])
@pytest.mark.parametrize("stride", ["auto", 1, 2, 3])
@pytest.mark.parametrize("offset", [0, 1, -1])
def test_windows_are_those_of_training(tmp_path, num_frames, stride, offset):
    plain_scene(tmp_path / "scene", frames=12)
    operator = create_motion_data_operator(tmp_path, 32, 32, num_frames, stride, motion_frame_offset=offset)
    try:
        expected = operator.stride("scene"), operator.num_windows("scene")
    except ValueError:
        expected = (0, 0)
    assert windows(12, num_frames, stride, offset) == expected
