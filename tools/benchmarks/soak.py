"""Kills training at random moments, again and again, lets it go on each time, and compares what comes out in the end.

    python tools/benchmarks/soak.py --kills 50 --seed 0 --work soak
    python tools/benchmarks/soak.py --kills 6 --iterations 8 --work soak     # a short one

Trains both stages on demo scenes and the tiny model (made in WORK if they are not there), once without interruption and
then with SIGKILL: half of the kills at a random time after the start, while the cache is filled, models load or
iterations run; half when a checkpoint's draft appears. After each kill every checkpoint that is there must be whole and
none may be lost; in the end weights must be equal bit for bit and losses equal in every digit to those of the
uninterrupted run. Exit code 1 if anything is not. Works on Linux and macOS, on the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import accelerate  # noqa: F401 (imported once, here, so that a start of the training script takes a second)
import torch
import transformers  # noqa: F401

from motion_depth.checkpoints.checkpoint import STEP_FOLDER, read_checkpoint, step_folders
from motion_depth.files.folders import leftovers

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "train_wan22_ti2v_motion_depth.py"
SPEED = ("clips_per_s", "data_wait")  # in the log; the rest of it must be equal


class Job:
    """One stage's training in a folder: can be started, killed and compared."""

    def __init__(self, stage: int, folder: Path, flags: list[str], log: Path):
        self.output, self.log = folder / "out", log
        self.flags = [*flags, "--output_path", str(self.output), "--resume", "auto"]
        if stage == 1:
            self.flags += ["--cache_path", str(folder / "cache")]

    def start(self) -> int:
        """A process of its own, and group: this one's copy, which has imported everything. Returns its id."""
        sys.stdout.flush()
        if child := os.fork():
            with contextlib.suppress(OSError):  # both do it: whoever comes first, the group is there from here on
                os.setpgid(child, child)
            return child
        code = 1
        try:
            os.setpgid(0, 0)
            with self.log.open("a", buffering=1) as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            sys.argv = [str(SCRIPT), *self.flags]
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)

    def run(self) -> float:
        """Without interruption. Returns the seconds that it took."""
        began = time.monotonic()
        self._expect_success(os.waitpid(self.start(), 0)[1])
        return time.monotonic() - began

    def run_and_kill(self, chance: random.Random, longest: float) -> str | None:
        """Starts it and kills it. Returns when: "writing" or "at a random time"; None if it was done before."""
        child = self.start()
        in_checkpoint = chance.random() < 0.5
        drafts_to_pass, seen = chance.randrange(3), set()
        deadline = time.monotonic() + (1e9 if in_checkpoint else chance.uniform(0, longest))
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                self._expect_success(status)
                return None
            if in_checkpoint:
                seen |= {path.name for path in self.output.glob(".*.partial")}
                if len(seen) > drafts_to_pass:
                    time.sleep(chance.uniform(0, 0.02))
                    break
            time.sleep(0.0005)
        os.killpg(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(status):
            self._expect_success(status)
            return None
        return "writing" if leftovers(self.output) else "at a random time"

    def check(self, newest: int) -> int:
        """Every checkpoint that is there must be whole, and the newest not older than before. Returns its step."""
        for folder in self.output.glob("[!.]*"):
            if STEP_FOLDER.fullmatch(folder.name) or folder.name in ("final", "best"):
                read_checkpoint(folder)  # raises if it is not
        steps = [step for step, _ in step_folders(self.output)]
        if max(steps, default=0) < newest:
            raise ValueError(f"{self.output}: step-{newest} was there before the kill, now {steps}")
        return max(steps, default=0)

    def _expect_success(self, status: int) -> None:
        if os.waitstatus_to_exitcode(status) != 0:
            tail = self.log.read_text().replace("\r", "\n").splitlines()[-20:]
            raise ValueError("the training script failed:\n" + "\n".join(tail))


def compare(one: Path, other: Path) -> None:
    """Raises ValueError unless two finished runs have the same weights, byte for byte, and the same log."""
    names = sorted({path.name for run in (one, other) for path in (run / "final").glob("*.safetensors")})
    for name in names:
        files = [run / "final" / name for run in (one, other)]
        if not all(path.exists() for path in files) or len({path.read_bytes() for path in files}) > 1:
            raise ValueError(f"{name} differs between {one} and {other}, or is in one of them only")
    logs = ((run / "log.jsonl").read_text().splitlines() for run in (one, other))
    rows = [[json.loads(line) | dict.fromkeys(SPEED) for line in log] for log in logs]
    if rows[0] != rows[1]:
        raise ValueError(f"log.jsonl differs between {one} and {other}")


def prepare(work: Path) -> list[str]:
    """Scenes and the tiny model in WORK; returns the flags that both stages share."""
    data, model, table = work / "scenes", work / "tiny_wan", work / "scenes.csv"

    def tool(name: str, *flags: object) -> None:
        subprocess.run([sys.executable, ROOT / "tools" / name, *map(str, flags)], check=True, stdout=subprocess.DEVNULL)

    if not table.exists():
        shutil.rmtree(data, ignore_errors=True)
        tool("demo/make_scenes.py", "--output", data, "--height", 64, "--width", 64, "--num_frames", 12,
             "--scenes", "ball_collide", "ball_ramp", "duck_and_domino")  # fmt: skip
        tool("make_metadata.py", "--dataset_base_path", data, "--output", table)
    if not model.exists():
        tool("demo/make_tiny_wan.py", "--dataset_base_path", data, "--output", model)
    flags = ["--dataset_base_path", data, "--dataset_metadata_path", table, "--model_base_path", model]
    flags += ["--height", 64, "--width", 64, "--num_frames", 5, "--mixed_precision", "no", "--dataset_num_workers", 1]
    flags += ["--gradient_accumulation_steps", 3, "--save_steps", 2, "--keep_last", 2, "--lr_warmup_steps", 4]
    return [str(flag) for flag in flags]


def soak(work: Path, kills: int, seed: int, iterations: int) -> Counter:
    """Both stages, each with half of the kills. Returns how many kills fell where. Raises ValueError on any loss."""
    shared, chance, found = prepare(work), random.Random(seed), Counter()
    shared += ["--max_steps", str(iterations)]
    stages = {
        1: ["--stage", "1", "--head_size", "small"],
        2: ["--stage", "2", "--lora_rank", "4", "--heads_checkpoint", str(work / "1/reference/out/final")],
    }
    for stage, flags in stages.items():
        shutil.rmtree(work / str(stage), ignore_errors=True)
        (work / str(stage)).mkdir(parents=True)
        log = work / str(stage) / "console.txt"
        reference = Job(stage, work / str(stage) / "reference", flags + shared, log)
        seconds = reference.run()
        print(f"stage {stage}: uninterrupted in {seconds:.1f} s", flush=True)
        left, rounds = kills // 2 + (kills % 2 if stage == 1 else 0), 0
        while left:
            rounds += 1
            job, newest = Job(stage, work / str(stage) / f"round-{rounds}", flags + shared, log), 0
            while left and (when := job.run_and_kill(chance, seconds)) is not None:
                newest, left = job.check(newest), left - 1
                found[f"stage {stage} {when}"] += 1
                print(f"stage {stage}: killed {when}, newest checkpoint {newest}, {left} kills left", flush=True)
            if not (job.output / "final").exists() or left == 0:
                job.run()
            compare(job.output, reference.output)
            if left_behind := leftovers(job.output):
                raise ValueError(f"{left_behind[0]}: was left behind")
            print(f"stage {stage}: round {rounds} ends where the uninterrupted run does, bit for bit", flush=True)
            shutil.rmtree(job.output.parent)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="over both stages")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--iterations", type=int, default=20, help="of a run")
    parser.add_argument("--work", type=Path, default=Path("soak"), help="folder for data, model and runs")
    args = parser.parse_args()
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    torch.set_num_threads(1)
    try:
        found = soak(args.work.absolute(), args.kills, args.seed, args.iterations)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for when, count in sorted(found.items()):
        print(f"{count:4} kills {when}")
    print(f"{found.total()} kills, every run ended with the uninterrupted run's weights and losses; no checkpoint lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
