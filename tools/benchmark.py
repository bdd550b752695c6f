"""Our training loop beside the library's stock loop, on the same model and the same clips.

    python tools/benchmark.py --preset tiny                        # two CPU cores, a few minutes
    python tools/benchmark.py --preset 5b --json results.json      # one large GPU; random weights, no download
    python tools/benchmark.py --preset 5b --layers 2 --steps 3     # the 5B's widths with two layers, to try it out
    python tools/benchmark.py --preset 5b --memory                 # which settings need how much, counted; no GPU

Four ways for each stage: `stock` (the library's launch_training_task: text encoder and VAE at every step), `ours`
(the same work with our parts, no cache), `cached`, and `batched` (cached, --batch_size clips in one forward); one
optimizer update a step. Figures are medians over the steps; where a step's time goes, torch.profiler tells. Prints a
table in markdown.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import platform
import shlex
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from motion_depth.clips.batch import reduce_item
from motion_depth.clips.dataset import MotionDepthDataset, create_motion_data_operator
from motion_depth.data.scene import DEPTH, MOTION, RGB
from motion_depth.model.backbone import CHECKPOINTING
from motion_depth.model.compiling import compile_parts
from motion_depth.model.lora import add_lora
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.wan import WanEncoder
from motion_depth.pictures.media import write_png
from motion_depth.processes.devices import choose_device
from motion_depth.tiny.model import build_tokenizer
from tools.benchmarks.memory import memory_table
from tools.benchmarks.models import PRESETS, Preset, build_heads, build_parts, build_pipeline, count_parts, resized
from tools.benchmarks.ours import batches, fill_cache, run_ours
from tools.benchmarks.stock import LORA_TARGETS, StockModule, run_stock
from tools.benchmarks.timing import StepClock, matmul_rate, peak_memory, reset_peak

WAYS = ("stock", "ours", "cached", "batched")
STEPS = {"tiny": 12, "5b": 8}
RECOMPUTED = {"tiny": "none", "5b": "every"}  # the library's example computes every block again, whatever the model
WINDOWS = 8  # distinct clips of the scene that the loops read


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--preset", choices=tuple(PRESETS), default="tiny", help="tiny: for a CPU. 5b: the exact shapes of TI2V-5B")
    add("--json", type=Path, metavar="FILE", help="also write the figures there")
    add("--stages", default="1,2", help="1, 2 or 1,2")
    add("--ways", default=",".join(WAYS), help=f"some of {','.join(WAYS)}")
    add("--steps", type=int, help=f"counted steps of each; default {STEPS}")
    add("--warmup", type=int, default=2, help="steps before them that are not counted")
    add("--workers", type=int, default=2, help="loader processes; 0: none")
    add("--batch_size", type=int, default=4, help="clips of a step of `batched`; the others take one")
    add("--gradient_checkpointing", choices=CHECKPOINTING, help="stage 2 of ours; default: tiny none, 5b every")
    add("--compile", action="store_true", help="torch.compile the DiT's blocks and the heads, but for stock")
    add("--memory", action="store_true", help="only count the peak memory of a step, on tensors without data")
    add("--lora_rank", type=int, default=32, help="stage 2")
    add("--device", help="cuda or cpu; default: a GPU if there is one")
    add("--layers", type=int, help="fewer layers in DiT and text encoder than the preset has")
    for name in ("height", "width", "num_frames"):
        add(f"--{name}", type=int, help="of the clips in the loops, instead of the preset's")
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> tuple[Preset, list[int], list[str]]:
    """The preset, stages and ways; fills in defaults. Raises ValueError, which names the flag."""
    for name, least in (("steps", 1), ("warmup", 0), ("workers", 0), ("batch_size", 1)):
        if (value := getattr(args, name)) is not None and value < least:
            raise ValueError(f"--{name}: found {value}, expected {least} or more")
    stages, ways = _listed(args.stages, ("1", "2"), "--stages"), _listed(args.ways, WAYS, "--ways")
    args.device = choose_device(args.device)
    args.steps = args.steps or STEPS[args.preset]
    args.gradient_checkpointing = args.gradient_checkpointing or RECOMPUTED[args.preset]
    preset = resized(PRESETS[args.preset], args.layers, args.height, args.width, args.num_frames)
    return preset, [int(stage) for stage in stages], ways


def _listed(text: str, known: tuple[str, ...], flag: str) -> list[str]:
    found = [part for part in text.split(",") if part]
    if unknown := [part for part in found if part not in known]:
        raise ValueError(f"{flag} {text}: {unknown[0]} is not one of {', '.join(known)}")
    return found


def write_dataset(base: Path, frames: int, height: int, width: int) -> Path:
    """One scene under `base` in which all moves a pixel a frame, and the CSV that is returned."""
    x = np.broadcast_to(np.arange(width, dtype=np.uint8)[:, None], (height, width, 3))
    motion, depth = np.full((height, width, 4), -1, np.float32), np.full((height, width), 3, np.float32)
    for frame in range(frames):
        for kind, array in ((MOTION, motion), (DEPTH, depth)):
            (base / "scene" / kind).mkdir(parents=True, exist_ok=True)
            np.save(base / "scene" / kind / f"{frame:04d}.npy", array)
        write_png(base / "scene" / RGB / f"{frame:04d}.png", np.roll(x, frame, axis=1))
    (base / "metadata.csv").write_text("video,prompt\nscene,Stripes move from left to right.\n")
    return base / "metadata.csv"


def measure_loops(args: argparse.Namespace, preset: Preset, stages: list[int], ways: list[str], work: Path) -> dict:
    """Every way of every stage, one after the other; each builds the models it needs and drops them."""
    device = torch.device(args.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    metadata = write_dataset(work / "data", preset.num_frames + WINDOWS - 1, preset.height, preset.width)
    operator = create_motion_data_operator(work / "data", preset.height, preset.width, preset.num_frames)
    dataset = MotionDepthDataset(work / "data", metadata, operator, repeat=1000, reduce=reduce_item)
    tokenizer = work / "tokenizer"
    build_tokenizer().save_pretrained(tokenizer)
    found: dict = {}
    cached = None
    if {"cached", "batched"} & set(ways):
        parts = build_parts(preset, device, dtype, ("text_encoder", "vae"))
        encoder = WanEncoder(build_pipeline(parts, tokenizer, device, dtype))
        cached, found["encode_once_seconds"] = fill_cache(work / "cache", dataset, encoder, dtype, WINDOWS)
        del parts, encoder
    for stage in stages:
        for way in ways:
            gc.collect()
            reset_peak(device)
            print(f"measuring stage {stage}, {way} ...", file=sys.stderr, flush=True)
            clips = args.batch_size if way == "batched" else 1
            source = cached if way in ("cached", "batched") else dataset
            clock = run_way(args, preset, stage, way, clips, source, tokenizer, device, dtype)
            step, wait = clock.medians(args.warmup)
            found.setdefault(f"stage{stage}", {})[way] = {
                "batch_size": clips,
                "clips_per_s": clips / step,
                "step_seconds": step,
                "data_wait": wait / step,
                "peak_memory_gib": peak_memory(device),
            }
    return found


def run_way(
    args: argparse.Namespace, preset: Preset, stage: int, way: str, clips: int, dataset: MotionDepthDataset,
    tokenizer: Path, device: torch.device, dtype: torch.dtype,
) -> StepClock:  # fmt: skip
    """One loop, from building its models to its last step."""
    accelerator = Accelerator(mixed_precision="bf16" if device.type == "cuda" else "no", cpu=device.type == "cpu")
    steps = args.steps + args.warmup
    encoding = way in ("stock", "ours")
    parts = build_parts(preset, device, dtype, ("dit", "text_encoder", "vae") if encoding else ("dit",))
    heads = build_heads(preset).to(device)
    if way == "stock":
        pipe = build_pipeline(parts, tokenizer, device, dtype)
        module = StockModule(pipe, heads, stage, args.lora_rank, checkpointing=True)
        return run_stock(accelerator, module, dataset, steps, args.workers)
    encoder = WanEncoder(build_pipeline(parts, tokenizer, device, dtype)) if encoding else None
    dit = parts["dit"]
    if stage == 2:
        add_lora(dit, args.lora_rank, LORA_TARGETS.split(","))
    model = MotionDepthModel(dit, heads, train_dit=stage == 2, checkpointing=args.gradient_checkpointing).to(device)
    if args.compile:
        compile_parts(dit.blocks, [heads.motion, heads.depth])
    loader = batches(dataset, encoder, steps, clips, args.workers, device, dtype, stage, WINDOWS)
    return run_ours(accelerator, model, loader, stage)


def add_utilisation(found: dict, counted: dict[str, int], rate: float | None) -> None:
    """Useful operations of a step over what the measured matrix product could have done in its time; None on a CPU.

    Stage 1: the DiT to the last tap and three times the heads. Stage 2: twice the DiT (frozen weights need no gradient;
    what checkpointing computes again is not useful) and three times the heads. Encoding is not counted as useful.
    """
    useful = {
        "stage1": counted["dit_to_last_tap"] + 3 * counted["heads"],
        "stage2": 2 * counted["dit"] + 3 * counted["heads"],
    }
    for stage, operations in useful.items():
        for row in found.get(stage, {}).values():
            row["utilisation"] = None if rate is None else operations * row["clips_per_s"] / rate


def about(args: argparse.Namespace) -> dict:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "diffsynth", "accelerate", "peft")}
    return {
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": versions | {"python": platform.python_version()},
        "date": date.today().isoformat(),
        "command": "python tools/benchmark.py " + shlex.join(sys.argv[1:]),
        "gradient_checkpointing": args.gradient_checkpointing,
    }


def markdown(results: dict) -> str:
    """What was measured; what was not says so."""
    about, rate = results["about"], results["matmul_flops_per_s"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"{about['device']}, {about['threads']} torch threads; {versions}; {about['date']}",
        f"`{about['command']}` (stage 2 computes blocks again: ours {about['gradient_checkpointing']}, stock every)",
        "",
        "| stage | way | clips/s | times stock | step s | wait | peak GiB | utilisation |",
        "| --- " * 8 + "|",
    ]
    for stage in (1, 2):
        ways = results.get(f"stage{stage}", {})
        for way, row in ways.items():
            times = f"{row['clips_per_s'] / ways['stock']['clips_per_s']:.2f}" if "stock" in ways else "-"
            used = "not measured" if row["utilisation"] is None else f"{row['utilisation']:.0%}"
            lines.append(
                f"| {stage} | {way}, {row['batch_size']} | {row['clips_per_s']:.3g} | {times} | "
                f"{row['step_seconds']:.3g} | {row['data_wait']:.1%} | {row['peak_memory_gib']:.2f} | {used} |"
            )
    if once := results.get("encode_once_seconds"):
        lines += ["", f"Encoding a clip once, into the cache: {once:.3g} s."]
    measured = "not measured (no GPU)" if rate is None else f"{rate / 1e12:.0f} TFLOP/s"
    return "\n".join([*lines, f"Matrix product on the GPU, bf16: {measured}."])


def main() -> None:
    args = parse_arguments()
    try:
        preset, stages, ways = check(args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if args.memory:
        print(memory_table(preset, args.lora_rank))
        return
    rate, counted = matmul_rate(torch.device(args.device)), count_parts(preset)
    results = {"about": about(args), "operations": counted, "matmul_flops_per_s": rate}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        results |= measure_loops(args, preset, stages, ways, Path(folder))
    add_utilisation(results, counted, rate)
    print(markdown(results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
