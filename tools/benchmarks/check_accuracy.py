"""How often the dataset check is right: on sound scenes, and on the same scenes with files shifted by a frame.

    python tools/benchmarks/check_accuracy.py --output accuracy        # scenes in which all speeds up
    python tools/benchmarks/check_accuracy.py --dataset_base_path Sim_Physics --num_frames 49   # sound ones of your own

With --output it simulates and renders its own: 6 scenes x 2 variations, with a resting and with a moving
camera. Of those 24 it also knows forward flow, the motion to the next frame. Prints a table: how many scenes are blamed
when each is checked alone, and what is said of all together. The rendered scenes stay in --output.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the check uses processes
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from numpy.typing import NDArray

from motion_depth.data.findings import Finding
from motion_depth.data.layouts import find_scenes, open_scene
from motion_depth.data.motion import MotionConvention
from motion_depth.data.scene import DEPTH, MOTION, RGB
from motion_depth.doctor.check import Settings, check_dataset
from tools.demo.scenes import CAMERAS, SPEEDING, SceneRenderer, simulate, write

SIZE, FRAMES, VARIATIONS, SEED = 192, 33, 2, 1
FORWARD = "forward flow"
# What is done to sound scenes: which folder's content moves, by how many frames; and what the finding that names it
# says. Every other error or warning is a false alarm.
SHIFTS = {
    "sound": (None, 0, None),
    "depth a frame early": (DEPTH, -1, "the depth files are one frame early"),
    "depth a frame late": (DEPTH, 1, "the depth files are one frame late"),
    "motion a frame early": (MOTION, -1, "the motion files are one frame early"),
    "motion a frame late": (MOTION, 1, "the motion files are one frame late"),
}
SAYS = {what: says for what, (*_, says) in SHIFTS.items()} | {FORWARD: FORWARD}


def make_scenes(output: Path, settings: write.Settings, jobs: Sequence[write.Job]) -> None:
    """Renders the scenes that a folder lacks."""
    with write.claimed(output, settings):
        for job in write.missing(output, jobs):
            write.write_scene(output, job, settings)


def forward_flow(settings: write.Settings, job: write.Job) -> NDArray:
    """(frames, H, W, 4): the motion from each frame to the next, at the pixels of the first; 0 in the last frame."""
    frames, height, width = settings.num_frames, settings.height, settings.width
    recording = simulate(job.name, job.variation, seed=settings.seed, num_frames=frames, camera=settings.camera)
    renderer = SceneRenderer(recording, height, width)
    flow = np.zeros((frames, height, width, 4), np.float32)
    for frame in range(frames - 1):
        flow[frame, ..., :2] = renderer.motion(frame, frame + 1)[0]
    return flow


def stored_motion(scene: Path) -> NDArray:
    """A rendered scene's motion files, (frames, H, W, 4)."""
    return np.stack([np.load(path) for path in sorted((scene / MOTION).iterdir())])


def rewrite(
    base: Path, scene: str, target: Path, kind: str | None = None, shift: int = 0, flow: NDArray | None = None
) -> None:
    """Links a scene's frames but the first and the last, those of one kind from `shift` frames before.

    flow: (frames, H, W, 4), the content of the motion files instead.
    """
    files = open_scene(base, scene).files
    for each in (RGB, MOTION, DEPTH):
        (target / each).mkdir(parents=True)
        numbers = sorted(files[each])
        for number in numbers[1:-1]:
            source = files[each][number - (shift if each == kind else 0)]
            path = target / each / f"{number:06d}{source.suffix}"
            if each == MOTION and flow is not None:
                np.save(path, flow[number])
            else:
                path.symlink_to(source.resolve())


def error_of_negation(backward: NDArray, forward: NDArray) -> float:
    """How far forward flow, negated, is from backward flow at pixels that move, as a share of their mean speed."""
    backward, forward = backward[1:-1, ..., :2], forward[1:-1, ..., :2]  # a frame has one before it, and one after it
    speed = np.hypot(*np.moveaxis(backward, -1, 0))
    moving = speed > write.MOVING_PIXELS
    return float(np.hypot(*(forward + backward)[moving].T).mean() / speed[moving].mean())


def weigh(findings: Sequence[Finding], what: str) -> tuple[bool, list[str]]:
    """Whether errors and warnings name what was done, and the codes of all others."""
    named = {each: bool(SAYS[what] and SAYS[what] in str(each)) for each in findings if each.severity != "note"}
    return any(named.values()), sorted({each.code for each, its in named.items() if not its})


def table_row(base: Path, what: str, frames: int) -> str:
    """A line of the table: `base` holds scenes to which `what` was done."""
    convention = MotionConvention(direction="forward" if what == FORWARD else "backward")
    settings = Settings(num_frames=frames, convention=convention)
    checked = check_dataset(base, None, settings)
    alone = [check_dataset(base / measure.scene, None, settings, 1).findings for measure in checked.measures]
    named, wrong = zip(*(weigh(each, what) for each in alone), strict=True)
    named_together, wrong_together = weigh(checked.findings, what)
    says = (f"{sum(named)}", "yes" if named_together else "no") if SAYS[what] else ("-", "-")
    cells = (what, len(alone), says[0], sum(map(bool, wrong)), says[1], ", ".join(wrong_together) or "none")
    return f"| {' | '.join(map(str, cells))} |"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    scenes = parser.add_mutually_exclusive_group(required=True)
    scenes.add_argument("--output", type=Path, help="folder for rendered scenes; those that are there are used again")
    scenes.add_argument("--dataset_base_path", type=Path, help="folder of sound scenes, to use them instead")
    parser.add_argument("--num_frames", type=int, default=FRAMES - 4, help="frames of a clip, 4k+1")
    return parser.parse_args(argv)


def make_forward(base: Path, settings: write.Settings, jobs: Sequence[write.Job], target: Path) -> list[float]:
    """Scenes that are in `base`, again with forward flow; returns `error_of_negation` of each."""
    shares = []
    for job in jobs:
        scene, flow = job.folder(base) / "0/0", forward_flow(settings, job)
        shares.append(error_of_negation(stored_motion(scene), flow))
        rewrite(base, scene.relative_to(base).as_posix(), target / f"{job.name}_{job.variation}", flow=flow)
    return shares


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    jobs = [write.Job(name, variation) for name in SPEEDING for variation in range(VARIATIONS)]
    base, notes = args.dataset_base_path or args.output, []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for camera in () if args.dataset_base_path else CAMERAS:
            settings = write.Settings(SIZE, SIZE, FRAMES, SEED, camera)
            make_scenes(base / camera, settings, jobs)
            shares = make_forward(base / camera, settings, jobs, folder / FORWARD / camera)
            notes.append(
                f"{camera} camera: negated forward flow is off by {np.mean(shares):.0%} of the speed of what moves, "
                f"{min(shares):.0%} to {max(shares):.0%} in single scenes"
            )
        for what, (kind, shift, _) in SHIFTS.items():
            for number, scene in enumerate(find_scenes(base)):
                rewrite(base, scene, folder / what / f"{number:03d}_{scene.replace('/', '_')}", kind, shift)
        print("| files | scenes | named, alone | other alarms, alone | named, together | other alarms, together |")
        print("|---|---|---|---|---|---|")
        for what in (*SHIFTS, *[FORWARD] * bool(notes)):
            print(table_row(folder / what, what, args.num_frames), flush=True)
    print(*notes, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
