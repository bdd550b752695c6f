"""A run's settings: what cannot work, and what may differ between a run and its continuation.

Settings are the training script's flags as attributes of one object; messages name the flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

# Settings that may change when a run is resumed; every other one is part of what the run is. Of batch_size,
# gradient_accumulation_steps and the number of processes the product, an update's clips, must stay (`resuming`).
HARMLESS = {
    "batch_size",
    "gradient_accumulation_steps",
    "num_epochs",
    "max_steps",
    "save_steps",
    "keep_last",
    "resume",
    "report_to",
    "use_wandb",
    "wandb_project",
    "output_path",
    "dataset_num_workers",
    "heads_checkpoint",
    "gradient_checkpointing",
    "compile",
    "cache_path",
    "cache_only",
    "val_metadata_path",
    "val_steps",
    "val_clips",
    "max_bad_steps",
    "max_hours",
    "timeout_minutes",
    "trust_data",
    "trust_model",
}

# Where weights and data lie. A run that knows what they are (`provenance`) goes on with copies elsewhere.
PLACES = {
    "dataset_base_path",
    "dataset_metadata_path",
    "model_base_path",
    "model_paths",
    "model_id_with_origin_paths",
    "tokenizer_path",
}

# The lowest and the highest value of every number; beyond it a run would never end, fill the memory, or diverge.
# Whole numbers have whole limits.
RANGES: dict[str, tuple[float, float]] = {
    "dataset_repeat": (1, 10**6),
    "dataset_num_workers": (0, 1024),
    "height": (32, 4096),
    "width": (32, 4096),
    "num_frames": (5, 4097),
    "loss_frames": (0, 4097),
    "val_steps": (0, 10**9),
    "val_clips": (0, 10**5),
    "lora_rank": (1, 4096),
    "motion_loss_weight": (0.0, 1e6),
    "depth_loss_weight": (0.0, 1e6),
    "flow_loss_weight": (0.0, 1e6),
    "learning_rate": (0.0, 10.0),
    "lora_learning_rate": (0.0, 10.0),
    "weight_decay": (0.0, 10.0),
    "lr_warmup_steps": (0, 10**9),
    "max_grad_norm": (0.0, 1e9),
    "num_epochs": (1, 10**6),
    "max_steps": (0, 10**9),
    "batch_size": (1, 1024),
    "gradient_accumulation_steps": (1, 10**5),
    "max_bad_steps": (0, 10**9),
    "seed": (0, 2**32 - 1),  # what numpy's own generator takes
    "save_steps": (0, 10**9),
    "keep_last": (0, 10**9),
    "max_hours": (0.0, 1e5),
    "timeout_minutes": (0.01, 1e5),
}


def check_settings(args: Any) -> None:
    """Refuses what cannot work, before anything is read or loaded."""
    if (
        sum(value is not None for value in (args.model_base_path, args.model_paths, args.model_id_with_origin_paths))
        != 1
    ):
        raise ValueError("give one of --model_base_path, --model_paths, --model_id_with_origin_paths")
    for name, (lowest, highest) in RANGES.items():
        if not lowest <= getattr(args, name) <= highest:
            raise ValueError(f"--{name} {getattr(args, name)}: expected {lowest:,} to {highest:,}")
    weights = {name: value for name, value in vars(args).items() if name.endswith("_loss_weight")}
    if wrong := [name for name, value in weights.items() if not 0 <= value <= 1e6]:
        raise ValueError(f"--{wrong[0]} {weights[wrong[0]]}: expected 0 to 1e6")
    if not any(value for name, value in weights.items() if args.stage == 2 or name != "flow_loss_weight"):
        raise ValueError(f"{', '.join(f'--{name}' for name in weights)}: all are 0, nothing trains")
    if args.cache_only and args.cache_path is None:
        raise ValueError("--cache_only needs --cache_path, the folder to fill")
    if not 0 <= args.loss_frames <= args.num_frames:
        raise ValueError(f"--loss_frames {args.loss_frames}: expected 0 (all) to {args.num_frames}")
    if args.stage == 2 and args.heads_checkpoint is None:
        raise ValueError(
            "--heads_checkpoint: stage 2 starts from stage 1's heads; give the final/ folder of a stage-1 run"
        )
    if args.mixed_precision == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise ValueError("--mixed_precision bf16: this GPU has no bfloat16; use --mixed_precision no")


def warmup_remark(scheduler: str, warmup: int, updates: int) -> str | None:
    """A line where so much of a run is warm-up that it learns little else; None where it is a tenth or less.

    Args:
        warmup, updates: optimizer updates, of the warm-up and of the whole run.
    """
    if scheduler == "constant" or warmup <= updates / 10:
        return None
    return (
        f"--lr_warmup_steps {warmup}: {min(1, warmup / updates):.0%} of the run's {updates} optimizer updates are "
        f"warm-up; a tenth would be {updates // 10}"
    )


def plain(args: Any) -> dict:
    """All settings as plain values, for config.json and wandb."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in sorted(vars(args).items())}


def common_settings(args: Any) -> dict:
    """What all machines of a run must be given alike. Files may have other places on each; True stands for one."""
    of_a_machine = {"model_paths", "dataset_num_workers"}
    return {
        name: True if isinstance(value, Path) else value
        for name, value in vars(args).items()
        if name not in of_a_machine
    }


def differences(args: Any, before: Mapping, known: bool) -> list[str]:
    """In what a continuation differs from the run that it continues, apart from what may differ; a text each.

    Args:
        known: whether weights and data are compared by their content, so that their places do not count.
    """
    harmless = HARMLESS | PLACES if known else HARMLESS
    return [
        f"--{name} was {before.get(name)}, is {value}"
        for name, value in plain(args).items()
        if name not in harmless and before.get(name) != value
    ]


def run_dtype(args: Any) -> torch.dtype:
    """Type of the frozen models, the latents and the contexts; what is trained is float32."""
    return torch.bfloat16 if args.mixed_precision == "bf16" else torch.float32


def to_int(name: str, text: str) -> int:
    """A whole number, for a flag that may also be a word. Raises ValueError."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--{name} {text}: expected a whole number or auto") from None
