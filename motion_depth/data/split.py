"""A list of scenes as two lists, to train on and to hold out; and what was edited in these, taken back into the one.

Beside `my.csv` lie `my_train.csv`, `my_val.csv` and `my.split.json`: the rows as they were written into the two. So it
can be told on which side a row was edited since: one edit counts, two that differ are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from motion_depth.files.atomic import expect_file
from motion_depth.files.tables import COLUMNS, read_csv

PARTS = ("train", "val")
SUFFIX = ".split.json"

Row = dict[str, str]


def part_path(path: Path, part: str) -> Path:
    return path.with_name(f"{path.stem}_{part}{path.suffix}")


def record_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}{SUFFIX}")


def record_text(rows: list[Row]) -> str:
    return json.dumps({"rows": rows}, indent=1, ensure_ascii=False) + "\n"


def scene_of(row: Row) -> str:
    """The row's scene as find_scenes writes it, however it stands in the CSV ("./a/b/" -> "a/b")."""
    return str(PurePosixPath(row["video"].strip()))


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
    return {
        "train": [row for row in rows if scene_of(row) not in held_out],
        "val": [row for row in rows if scene_of(row) in held_out],
    }


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


def read_split(path: Path, make_prompt: Callable[[str], str]) -> Split:
    """The lists beside `path`, if there are any; empty prompts are filled in. Raises ValueError for a broken one."""
    columns, rows, files = [], defaultdict(list), {}
    for file in (part_path(path, part) for part in PARTS):
        if not file.exists():
            continue
        found, lines = read_csv(file)
        columns += [name for name in found if name not in columns]
        others = {scene: list(its) for scene, its in rows.items()}
        for row in lines:
            scene = scene_of(row)
            row["prompt"] = row["prompt"] if row["prompt"].strip() else make_prompt(row["video"])
            if row not in others.get(scene, []):  # copied from one list to the other it counts once
                rows[scene].append(row)
            files.setdefault(scene, file)
    try:
        before = by_scene(json.loads(expect_file(record_path(path)).read_text())["rows"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        before = None
    return Split(path, columns, dict(rows), files, before)


def by_scene(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found = defaultdict(list)
    for row in rows:
        found[scene_of(row)].append(row)
    return dict(found)


def take_back(
    split: Split, columns: list[str], rows: list[Row], make_prompt: Callable[[str], str]
) -> tuple[list[str], list[Row], list[str]]:
    """Columns and rows of the list with what was edited in the two since; and what there is to say about it.

    What was written into the two is known from the record; without one, the generated prompt counts as unedited.

    Raises:
        ValueError: the same was edited in both ways, or a scene that is no more was edited; nothing is lost then.
    """
    ours = by_scene(rows)
    taken, problems = {}, []
    for scene, theirs in split.rows.items():
        mine = ours.get(scene, [])
        if split.before is None:
            before = [{"prompt": make_prompt(row["video"])} for row in mine or theirs[:1]]
        else:
            before = split.before.get(scene, [])
        found = _merge(mine, theirs, before, problems, f"{scene}, ", (split.path.name, split.files[scene].name))
        if found is not mine:
            taken[scene] = found
    if problems:
        lines = "\n  ".join(problems)
        raise ValueError(f"{split.path}: {len(problems)} edits contradict; make them the same in both files\n  {lines}")
    known = {name for its in (split.before or {}).values() for row in its for name in row} | set(COLUMNS)
    merged = _in_order(rows, taken)
    further = [name for name in split.columns if name not in columns]
    columns = columns + [name for name in further if name not in known or any(row.get(name) for row in merged)]
    notes = []
    if taken:
        files = " and ".join(dict.fromkeys(str(split.files[scene]) for scene in taken))
        notes.append(f"edits in {files} are taken over into {split.path}: {_some(taken)}")
    if split.before and (out := [scene for scene in split.before if scene in ours and scene not in split.rows]):
        notes.append(f"taken out of the split and listed again, because their folders are there: {_some(out)}")
    return columns, [{name: row.get(name, "") for name in columns} for row in merged], notes


def moved(split: Split, parts: dict[str, list[Row]]) -> list[str]:
    """A note, if scenes are now in the other list."""
    new = {scene_of(row): part_path(split.path, part) for part, rows in parts.items() for row in rows}
    found = [scene for scene, file in split.files.items() if new.get(scene, file) != file]
    return [f"now in the other list: {_some(found)}; --seed and the number held out decide"] if found else []


def _merge(
    mine: list[Row], theirs: list[Row], before: list[Row], problems: list[str], what: str, names: tuple[str, str]
) -> list[Row]:
    """A scene's rows with the edits of both sides; `mine` itself if the others say nothing new."""
    columns = list(dict.fromkeys(name for row in (*mine, *theirs, *before) for name in row if name != "video"))
    one, other, was = (
        [[row.get(name, "").strip() for name in columns] for row in its] for its in (mine, theirs, before)
    )
    if other == was or all(row in one for row in other):
        return mine
    if one == was and mine:  # without any there is no such scene
        return theirs
    if not len(one) == len(other) == len(was):
        problems.append(f"{what}rows: {names[0]} has {_shown(mine)}, {names[1]} has {_shown(theirs)}")
        return mine
    merged = [dict(row) for row in mine]
    for row, *cells in zip(merged, one, other, was, strict=True):
        for name, here, there, old in zip(columns, *cells, strict=True):
            if there in (here, old):
                continue
            if here != old:
                problems.append(f"{what}{name}: {names[0]} has {here!r}, {names[1]} has {there!r}")
            row[name] = there
    return merged


def _in_order(rows: list[Row], taken: dict[str, list[Row]]) -> list[Row]:
    """The rows, those of some scenes replaced where the scene's first one stood."""
    left, merged = dict(taken), []
    for row in rows:
        scene = scene_of(row)
        merged += left.pop(scene, []) if scene in taken else [row]
    return merged


def _shown(rows: list[Row]) -> str:
    return " and ".join(repr(row["prompt"]) for row in rows) or "none"


def _some(scenes: Iterable[str]) -> str:
    names = list(scenes)
    return f"{', '.join(names[:3])}{f', ... ({len(names)} in all)' if len(names) > 3 else ''}"
