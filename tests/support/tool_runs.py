"""A checkpoint for the tools, made without training, and the tools called in this process."""

from pathlib import Path

import torch

from motion_depth.checkpoints.checkpoint import write_checkpoint
from motion_depth.checkpoints.models import LoraShape, model_config, model_tensors
from motion_depth.checkpoints.schema import DIT_FILE
from motion_depth.model.backbone import Dit
from motion_depth.model.heads import HEAD_SIZES, HeadConfig, MotionDepthHeads, tap_blocks
from motion_depth.model.lora import add_lora
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.tuning import SAVED
from motion_depth.model.wan import Wan
from motion_depth.readouts.readout import Statistics
from tests.support.quantities import statistics_of
from tools import evaluate, generate

SIZE, FRAMES = 64, 9
LORA = LoraShape(4, ("q", "v"))
TRAINING = {"step": 1, "clips": 1, "processes": 1, "wandb_run_id": None, "best_score": None,
            "scheduler": {"last_epoch": 1, "base_lrs": [1e-4], "_last_lr": [1e-4]},
            "health": {"skipped": 0, "in_row": 0, "norms": []}}  # fmt: skip


def load(backbone: Wan, *parts: str):
    """The tiny model in float32; all of it, or some parts."""
    return backbone.load_pipeline(parts or ("dit", "text_encoder", "vae"), torch.float32, "cpu")


def config_of(
    heads: HeadConfig | None, statistics: Statistics | None, folder: Path, lora: LoraShape | None = LORA, **settings
) -> dict:
    """The config.json of a run whose CSV lies in a folder, with LoRA if nothing else is said."""
    run = {"stage": 2, "height": SIZE, "width": SIZE, "num_frames": FRAMES, "frame_stride": "auto",
           "motion_units": "pixels", "motion_direction": "backward", "motion_y_axis": "down", "motion_frame_offset": 0,
           "mixed_precision": "no", "dataset_metadata_path": str(folder / "training.csv"), "batch_size": 1,
           "gradient_accumulation_steps": 1}  # fmt: skip
    return model_config(heads, statistics, lora, run | settings) | {"training": TRAINING}


def make_checkpoint(folder: Path, backbone: Wan) -> Path:
    """A checkpoint with LoRA for clips of SIZE x SIZE x FRAMES; every weight that starts at zero is given a value."""
    torch.manual_seed(0)
    config = HeadConfig(backbone.dim, tap_blocks(backbone.num_blocks, (0.3, 0.6)), **HEAD_SIZES["small"])
    statistics = statistics_of(size=SIZE)
    heads = MotionDepthHeads(config, statistics)
    dit = add_lora(load(backbone, "dit").dit, LORA.rank, LORA.target_modules)
    for name, parameter in [*heads.named_parameters(), *dit.named_parameters()]:
        if ".out." in name or ".lora_B." in name:
            torch.nn.init.normal_(parameter.data, std=0.05)
    model = MotionDepthModel(dit, heads, train_dit=False)
    write_checkpoint(folder, model_tensors(model, statistics), config_of(config, statistics, folder.parent))
    return folder


def make_tuned_checkpoint(folder: Path, dit: Dit, **settings: object) -> Path:
    """A checkpoint of a run, with some settings, that has trained this DiT wholly, and no heads."""
    off = {"motion_loss_weight": 0, "depth_loss_weight": 0}
    config = config_of(None, None, folder.parent, lora=None, tune="full", **off, **settings)
    write_checkpoint(folder, {DIT_FILE: {name: value.to(SAVED) for name, value in dit.state_dict().items()}}, config)
    return folder


def run_generate(*flags: object) -> None:
    generate.run(generate.parse_args([str(flag) for flag in flags]))


def run_evaluate(*flags: object) -> dict:
    return evaluate.evaluate(evaluate.parse_args([str(flag) for flag in flags]))
