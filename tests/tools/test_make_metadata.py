"""tools/make_metadata.py: what it finds, what it writes, and that it keeps what a person wrote."""

import csv
import re
import shutil
from pathlib import Path

import pytest

from motion_depth.data.prompts import make_prompt
from tests.support.inprocess import snapshot
from tests.support.scene_files import plain_scene
from tools import make_metadata

ROOT = Path(__file__).resolve().parents[2]
SHIPPED_CSV = ROOT / "data/sim_physics_metadata.csv"
NAMES = (
    "test_ball_ramp/env_0/0/0",
    "test_ball_ramp/env_1/0/0",
    "test_duck_static/env_0/0/0",
    "more/deep/test_ball_train",
)


def write_scene(folder: Path) -> None:
    """Three frames of 4 x 6."""
    plain_scene(folder, 3, size=(4, 6))


@pytest.fixture
def base(tmp_path) -> Path:
    for name in NAMES:
        write_scene(tmp_path / "scenes" / name)
    return tmp_path / "scenes"


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "lists" / "my.csv"


def run(base: Path, output: Path, *flags: object) -> int:
    return make_metadata.main(["--dataset_base_path", str(base), "--output", str(output), *map(str, flags)])


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_lists_every_scene_at_any_depth_and_says_what_it_found(base, output, capsys):
    assert run(base, output) == 0
    assert [row["video"] for row in rows_of(output)] == sorted(NAMES)
    assert all(set(row) == {"video", "prompt"} for row in rows_of(output))
    printed = capsys.readouterr().out
    assert f"{len(NAMES)} scenes of 3 frames, 6x4" in printed
    for name in NAMES:
        assert name in printed


def test_edits_further_columns_and_order_survive_and_new_scenes_follow(base, output):
    output.parent.mkdir()
    edited = 'A ball, "quickly", rolls.'
    with output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(
            [("id", "video", "prompt", "note"), ("007", NAMES[2], edited, ""), ("NA", NAMES[0], " ", "x,y")]
        )
    assert run(base, output) == 0
    rows = rows_of(output)
    assert [row["video"] for row in rows] == [NAMES[2], NAMES[0], *sorted(set(NAMES) - {NAMES[0], NAMES[2]})]
    assert [row["id"] for row in rows] == ["007", "NA", "", ""]
    assert [row["note"] for row in rows] == ["", "x,y", "", ""]
    assert rows[0]["prompt"] == edited
    assert rows[1]["prompt"] == "A ball and a ramp."  # an empty prompt is not an edit

    before = output.stat().st_mtime_ns, output.read_bytes()
    assert run(base, output) == 0
    assert (output.stat().st_mtime_ns, output.read_bytes()) == before


def test_a_linked_list_is_written_where_the_link_leads(base, output, tmp_path):
    assert run(base, output) == 0
    real = tmp_path / "elsewhere/real.csv"
    real.parent.mkdir()
    real.write_text(output.read_text().replace("A ball and a ramp.", "Mine.", 1))
    real.chmod(0o640)
    output.unlink()
    output.symlink_to("../elsewhere/real.csv")
    write_scene(base / "new")
    assert run(base, output) == 0
    assert output.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert len(rows_of(real)) == len(NAMES) + 1
    assert "Mine." in real.read_text()
    assert [path.name for path in real.parent.iterdir()] == ["real.csv"]


def test_a_row_in_another_spelling_is_not_listed_twice(base, output):
    output.parent.mkdir()
    output.write_text(f"\ufeffvideo, prompt\n ./{NAMES[0]}/,Mine.\n")  # as a spreadsheet program saves it
    assert run(base, output) == 0
    rows = rows_of(output)
    assert len(rows) == len(NAMES)
    assert rows[0] == {"video": f" ./{NAMES[0]}/", "prompt": "Mine."}


def test_the_split_is_by_scene_repeatable_and_covers_everything(base, output):
    def split(*flags: object) -> tuple[list[str], list[str]]:
        assert run(base, output, *flags) == 0
        train, val = (rows_of(output.with_name(f"my_{part}.csv")) for part in ("train", "val"))
        return [row["video"] for row in train], [row["video"] for row in val]

    train, val = split("--val_scenes", 1)
    assert (len(train), len(val)) == (3, 1)
    assert sorted(train + val) == sorted(NAMES)
    assert split("--val_scenes", 1) == split("--val_fraction", 0.25) == (train, val)
    assert any(split("--val_scenes", 1, "--seed", seed)[1] != val for seed in range(1, 6))
    assert set(val) <= set(split("--val_scenes", 2)[1])
    with output.open("a") as file:  # two rows of one scene fall on the same side
        file.writelines(f"{name},Another prompt.\n" for name in NAMES)
    train, val = split("--val_scenes", 2)
    assert not set(train) & set(val)
    assert len(val) == 4


def broken_scene(base: Path, output: Path) -> None:
    (base / NAMES[0] / "motion_vectors/motion_vectors_0001.npy").unlink()
    (base / NAMES[2] / "rgb/step_0000.png").write_bytes(b"no picture")


def write(content: str):
    return lambda _, output: output.write_text(content)


@pytest.mark.parametrize(
    ("spoil", "flags", "expected"),
    [
        (write("video,prompt\ntest_away/env_0/0/0,Gone.\n"), (),
         "1 rows name a folder that is no scene under .*: test_away/env_0/0/0"),
        (broken_scene, (), "2 of 4 scenes cannot be used:\n(?s:.*)motion_vectors(?s:.*)step_0000.png"),
        (write("file,prompt\n"), (), "found the columns file, prompt, expected video, prompt"),
        (lambda _, output: output.mkdir(), (), "is a folder"),
        (lambda base, _: shutil.rmtree(base), (), "--dataset_base_path .*scenes: there is no such folder\n$"),
        (lambda base, _: (shutil.rmtree(base), base.mkdir()), (),
         "--dataset_base_path .*scenes: no scene found; a scene is a folder that .*\n$"),
        (None, ("--val_scenes", 4), "--val_scenes 4: expected 1 to 3"),
        (None, ("--val_scenes", 0), "--val_scenes 0: expected 1 to 3"),
        (None, ("--val_fraction", 1), "--val_fraction 1.0: expected a number between 0 and 1"),
    ],
)  # fmt: skip
def test_a_problem_is_named_and_nothing_is_written(base, output, capsys, spoil, flags, expected):
    output.parent.mkdir()
    if spoil is not None:
        spoil(base, output)
    before = snapshot(base.parent)
    assert run(base, output, *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(expected, error), error
    assert snapshot(base.parent) == before


def test_a_scene_may_be_the_folder_itself(tmp_path, output):
    write_scene(tmp_path / "test_ball_hits_duck")
    assert run(tmp_path / "test_ball_hits_duck", output) == 0
    assert rows_of(output) == [{"video": ".", "prompt": "A ball hits a duck."}]


@pytest.mark.parametrize(
    ("scene", "prompt"),
    [
        ("test_ball_and_block_fall/env_0/0/0", "A ball and a block fall."),
        ("test_ball_collide/env_0/0/0", "Balls collide."),
        ("test_ball_hits_nothing", "A ball hits nothing."),
        ("test_ball_in_basket/env_3", "A ball in a basket."),
        ("test_ball_rolls_on_glass/env_0/0/0", "A ball rolls on glass."),
        ("test_ball_rolls_off/env_0/0/0", "A ball rolls off."),
        ("test_duck_static/env_0/0/0", "A duck stays still."),
        ("test_light_on_mug_block/env_0/0/0", "Light on a mug and a block."),
        ("test_roll_behind_box/env_0/0/0", "An object rolls behind a box."),
        ("test_roll_front_box/env_0/0/0", "An object rolls in front of a box."),
        ("batch7/EggFliesOverTable/run_12", "An egg flies over a table."),
        ("BallZoomsPastBox2", "A ball zooms past a box."),
        ("balls_drop", "Balls drop."),
        ("test_frob_the_widget/env_0", "A physics scene: frob the widget."),
        ("0/1/2", "A physics scene: my scenes."),
        ("test/env_0", "A physics scene."),
    ],
)
def test_prompts_read_like_sentences(scene, prompt):
    assert make_prompt(scene, base_name="my_scenes") == prompt


def test_the_shipped_list_is_whole_and_every_name_gets_a_sentence():
    rows = rows_of(SHIPPED_CSV)
    assert len({row["video"] for row in rows}) == 21
    for row in rows:
        name, env, *rest = row["video"].split("/")
        assert name.startswith("test_")
        assert (env, rest) == ("env_0", ["0", "0"])
        for prompt in (row["prompt"], make_prompt(row["video"], "")):
            assert prompt[0].isupper()
            assert prompt.endswith(".")
            assert "_" not in prompt
            assert not prompt.startswith("A physics scene")
        assert len(row["prompt"].split()) >= 8  # a description, not a title
