"""Who waits for whom: the host for the GPU, which should not be, and the GPU for data, which is measured.

On a CUDA whose kernels do nothing but take time.
"""

import json

import pytest

from tests.support.runs import SMALL, SMALL_STAGE_2

# Trains, and says where the host waited between two updates, from the second iteration on: what stays on the device is
# brought there in the first one.
FIND_WAITS = """
import json, sys, traceback, warnings
import train_wan22_ti2v_motion_depth as training

found, iterations, loop = [], [], training.loop

def show(message, *_):
    if "synchroniz" in str(message) and iterations:
        mine = [f for f in traceback.extract_stack() if "motion_depth" in f.filename]
        found.append(f"{mine[-1].filename}:{mine[-1].lineno}")

def watched(run, *rest):
    warnings.showwarning = show
    warnings.simplefilter("always")
    clip, update, add, save = training.clip_grad_norm_, run.log.update, run.log.add, run.save

    def added(*arguments):
        add(*arguments)
        iterations.append(count.value)

    def clipped(*arguments):  # with this the update begins
        torch.cuda.set_sync_debug_mode("default")
        return clip(*arguments)

    def updated(*arguments, **row):
        update(*arguments, **row)
        torch.cuda.set_sync_debug_mode("warn")

    def saved(*arguments):
        torch.cuda.set_sync_debug_mode("default")
        save(*arguments)

    count = ctypes.c_int.in_dll(cuda, "large_pageable_copies")
    training.clip_grad_norm_, run.log.update, run.log.add, run.save = clipped, updated, added, saved
    torch.cuda.set_sync_debug_mode("warn")
    try:
        loop(run, *rest)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        print("FOUND " + json.dumps({"waits": found, "copies": iterations[-1] - iterations[0], "n": len(iterations)}))

training.loop = watched
training.main()
"""


@pytest.mark.parametrize(("stage", "cached"), [(1, True), (2, True), (1, False)])
def test_the_host_never_waits_within_an_update(no_kernels, data_flags, stage1, stage, cached, tmp_path):
    flags = [*SMALL] if stage == 1 else [*SMALL_STAGE_2, "--lora_rank", 4, "--heads_checkpoint", stage1 / "final"]
    flags += ["--cache_path", tmp_path / "cache"] if cached else []
    done = no_kernels.run(
        FIND_WAITS, "--stage", stage, *data_flags, *flags, "--mixed_precision", "bf16", "--loss_frames", 2,
        "--gradient_accumulation_steps", 6, "--max_steps", 6, "--save_steps", 0,
        "--max_bad_steps", 0, "--output_path", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "on 1 x cuda" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    assert json.loads(line.removeprefix("FOUND ")) == {"waits": [], "copies": 0, "n": 6}


# Samples take 50 ms each; the device then gets 40 kernels for each batch.
MEASURE_WAIT = """
import time
from motion_depth.training.loader import BatchLoader
from motion_depth.clips.noise import NoiseMixture
from tests.clips.test_batch import sample

class Slow:
    def __len__(self):
        return 100

    def __getitem__(self, position):
        time.sleep(0.05)
        return sample(position)

positions = [range(i, i + 1) for i in range(6)]
device = torch.device("cuda")
batches = BatchLoader(Slow(), positions, None, NoiseMixture(), 0, 0, device, torch.bfloat16)
x = torch.zeros(1, device=device)
for step, _ in enumerate(batches):
    if step == 0:
        batches.waited()  # CUDA's start
    for _ in range(40):
        x.add_(1)
print("WAITED", batches.waited())
"""


@pytest.mark.parametrize(
    ("kernel", "least", "most"),
    [("0", 0.2, 5.0), ("0.01", 0.0, 0.05)],  # five waits of 50 ms; work of 0.4 s that hides them
    ids=["a device that has nothing to do", "a device that is busy"],
)
def test_waiting_for_data_is_what_the_device_waits(no_kernels, kernel, least, most):
    done = no_kernels.run(MEASURE_WAIT, KERNEL_SECONDS=kernel)
    assert done.returncode == 0, done.stderr[-3000:]
    assert least <= float(done.stdout.split("WAITED")[1]) <= most
