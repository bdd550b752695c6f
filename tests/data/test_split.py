"""tools/make_metadata.py --val_scenes: what was edited in the list or in the two made from it is nowhere lost."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.inprocess import snapshot
from tests.tools.test_make_metadata import NAMES, run, write_scene

Edit = Callable[[list[dict[str, str]]], object]


class Lists:
    """The three lists, with the prompts of two scenes: `a` is trained on, `b` held out."""

    def __init__(self, folder: Path):
        self.base, self.main = folder / "scenes", folder / "lists/my.csv"
        self.files = {"main": self.main, "train": self.main.with_name("my_train.csv"),
                      "val": self.main.with_name("my_val.csv")}  # fmt: skip
        self.record = self.main.with_name("my.split.json")
        for name in NAMES:
            write_scene(self.base / name)
        self.split()
        self.a, self.b = self.read("train")[0]["video"], self.read("val")[0]["video"]

    def split(self, *flags: object) -> int:
        return run(self.base, self.main, *(flags or ("--val_scenes", 1)))

    def read(self, which: str) -> list[dict[str, str]]:
        with self.files[which].open(newline="") as file:
            return list(csv.DictReader(file))

    def edit(self, which: str, scene: str, **fields: str) -> None:
        """Changes a scene's row, as a person would; a further column is empty in the other rows."""
        rows = self.read(which)
        columns = dict.fromkeys([*rows[0], *fields])
        for row in rows:
            row |= {name: row.get(name, "") for name in columns} | (fields if row["video"] == scene else {})
        self.write(which, list(columns), rows)

    def write(self, which: str, columns: list[str], rows: list[dict[str, str]]) -> None:
        with self.files[which].open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    def found(self, scene: str, name: str = "prompt") -> set[str]:
        """A field of a scene in the main list and in the one of the two that has it."""
        rows = [row for which in self.files for row in self.read(which) if row["video"] == scene]
        assert len(rows) == 2
        return {row[name] for row in rows}


@pytest.fixture
def lists(tmp_path) -> Lists:
    return Lists(tmp_path)


@pytest.mark.parametrize("with_record", [True, False])
@pytest.mark.parametrize("which", ["main", "train"])
def test_an_edit_in_any_of_the_lists_comes_into_all(lists, which, with_record, capsys):
    if not with_record:
        lists.record.unlink()
    lists.edit(which, lists.a, prompt="Mine, with a comma.")
    capsys.readouterr()
    assert lists.split() == 0
    assert lists.found(lists.a) == {"Mine, with a comma."}
    taken = f"note: edits in {lists.files['train']} are taken over into {lists.main}: {lists.a}"
    assert (taken in capsys.readouterr().out) == (which == "train")
    before = snapshot(lists.main.parent)
    assert lists.split() == 0
    assert snapshot(lists.main.parent) == before
    assert "note" not in capsys.readouterr().out


def test_edits_of_all_three_lists_come_together(lists):
    lists.edit("main", lists.a, prompt="One.")
    lists.edit("val", lists.b, prompt="Two.", note="seen from above")
    other = lists.read("train")[1]["video"]
    lists.edit("train", other, prompt="Three.", quality="3")
    assert lists.split() == 0
    assert [lists.found(scene) for scene in (lists.a, lists.b, other)] == [{"One."}, {"Two."}, {"Three."}]
    assert list(lists.read("main")[0]) == ["video", "prompt", "quality", "note"]
    assert lists.found(lists.b, "note") == {"seen from above"}
    assert lists.found(other, "quality") == {"3"}


def test_the_list_may_be_edited_again_and_again(lists):
    for number, which in enumerate(["main", "train", "train", "main", "main", "train"]):
        lists.edit(which, lists.a, prompt=f"Prompt {number}.")
        assert lists.split() == 0
        assert lists.found(lists.a) == {f"Prompt {number}."}


@pytest.mark.parametrize("with_record", [True, False])
def test_two_edits_of_one_field_are_refused_with_both_texts(lists, with_record, capsys):
    if not with_record:
        lists.record.unlink()
    lists.edit("main", lists.b, prompt="Here.")
    lists.edit("val", lists.b, prompt="There.")
    before = snapshot(lists.main.parent)
    assert lists.split() == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {lists.main}: 1 edits contradict; make them the same in both files\n")
    assert f"  {lists.b}: my.csv has prompt 'Here.', my_val.csv has prompt 'There.'\n" in error
    assert snapshot(lists.main.parent) == before
    lists.edit("main", lists.b, prompt="There.")
    assert lists.split() == 0
    assert lists.found(lists.b) == {"There."}


def test_edits_survive_another_choice_of_scenes(lists, capsys):
    lists.edit("train", lists.a, prompt="Mine.", note="x")
    seed = 1
    while lists.split("--val_scenes", 1, "--seed", seed) == 0 and lists.read("val")[0]["video"] != lists.a:
        seed += 1
    assert [row["prompt"] for row in lists.read("val")] == ["Mine."]
    assert lists.found(lists.a, "note") == {"x"}
    assert "now in the other list: " in capsys.readouterr().out
    assert lists.split("--val_fraction", 0.5) == 0
    assert lists.found(lists.a) == {"Mine."}


def test_a_column_that_was_taken_out_of_the_list_stays_out(lists):
    lists.edit("main", lists.a, note="x")
    assert lists.split() == 0
    lists.write("main", ["video", "prompt"], [{k: row[k] for k in ("video", "prompt")} for row in lists.read("main")])
    assert lists.split() == 0
    assert all("note" not in row for which in lists.files for row in lists.read(which))


def test_an_emptied_prompt_is_generated_again_as_in_the_list(lists):
    generated = lists.found(lists.a)
    lists.edit("main", lists.a, prompt="Mine.")
    assert lists.split() == 0
    lists.edit("train", lists.a, prompt=" ")
    assert lists.split() == 0
    assert lists.found(lists.a) == generated


def test_a_second_prompt_of_a_scene_may_be_added_in_any_list(lists):
    for which in ("train", "main"):
        rows = lists.read(which)
        place = next(number for number, row in enumerate(rows) if row["video"] == lists.a)
        rows.insert(place, {"video": lists.a, "prompt": f"Added to {which}."})
        lists.write(which, ["video", "prompt"], rows)
        assert lists.split() == 0
    prompts = [row["prompt"] for row in lists.read("main") if row["video"] == lists.a]
    assert len(prompts) == 3
    assert {"Added to train.", "Added to main."} < set(prompts)
    assert [row["prompt"] for row in lists.read("train") if row["video"] == lists.a] == prompts


def test_rows_moved_copied_and_taken_out_by_hand_are_told(lists, capsys):
    train, val = lists.read("train"), lists.read("val")
    lists.write("val", ["video", "prompt"], [*val, train[0], train[1]])
    lists.write("train", ["video", "prompt"], train[1:2])
    capsys.readouterr()
    assert lists.split() == 0
    printed = capsys.readouterr().out
    assert f"note: now in the other list: {train[0]['video']}; --seed and the number held out decide" in printed
    assert f"taken out of the split and listed again, because their folders are there: {train[2]['video']}" in printed
    assert lists.read("train") == train
    assert lists.read("val") == val
    assert len(lists.read("main")) == len(NAMES)


@pytest.mark.parametrize("edited", [True, False])
def test_a_scene_whose_folder_is_gone_goes_unless_it_was_edited(lists, edited, capsys):
    if edited:
        lists.edit("train", lists.a, prompt="Mine.")
    (lists.base / lists.a).rename(lists.base.parent / "away")
    lists.write("main", ["video", "prompt"], [row for row in lists.read("main") if row["video"] != lists.a])
    before = snapshot(lists.main.parent)
    assert lists.split() == (2 if edited else 0)
    if edited:
        assert f"{lists.a}: my.csv has none, my_train.csv has prompt 'Mine.'" in capsys.readouterr().err
        assert snapshot(lists.main.parent) == before
    else:
        assert lists.a not in {row["video"] for which in lists.files for row in lists.read(which)}


def test_a_row_of_no_scene_added_to_a_split_list_is_refused(lists, capsys):
    lists.write("val", ["video", "prompt"], [*lists.read("val"), {"video": "nowhere", "prompt": "Mine."}])
    assert lists.split() == 2
    assert "nowhere: my.csv has none, my_val.csv has prompt 'Mine.'" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": 3}', '{"rows": [{"prompt": "x"}]}'])
def test_a_broken_record_is_none(lists, text):
    lists.record.write_text(text)
    lists.edit("train", lists.a, prompt="Mine.")
    assert lists.split() == 0
    assert lists.found(lists.a) == {"Mine."}
    assert len(json.loads(lists.record.read_text())["rows"]) == len(NAMES)


def test_a_broken_split_list_is_an_error_and_without_a_split_none_is_touched(lists, capsys):
    lists.edit("main", lists.a, prompt="Mine.")
    lists.files["val"].write_text("video,prompt,prompt\na,b,c\n")
    before = snapshot(lists.main.parent)
    assert lists.split() == 2
    assert "my_val.csv: found the columns video, prompt, prompt, expected" in capsys.readouterr().err
    assert snapshot(lists.main.parent) == before
    assert run(lists.base, lists.main) == 0
    assert f"note: {lists.files['val']} stays as it was; --val_scenes" in capsys.readouterr().out
    changed = {name for name, found in snapshot(lists.main.parent).items() if found != before[name]}
    assert changed <= {str(lists.main)}  # whose line ends may be others


def test_the_lists_without_edits_are_brought_up_to_date(lists):
    write_scene(lists.base / "new/env_0")
    lists.edit("main", lists.b, prompt="Mine.")
    assert lists.split() == 0
    assert len(lists.read("main")) == len(lists.read("train")) + len(lists.read("val")) == len(NAMES) + 1
    assert lists.found(lists.b) == {"Mine."}
