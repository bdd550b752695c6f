"""Finds the scenes of a dataset and lists them with a prompt each in a CSV; keeps what a person edited there.

    python tools/make_metadata.py --dataset_base_path Sim_Physics --output data/my_metadata.csv
    python tools/make_metadata.py --dataset_base_path Sim_Physics --output data/my_metadata.csv --val_scenes 3
    python tools/make_metadata.py --dataset_base_path Sim_Physics --output data/my_metadata.csv --check --report check
    python tools/make_metadata.py --dataset_base_path Sim_Physics --dataset_metadata_path data/my_metadata.csv --check

A scene is a folder, at any depth, that holds rgb/, motion_vectors/ and distance_to_camera/. Run again, it keeps the
order of the rows, the prompts and every further column, and appends scenes that are new. `--val_scenes N` or
`--val_fraction F` also write my_metadata_train.csv and my_metadata_val.csv from it, split by scene folder (env_0 and
env_1 of one test are two scenes). Which scenes are held out depends on their names and `--seed` alone. Prompts and
columns may be edited in any of the three: the next split takes edits of the two over into my_metadata.csv. A scene
edited differently in two of them is an error that shows both. my_metadata.split.json holds what was written last,
by which an edit is known.

`--check` reads every file of the CSV's scenes once and says what is wrong with them, which motion convention they
follow, and which flags to pass to training; `--report DIR` writes it as DIR/report.html and DIR/report.json. The last
line above checks a CSV as it is. What was measured is kept beside the CSV in my_metadata.check.json: training refuses
flags that contradict it. Pass the flags that training will get: the check is for these.

Exit status: 0; 1 if the check found an error or a warning; 2 with the reason on stderr if something could not be done:
then no CSV was written.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from motion_depth.data import split
from motion_depth.data.layouts import find_scenes, open_scene, what_scenes_are
from motion_depth.data.prompts import make_prompt
from motion_depth.data.scene import Scene
from motion_depth.files.atomic import expect_file, write_whole
from motion_depth.files.tables import COLUMNS
from motion_depth.latents import WAN22


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_base_path", type=Path, required=True, help="folder that holds the scenes")
    parser.add_argument("--output", type=Path, help="CSV to write, or to bring up to date")
    held_out = parser.add_mutually_exclusive_group()
    held_out.add_argument("--val_scenes", type=int, help="hold out this many scenes; default: no split")
    held_out.add_argument("--val_fraction", type=float, help="hold out this share of the scenes; default: no split")
    parser.add_argument("--seed", type=int, default=0, help="which scenes are held out")
    check = parser.add_argument_group("check", "the flags that training will get, and what only the check needs")
    add = check.add_argument
    add("--check", action="store_true", help="read every file and say what is wrong; default: only list the scenes")
    add("--dataset_metadata_path", type=Path, help="CSV to check as it is, instead of --output")
    add("--report", type=Path, metavar="DIR", help="folder for report.html and report.json; default: none")
    add("--num_frames", type=int, default=49, help="frames of a clip, 4k+1")
    add("--frame_stride", default="auto", help="rendered frames per frame of a clip; auto: the largest that fits")
    add("--motion_units", default="pixels", help="of the files: pixels, normalized (by size) or ndc (by half of it)")
    add("--motion_direction", default="backward", help="backward (Replicator, x positive to the left) or forward")
    add("--motion_y_axis", default="down", help="direction of y in motion_vectors as backward flow: down or up")
    add("--motion_frame_offset", type=int, default=0, help="frame t's motion lies in file t + this: 0, 1 or -1")
    add("--workers", type=int, help="processes that read; default: one for each core")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        expect_flags(args)
        check = prepare_check(args) if args.check else lambda: 0
        problem = None
        if args.output is not None:
            try:
                write_list(args)
            except ValueError as error:
                if not args.check:
                    raise
                problem = error  # the check says what else is wrong
        status = check()
        if problem is not None:
            raise problem
        return status
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def expect_flags(args: argparse.Namespace) -> None:
    """Raises ValueError naming the flag that is missing, or needs another."""
    if (args.output is None) == (args.dataset_metadata_path is None):
        raise ValueError("give one of --output, a CSV to write, and --dataset_metadata_path, a CSV to check as it is")
    if args.report is not None and not args.check:
        raise ValueError("--report: needs --check")
    if args.output is None and not args.check:
        raise ValueError("--dataset_metadata_path: needs --check; --output writes a CSV")
    if args.output is not None and args.output.is_dir():
        raise ValueError(f"--output {args.output}: is a folder; give the name of a CSV file")


# ---------------------------------------------------------------------------------------------------------- the list


def write_list(args: argparse.Namespace) -> None:
    """Writes the CSV, and its parts if asked for; nothing before all of it is known."""
    path, base = args.output, args.dataset_base_path
    name_scene = partial(make_prompt, base_name=base.resolve().name)
    scenes = survey(base)
    columns, rows = split.read_rows(path, name_scene) if path.exists() else (list(COLUMNS), [])
    if gone := [row["video"] for row in rows if split.scene_of(row) not in scenes]:
        raise ValueError(  # never dropped, and a training job would fail on it
            f"{path}: {len(gone)} rows name a folder that is no scene under {base}: {', '.join(gone)}; "
            "put the folders back, or take these rows out"
        )
    listed = {split.scene_of(row) for row in rows}
    new = [name for name in scenes if name not in listed]
    rows += [dict.fromkeys(columns, "") | {"video": name, "prompt": name_scene(name)} for name in new]
    parts, notes = {}, []
    if args.val_scenes is not None or args.val_fraction is not None:
        count = split.count_validation(len(scenes), args.val_scenes, args.val_fraction)
        before = split.read_split(path, name_scene)
        columns, rows, notes = split.take_back(before, columns, rows, name_scene)
        parts = split.split_rows(rows, count, args.seed)
        notes += split.moved(before, parts)
    else:
        old = [part for part in split.PARTS if split.part_path(path, part).exists()]
        stays = "stays as it was; --val_scenes or --val_fraction brings it up to date"
        notes += [f"{split.part_path(path, part)} {stays}" for part in old]

    print_scenes(scenes, rows, new)
    for file, its in {path: rows, **{split.part_path(path, part): its for part, its in parts.items()}}.items():
        write_changed(file, csv_text(columns, its))
        print(f"{file}: {len(its)} rows")
    if parts:
        write_changed(split.record_path(path), split.record_text(rows))
    for note in notes:
        print(f"note: {note}")


def survey(base_path: Path) -> dict[str, Scene]:
    """Looks into every scene under `base_path`. Raises ValueError with all problems, a line each."""
    names, scenes, problems = find_scenes(base_path), {}, []
    if not names:
        raise ValueError(f"--dataset_base_path {base_path}: no scene found; a scene is {what_scenes_are()}")
    for name in names:
        try:
            scenes[name] = open_scene(base_path, name)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError(f"{len(problems)} of {len(names)} scenes cannot be used:\n  " + "\n  ".join(problems))
    return scenes


def print_scenes(scenes: dict[str, Scene], rows: list[split.Row], new: list[str]) -> None:
    """A line per row, then the totals."""
    space = max(map(len, scenes))
    for row in rows:
        scene = scenes[split.scene_of(row)]
        mark, shape = "new " if scene.name in new else "kept", f"{scene.width:4d}x{scene.height:<4d}"
        print(f"{mark} {scene.name:<{space}} {len(scene.frame_ids):5d} frames {shape} {row['prompt']}")
    lengths = sorted({len(scene.frame_ids) for scene in scenes.values()})
    frames = " to ".join(str(length) for length in dict.fromkeys((lengths[0], lengths[-1])))
    sizes = ", ".join(sorted({f"{scene.width}x{scene.height}" for scene in scenes.values()}))
    print(f"{len(scenes)} scenes of {frames} frames, {sizes} (width x height); {len(new)} new")


def csv_text(columns: list[str], rows: list[split.Row]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_changed(path: Path, text: str) -> None:
    """Writes the whole file or leaves the old one; a file that would not change is not touched."""
    if not path.exists() or expect_file(path).read_bytes() != text.encode():
        write_whole(path, text)


# --------------------------------------------------------------------------------------------------------- the check


def prepare_check(args: argparse.Namespace) -> Callable[[], int]:
    """The check, to be called: prints and keeps what it finds, and returns the exit status.

    Raises ValueError naming the flag of training that is wrong.
    """
    from motion_depth.data.convention import MotionConvention
    from motion_depth.doctor.check import Settings, check_dataset  # torch comes with it: listing scenes needs none
    from motion_depth.doctor.record import write_record
    from motion_depth.doctor.report import text, write_report

    WAN22.check_frames(args.num_frames)
    if args.frame_stride != "auto" and not (args.frame_stride.isdecimal() and int(args.frame_stride) > 0):
        raise ValueError(f"--frame_stride: found {args.frame_stride}, expected a whole number from 1 on, or auto")
    stride = "auto" if args.frame_stride == "auto" else int(args.frame_stride)
    convention = MotionConvention(
        args.motion_units, args.motion_direction, args.motion_y_axis, args.motion_frame_offset
    )
    settings = Settings(args.num_frames, stride, convention)

    def check() -> int:
        path = args.dataset_metadata_path or (args.output if args.output.is_file() else None)
        checked = check_dataset(args.dataset_base_path, path, settings, args.workers, progress=sys.stderr.isatty())
        print(text(checked))
        if path is not None:
            print(f"kept in {write_record(path, checked)}")
        if args.report is not None:
            print(f"report: {write_report(checked, args.report)}")
        return 1 if checked.count("error") or checked.count("warning") else 0

    return check


if __name__ == "__main__":
    sys.exit(main())
