"""DiTs in TI2V's shape with random weights, frozen."""

import torch

from motion_depth.model.wan import WanDit
from tools.benchmarks.models import DIT_5B

SMALL = DIT_5B | {"dim": 48, "ffn_dim": 96, "text_dim": 16, "freq_dim": 64, "num_heads": 4, "num_layers": 6}
WIDE = SMALL | {"dim": 512, "ffn_dim": 512, "num_layers": 2}  # heads as wide as WAN's, 128


def frozen_dit(arguments: dict[str, object]) -> WanDit:
    torch.manual_seed(0)
    return WanDit(**arguments).eval().requires_grad_(False)
