"""A whole checkpoint with LoRA in a few kilobytes, of no model that exists."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from motion_depth.checkpoints.checkpoint import write_checkpoint
from motion_depth.checkpoints.schema import LORA_FILE, STATISTICS_FILE, head_file
from motion_depth.model.heads import HeadConfig, MotionDepthHeads
from tests.support.quantities import statistics_of
from tests.support.tool_runs import config_of

HEADS = HeadConfig(16, (1, 2), width=8, decoder_widths=(8, 8, 8), mixer_blocks=1)
MOTION_FILE, DEPTH_FILE = head_file("motion"), head_file("depth")
PROMISED = (MOTION_FILE, DEPTH_FILE, STATISTICS_FILE, LORA_FILE)


def small_checkpoint(
    folder: Path, run: Mapping = {}, training: Mapping = {}, files: Mapping[str, dict[str, Tensor]] = {}
) -> Path:
    """Writes it; settings, bookkeeping and files beside or instead of its own."""
    statistics = statistics_of()
    heads = MotionDepthHeads(HEADS, statistics)
    tensors = {
        **{head_file(name): head.state_dict() for name, head in heads.items()},
        STATISTICS_FILE: statistics.maps,
        LORA_FILE: {"blocks.0.q.lora_A.weight": torch.zeros(4, 16), "blocks.0.q.lora_B.weight": torch.zeros(16, 4)},
    }
    config = config_of(HEADS, statistics, folder.parent)
    config["identity"] = {
        "weights": {"dit": ["00", "11"], "vae": ["22"], "tokenizer": []},
        "data": {"rows": "1: 00", "scenes": {"ball": {"sample": "00", "content": None}}},
    }
    config["run"] = config["run"] | dict(run)
    config["training"] = config["training"] | dict(training)
    write_checkpoint(folder, tensors | dict(files), config)
    return folder
