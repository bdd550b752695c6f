"""Finds the scenes of a dataset and lists them with a prompt each in a CSV; keeps what a person edited there.

    python tools/make_metadata.py --dataset_base_path Sim_Physics --output data/my_metadata.csv
    python tools/make_metadata.py --dataset_base_path Sim_Physics --output data/my_metadata.csv --val_scenes 3
    python tools/make_metadata.py --dataset_base_path Sim_Physics --output data/my_metadata.csv --check --report check
    python tools/make_metadata.py --dataset_base_path Sim_Physics --dataset_metadata_path data/my_metadata.csv --check

A scene is a folder, at any depth, that holds rgb/, motion_vectors/ and distance_to_camera/. Run again, it keeps the
order of the rows, the prompts and every further column, and appends scenes that are new. `--val_scenes N` or
`--val_fraction F` also write my_metadata_train.csv and my_metadata_val.csv from it, split by scene folder (env_0 and
env_1 of one test are two scenes). Which scenes are held out depends on their names and `--seed` alone. Prompts and
columns may be edited in any of the three: the next split takes edits of the two over into my_metadata.csv. The same
field edited differently in two of them is an error that shows both. my_metadata.split.json holds what was written last,
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
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from motion_depth.data.layouts import find_scenes, open_scene, what_scenes_are
from motion_depth.data.prompts import make_prompt
from motion_depth.data.scene import Scene
from motion_depth.data.split import (
    PARTS,
    count_validation,
    moved,
    part_path,
    read_split,
    record_path,
    record_text,
    scene_of,
    split_rows,
    take_back,
)
from motion_depth.files.atomic import expect_file, write_whole
from motion_depth.files.tables import COLUMNS, read_csv
from motion_depth.latents import WAN22

if TYPE_CHECKING:
    from motion_depth.doctor.check import Settings


def survey(base_path: Path) -> list[Scene]:
    """Looks into every scene under `base_path`. Raises ValueError with all problems, a line each."""
    scenes = find_scenes(base_path)
    if not scenes:
        raise ValueError(f"--dataset_base_path {base_path}: no scene found; a scene is {what_scenes_are()}")
    found, problems = [], []
    for scene in scenes:
        try:
            found.append(open_scene(base_path, scene))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError(f"{len(problems)} of {len(scenes)} scenes cannot be used:\n  " + "\n  ".join(problems))
    return found


def merge(path: Path, scenes: list[Scene], base_path: Path) -> tuple[list[str], list[dict[str, str]], list[str]]:
    """The rows of `path` if it exists, empty prompts filled in, and a row for every further scene.

    Returns (columns, rows, names of the scenes that are new). A row whose scene is not there is a ValueError: it is
    never dropped, and a training job would fail on it.
    """
    columns, rows = read_csv(path) if path.exists() else (list(COLUMNS), [])
    found = {scene.name for scene in scenes}
    listed = {scene_of(row) for row in rows}
    if gone := [row["video"] for row in rows if scene_of(row) not in found]:
        raise ValueError(
            f"{path}: {len(gone)} rows name a folder that is no scene under {base_path}: {', '.join(gone)}; "
            "put the folders back, or take these rows out"
        )
    base_name = base_path.resolve().name
    for row in rows:
        row["prompt"] = row["prompt"] if row["prompt"].strip() else make_prompt(row["video"], base_name)
    new = [scene.name for scene in scenes if scene.name not in listed]
    blank = dict.fromkeys(columns, "")
    rows += [{**blank, "video": scene, "prompt": make_prompt(scene, base_name)} for scene in new]
    return columns, rows, new


def write_rows(path: Path, columns: list[str], rows: list[dict[str, str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_changed(path, text.getvalue())


def write_changed(path: Path, text: str) -> None:
    """Writes the whole file or leaves the old one; a file that would not change is not touched."""
    if not path.exists() or expect_file(path).read_bytes() != text.encode():
        write_whole(path, text)


def print_report(scenes: list[Scene], rows: list[dict[str, str]], new: list[str]) -> None:
    """A line per row, then the totals."""
    by_name = {scene.name: scene for scene in scenes}
    space = max(len(name) for name in by_name)
    for row in rows:
        scene = by_name[scene_of(row)]
        mark = "new " if scene.name in new else "kept"
        frames = f"{len(scene.frame_ids):5d} frames"
        print(f"{mark} {scene.name:<{space}} {frames} {scene.width:4d}x{scene.height:<4d} {row['prompt']}")
    lengths = sorted({len(scene.frame_ids) for scene in scenes})
    sizes = sorted({f"{scene.width}x{scene.height}" for scene in scenes})
    frames = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
    print(f"{len(scenes)} scenes of {frames} frames, {', '.join(sizes)} (width x height); {len(new)} new")


def write_list(args: argparse.Namespace) -> None:
    """Writes the CSV, and its parts if asked for."""
    scenes = survey(args.dataset_base_path)
    if args.output.is_dir():
        raise ValueError(f"--output {args.output}: is a folder; give the name of a CSV file")
    columns, rows, new = merge(args.output, scenes, args.dataset_base_path)
    parts, notes = {}, []
    if args.val_scenes is not None or args.val_fraction is not None:
        count = count_validation(len(scenes), args.val_scenes, args.val_fraction)
        name = partial(make_prompt, base_name=args.dataset_base_path.resolve().name)
        split = read_split(args.output, name)
        columns, rows, notes = take_back(split, columns, rows, name)
        parts = split_rows(rows, count, args.seed)
        notes += moved(split, parts)
    else:
        there = [path for part in PARTS if (path := part_path(args.output, part)).exists()]
        notes += [f"{path} stays as it was; --val_scenes or --val_fraction brings it up to date" for path in there]

    print_report(scenes, rows, new)
    write_rows(args.output, columns, rows)
    print(f"{args.output}: {len(rows)} rows")
    for part, chosen in parts.items():
        write_rows(part_path(args.output, part), columns, chosen)
        print(f"{part_path(args.output, part)}: {len(chosen)} rows")
    if parts:
        write_changed(record_path(args.output), record_text(rows))
    for note in notes:
        print(f"note: {note}")


def run(args: argparse.Namespace) -> int:
    if (args.output is None) == (args.dataset_metadata_path is None):
        raise ValueError("give one of --output, a CSV to write, and --dataset_metadata_path, a CSV to check as it is")
    if args.report is not None and not args.check:
        raise ValueError("--report: needs --check")
    if args.output is None and not args.check:
        raise ValueError("--dataset_metadata_path: needs --check; --output writes a CSV")
    settings = check_settings(args) if args.check else None
    problem = None
    if args.output is not None:
        try:
            write_list(args)
        except ValueError as error:
            if settings is None:
                raise
            problem = error  # the check says what else is wrong
    found = 0 if settings is None else check(args, settings)
    if problem is not None:
        raise problem
    return found


def check(args: argparse.Namespace, settings: Settings) -> int:
    """Checks the scenes, prints and keeps what was found. Returns the exit status."""
    from motion_depth.doctor.check import check_dataset
    from motion_depth.doctor.record import write_record
    from motion_depth.doctor.report import text, write_report

    metadata_path = args.dataset_metadata_path or (args.output if args.output.is_file() else None)
    count_tokens = token_counter(args.tokenizer_path) if args.tokenizer_path else None
    checked = check_dataset(
        args.dataset_base_path, metadata_path, settings, args.workers, sys.stderr.isatty(), count_tokens
    )
    print(text(checked))
    errors, warnings = checked.count("error"), checked.count("warning")
    if metadata_path is not None:
        kept = write_record(metadata_path, checked.prints, checked.verdict, checked.verdicts, checked.findings)
        print(f"kept in {kept}")
    if args.report is not None:
        print(f"report: {write_report(checked, args.report)}")
    return 1 if errors or warnings else 0


def check_settings(args: argparse.Namespace) -> Settings:
    """The flags of training that the check is for. Raises ValueError naming the flag."""
    from motion_depth.data.motion import MotionConvention
    from motion_depth.doctor.check import Settings  # torch comes with it, which listing scenes can do without

    WAN22.check_frames(args.num_frames)
    if args.frame_stride != "auto" and not (args.frame_stride.isdecimal() and int(args.frame_stride) > 0):
        raise ValueError(f"--frame_stride: found {args.frame_stride}, expected a whole number from 1 on, or auto")
    if args.tokenizer_path is not None and not args.tokenizer_path.is_dir():
        raise ValueError(f"--tokenizer_path {args.tokenizer_path}: there is no such folder")
    stride = "auto" if args.frame_stride == "auto" else int(args.frame_stride)
    convention = MotionConvention(
        args.motion_units, args.motion_direction, args.motion_y_axis, args.motion_frame_offset
    )
    return Settings(args.num_frames, stride, convention)


def token_counter(folder: Path) -> Callable[[str], int]:
    """How many tokens a prompt has, the end included."""
    from transformers import AutoTokenizer  # takes seconds to import

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return lambda prompt: len(tokenizer(prompt).input_ids)


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
    add("--tokenizer_path", type=Path, help="tokenizer's folder, to count a prompt's tokens; default: estimate them")
    add("--workers", type=int, help="processes that read; default: one for each core")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    try:
        return run(parse_args(argv))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
