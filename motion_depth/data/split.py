"""A list of scenes as two lists, to train on and to hold out; and what was edited in these, taken back into the one.

Beside `my.csv` lie `my_train.csv`, `my_val.csv` and `my.split.json`: the rows as they were written into the two. So it
can be told on which side a row was edited since: one edit counts, two that differ are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from motion_depth.data.findings import some
from motion_depth.files.atomic import expect_file
from motion_depth.files.tables import Row, read_csv

PARTS = ("train", "val")

MakePrompt = Callable[[str], str]  # of a scene's name


def part_path(path: Path, part: str) -> Path:
    return path.with_name(f"{path.stem}_{part}{path.suffix}")


def record_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.split.json")


def record_text(rows: list[Row]) -> str:
    return json.dumps({"rows": rows}, indent=1, ensure_ascii=False) + "\n"


def scene_of(row: Row) -> str:
    """The row's scene as find_scenes writes it, however it stands in the CSV ("./a/b/" -> "a/b")."""
    return str(PurePosixPath(row["video"].strip()))


def read_rows(path: Path, make_prompt: MakePrompt) -> tuple[list[str], list[Row]]:
    """Columns and rows of a list; empty prompts are filled in. Raises ValueError, see `read_csv`."""
    columns, rows = read_csv(path)
    for row in rows:
        row["prompt"] = row["prompt"] if row["prompt"].strip() else make_prompt(row["video"])
    return columns, rows


def count_validation(scenes: int, val_scenes: int | None, val_fraction: float | None) -> int:
    """How many scenes to hold out; at least one and not all. Raises ValueError naming the flag."""
    if val_fraction is not None:
        if not 0 < val_fraction < 1:
            raise ValueError(f"--val_fraction {val_fraction}: expected a number between 0 and 1")
        if scenes < 2:
            raise ValueError(f"--val_fraction {val_fraction}: {scenes} scene cannot be split")
        return min(scenes - 1, max(1, round(val_fraction * scenes)))
    if not 0 < val_scenes < scenes:
        raise ValueError(f"--val_scenes {val_scenes}: expected 1 to {scenes - 1}, because there are {scenes} scenes")
    return val_scenes


def split_rows(rows: list[Row], count: int, seed: int) -> dict[str, list[Row]]:
    """Rows of the parts "train" and "val"; all rows of a scene are in the same one.

    Held out are the scenes whose names hash lowest, so that a new scene hardly changes the choice.
    """
    scenes = {scene_of(row) for row in rows}
    held_out = sorted(scenes, key=lambda scene: hashlib.sha256(f"{seed}:{scene}".encode()).digest())[:count]
    sides = [(row, PARTS[scene_of(row) in held_out]) for row in rows]
    return {part: [row for row, side in sides if side == part] for part in PARTS}


@dataclass(frozen=True)
class Split:
    """The two lists as they lie there.

    Attributes:
        path: of the list that they were made from.
        columns: of both.
        rows: by scene.
        files: by scene, the list that its first row stands in.
        before: the rows that were written, by scene; None if that is not known.
    """

    path: Path
    columns: list[str]
    rows: dict[str, list[Row]]
    files: dict[str, Path]
    before: dict[str, list[Row]] | None


def read_split(path: Path, make_prompt: MakePrompt) -> Split:
    """The lists beside `path`, if there are any; empty prompts are filled in. Raises ValueError for a broken one."""
    columns, rows, files = {}, {}, {}
    for file in filter(Path.exists, (part_path(path, part) for part in PARTS)):
        found, lines = read_rows(file, make_prompt)
        columns |= dict.fromkeys(found)
        for scene, its in by_scene(lines).items():
            others = rows.get(scene, [])  # a row that was copied from one list to the other counts once
            rows[scene] = others + [row for row in its if row not in others]
            files.setdefault(scene, file)
    try:
        before = by_scene(json.loads(expect_file(record_path(path)).read_text())["rows"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        before = None
    return Split(path, list(columns), rows, files, before)


def by_scene(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(scene_of(row), []).append(row)
    return found


def take_back(
    split: Split, columns: list[str], rows: list[Row], make_prompt: MakePrompt
) -> tuple[list[str], list[Row], list[str]]:
    """Columns and rows of the list with what was edited in the two since; and what there is to say about it.

    What was written into the two is known from the record; without one, the generated prompt counts as unedited.

    Raises:
        ValueError: a scene was edited on both sides, or one that is no more was edited; nothing is lost then.
    """
    ours, taken, problems = by_scene(rows), {}, []
    for scene, theirs in split.rows.items():
        mine = ours.get(scene, [])
        generated = [{"prompt": make_prompt(row["video"])} for row in mine or theirs[:1]]
        before = generated if split.before is None else split.before.get(scene, [])
        here, there, old = map(_edits, (mine, theirs, before))
        if there == old or all(row in here for row in there):
            continue
        taken[scene] = theirs
        if here != old or not mine:  # without any there is no such scene
            names = split.path.name, split.files[scene].name
            shown = (f"{name} has {_shown(its)}" for name, its in zip(names, (here, there), strict=True))
            problems.append(f"{scene}: {', '.join(shown)}")
    if problems:
        lines = "\n  ".join(problems)
        raise ValueError(f"{split.path}: {len(problems)} edits contradict; make them the same in both files\n  {lines}")
    left = dict(taken)  # they take the place of the scene's first row
    rows = [new for row in rows for new in (left.pop(scene_of(row), []) if scene_of(row) in taken else [row])]
    columns = columns + [name for name in split.columns if name not in columns and any(row.get(name) for row in rows)]
    notes = []
    if taken:
        files = " and ".join(dict.fromkeys(str(split.files[scene]) for scene in taken))
        notes.append(f"edits in {files} are taken over into {split.path}: {_some(taken)}")
    if out := [scene for scene in split.before or () if scene in ours and scene not in split.rows]:
        notes.append(f"taken out of the split and listed again, because their folders are there: {_some(out)}")
    return columns, [{name: row.get(name, "") for name in columns} for row in rows], notes


def moved(split: Split, parts: dict[str, list[Row]]) -> list[str]:
    """A note, if scenes are now in the other list."""
    new = {scene_of(row): part_path(split.path, part) for part, rows in parts.items() for row in rows}
    found = [scene for scene, file in split.files.items() if new.get(scene, file) != file]
    return [f"now in the other list: {_some(found)}; --seed and the number held out decide"] if found else []


def _edits(rows: Iterable[Row]) -> list[Row]:
    """What a person may have written in a scene's rows; a column that is empty is as good as none."""
    return [{k: text.strip() for k, text in row.items() if k != "video" and text.strip()} for row in rows]


def _shown(rows: list[Row]) -> str:
    return " and ".join(", ".join(f"{name} {text!r}" for name, text in row.items()) for row in rows) or "none"


def _some(scenes: list[str]) -> str:
    return some(scenes) + (f" ({len(scenes)} in all)" if len(scenes) > 3 else "")
