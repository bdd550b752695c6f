"""Physics scenes to train on without Isaac Sim: rigid bodies from MuJoCo, in the layout of Sim_Physics.

    python tools/demo/make_scenes.py --output demo/scenes                       # 21 scenes, 128x128, 33 frames
    python tools/demo/make_scenes.py --output demo/scenes --variations 4        # adds env_1, env_2, env_3 of each
    python tools/demo/make_scenes.py --output demo/more --first_variation 12 --variations 12  # env_12 to env_23
    python tools/demo/make_scenes.py --output demo/few --scenes ball_collide ball_ramp --camera orbit
    python tools/demo/make_scenes.py --output demo/full --height 480 --width 480 --num_frames 131   # as the dataset

A scene is a pure function of its name, variation and the flags. Run again, the tool adds the scenes that are missing.
"""

from __future__ import annotations

import argparse
import difflib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the scenes share the cores, one process each
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from motion_depth.progress import ProgressBar
from tools.demo.scenes import CAMERAS, SCENES
from tools.demo.scenes.write import STORES, Job, Settings, claimed, missing, require_space, write_scene

WRITERS = 8
SMALLEST = {"height": 16, "width": 16, "num_frames": 2, "variations": 1, "first_variation": 0, "seed": 0, "workers": 1}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, names = parser.add_argument, ", ".join(SCENES)
    add("--output", type=Path, required=True, help="folder for test_<name>/env_<variation>/0/0/...")
    add("--height", type=int, default=128, help="pixels")
    add("--width", type=int, default=128, help="pixels")
    add("--num_frames", type=int, default=33, help="frames per scene; the action always spans them all")
    add("--scenes", nargs="+", default=["all"], metavar="NAME", help=f"all, or some of: {names}")
    add("--variations", type=int, default=1, help="clips per scene: env_0, env_1, ...")
    add("--first_variation", type=int, default=0, help="the number that they begin with")
    add("--seed", type=int, default=0, help="another seed gives other positions, speeds, sizes and colours")
    add("--camera", choices=CAMERAS, default="static", help="orbit: the camera walks an arc of 14 degrees")
    add("--store", choices=STORES, default="full", help="half: motion and depth in float16, a third of the disk")
    add("--workers", type=int, default=default_workers(), help="processes (does not change the scenes)")
    return parser.parse_args(arguments)


def available_cores() -> int:
    """Cores that this process may use; not every system tells more than how many the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers() -> int:
    """More than there are cores, if these are few: a process that writes its files waits for the disk."""
    return max(available_cores(), WRITERS)


def scene_names(asked: list[str]) -> list[str]:
    """The names asked for, once each. ValueError for one that does not exist."""
    if asked == ["all"]:
        return list(SCENES)
    for name in asked:
        if name not in SCENES:
            close = difflib.get_close_matches(name, SCENES, 1)
            hint = f"did you mean {close[0]}?" if close else f"expected all, or some of: {', '.join(SCENES)}"
            raise ValueError(f"--scenes: there is no scene {name!r}; {hint}")
    return list(dict.fromkeys(asked))


def check_numbers(options: argparse.Namespace) -> None:
    for flag, least in SMALLEST.items():
        if getattr(options, flag) < least:
            raise ValueError(f"--{flag} is {getattr(options, flag)}; expected at least {least}")


def write_all(output: Path, jobs: list[Job], settings: Settings, workers: int) -> Iterator[None]:
    """Yields whenever one is done."""
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from (write_scene(output, job, settings) for job in jobs)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(write_scene, output, job, settings) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # one scene failed: do not make the others first
            raise


def make_scenes(options: argparse.Namespace) -> None:
    check_numbers(options)
    names = scene_names(options.scenes)
    settings = Settings(options.height, options.width, options.num_frames, options.seed, options.camera, options.store)
    variations = range(options.first_variation, options.first_variation + options.variations)
    jobs = [Job(name, variation) for name in names for variation in variations]
    with claimed(options.output, settings):
        todo = missing(options.output, jobs)
        if len(todo) < len(jobs):
            print(f"{len(jobs) - len(todo)} of {len(jobs)} scenes are in {options.output} already and stay as they are")
        if todo:
            size = require_space(options.output, settings, len(todo))
            shape = f"{settings.num_frames} frames, {settings.width}x{settings.height}"
            print(f"making {len(todo)} scenes of {shape}, up to {size / 1e9:.1f} GB")
        with ProgressBar(total=len(todo), desc="rendering", unit="scene") as bar:
            for _ in write_all(options.output, todo, settings, options.workers):
                bar.update()
    print(f"{len(jobs)} scenes in {options.output}")


def main() -> int:
    try:
        make_scenes(parse_arguments())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
