"""Flags that evaluation, generation and training have in common, for the tools."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from motion_depth.checkpoint import Checkpoint, read_checkpoint
from motion_depth.clips import LoadImageSequenceWithMotionWrapper, create_motion_data_operator
from motion_depth.weights import WanFiles

CLIP_SETTINGS = ("height", "width", "num_frames", "frame_stride", "motion_units", "motion_direction", "motion_y_axis",
                 "motion_frame_offset")  # fmt: skip


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Which model and which checkpoint, and what to compute on."""
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, help="final/, best/ or step-N of a training run")
    add("--model_base_path", type=Path, help="folder of the WAN2.2-TI2V-5B release, or of the tiny model")
    add("--model_paths", help="instead: JSON list of weight files (a list within it: the shards of one part)")
    add("--model_id_with_origin_paths", help="instead: MODEL_ID:FILE_PATTERN,... to download into ./models")
    add("--tokenizer_path", type=Path, help="tokenizer's folder, if not google/umt5-xxl in --model_base_path")
    add("--mixed_precision", choices=("no", "bf16"), help="default: as in training")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda, cuda:1, cpu")
    add("--seed", type=int, default=0, help="of the noise")


def find_weights(args: argparse.Namespace) -> WanFiles:
    """The weights that the flags name. Raises ValueError if there are none."""
    return WanFiles.find(args.model_base_path, args.model_paths, args.model_id_with_origin_paths, args.tokenizer_path)


def read_run(args: argparse.Namespace) -> tuple[Checkpoint, torch.dtype]:
    """The checkpoint, and the type the DiT computes in. Raises ValueError if it is not whole."""
    checkpoint = read_checkpoint(args.checkpoint)
    precision = args.mixed_precision or checkpoint.config["run"]["mixed_precision"]
    return checkpoint, torch.bfloat16 if precision == "bf16" else torch.float32


def clip_operator(
    checkpoint: Checkpoint, base_path: Path, **changes: int | str | None
) -> LoadImageSequenceWithMotionWrapper:
    """Loads clips as the run that wrote the checkpoint did; `changes` that are not None replace its settings."""
    settings = {name: checkpoint.config["run"][name] for name in CLIP_SETTINGS}
    settings |= {name: value for name, value in changes.items() if value is not None}
    if settings["frame_stride"] != "auto":
        settings["frame_stride"] = int(settings["frame_stride"])
    return create_motion_data_operator(base_path, **settings)
