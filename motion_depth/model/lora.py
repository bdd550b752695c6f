"""LoRA on the DiT through peft: float32 adapters on frozen weights, saved as stock DiffSynth reads them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners import lora
from torch import Tensor, nn

from motion_depth.model.backbone import Dit


class LoraLinear(lora.Linear):
    """A linear layer with float32 adapters that computes in the precision of its input, the DiT's own.

    Autocast stays inside: around the whole DiT it would run every norm in float32, which is not how the DiT runs at
    inference, and keep more for the gradient.
    """

    def __init__(self, *args: object, **kwargs: object):
        super().__init__(*args, **kwargs)
        self.cast_input_dtype_enabled = False

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            return super().forward(x)
        with torch.autocast(x.device.type, x.dtype):
            return super().forward(x)


def add_lora(dit: Dit, rank: int, target_modules: Sequence[str], last_block: int | None = None) -> Dit:
    """Injects LoRA into the frozen DiT through peft; the LoRA weights are float32 whatever the DiT is in.

    Args:
        last_block: what comes behind this block gets none; None: everything does.

    Raises:
        ValueError: no module of the DiT has one of the names.
    """
    names = {name for name, module in dit.named_modules() if isinstance(module, nn.Linear)}
    check_lora_targets(names, target_modules)
    behind = [name for name in names if is_behind(name, last_block)]
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(target_modules), exclude_modules=behind or None)
    config._register_custom_module({nn.Linear: LoraLinear})
    dit = inject_adapter_in_model(config, dit)
    for parameter in dit.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return dit


def check_lora_targets(layers: Collection[str], target_modules: Sequence[str]) -> None:
    """Raises ValueError unless each name is the end of the full name of one of the DiT's linear layers."""
    if unknown := [
        target for target in target_modules if not any(f".{name}".endswith(f".{target}") for name in layers)
    ]:
        raise ValueError(f"--lora_target_modules {','.join(unknown)}: no linear layer of the DiT ends in that name")


def is_behind(name: str, last_block: int | None) -> bool:
    """Whether a module or parameter of the DiT is used only after a block; None: nothing is."""
    if last_block is None:
        return False
    block = re.match(r"blocks\.(\d+)\.", name)
    return int(block[1]) > last_block if block else name.startswith("head.")


def lora_state_dict(dit: Dit) -> dict[str, Tensor]:
    """The LoRA weights under the names that stock DiffSynth's `pipe.load_lora(pipe.dit, path)` reads."""
    return {
        name.replace(".default.", "."): parameter.detach()
        for name, parameter in dit.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }


def load_lora(dit: Dit, state_dict: dict[str, Tensor], source: str, last_block: int | None = None) -> None:
    """Loads what `lora_state_dict` gave into a DiT that has the same adapters.

    Args:
        last_block: of the `add_lora` that they are from. Adapters of this DiT behind it stay as they are: without
            effect, if they are new.

    Raises:
        ValueError: the file is of another rank or other target modules, or has adapters where this DiT has none.
    """
    own = dict(dit.named_parameters())
    theirs = {
        name.replace(".lora_A.", ".lora_A.default.").replace(".lora_B.", ".lora_B.default."): value
        for name, value in state_dict.items()
    }
    lora = {name for name in own if ".lora_A." in name or ".lora_B." in name}
    expected = {name for name in lora if not is_behind(name, last_block)}
    wrong = sorted(
        (expected ^ theirs.keys()) | {n for n in expected & theirs.keys() if own[n].shape != theirs[n].shape}
    )
    if wrong:
        raise ValueError(
            f"{source}: LoRA of another shape ({len(wrong)} tensors differ, the first is {wrong[0]}); "
            "--lora_rank and --lora_target_modules must be as in the run that wrote it, and --flow_loss_weight above 0 "
            "if it was there"
        )
    with torch.no_grad():
        for name, value in theirs.items():
            own[name].copy_(value)
