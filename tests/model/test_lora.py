"""LoRA on the DiT: precision, training, the stock pipeline."""

import pytest
import torch

from motion_depth.model.lora import add_lora, load_lora, lora_state_dict
from motion_depth.model.motion_depth import MotionDepthModel
from tests.model.test_wan import TARGETS, inputs


def test_lora_is_float32_on_a_bf16_dit_that_computes_in_bf16(small_dit, small_heads):
    """As in training: heads under autocast, the DiT in its own precision, also in norms that autocast would raise."""
    small_dit.bfloat16()
    add_lora(small_dit, 4, TARGETS)
    lora = {name: p for name, p in small_dit.named_parameters() if ".lora_" in name}
    assert len(lora) == 6 * (2 * 4 + 2) * 2  # blocks x (self and cross attention, feed-forward) x (A, B)
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in lora.values())
    assert not any(p.requires_grad for name, p in small_dit.named_parameters() if name not in lora)
    seen, autocast = {}, []
    block = small_dit.blocks[0]
    for name, module in {"lora": block.ffn[0].lora_B["default"], "layer": block.ffn[0], "block": block}.items():
        module.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o.dtype}))
    block.norm1.register_forward_hook(lambda *_: autocast.append(torch.is_autocast_enabled("cpu")))
    data = {name: value.bfloat16() if name != "sigma" else value for name, value in inputs().items()}
    model = MotionDepthModel(small_dit, small_heads, train_dit=True)
    with torch.autocast("cpu", torch.bfloat16):
        model(**data, with_flow=True)["flow_loss"].sum().backward()
    assert seen == dict.fromkeys(("lora", "layer", "block"), torch.bfloat16)
    assert autocast == [False]
    assert all(parameter.grad.dtype == torch.float32 for parameter in lora.values())


def test_bad_lora_is_refused(small_dit):
    with pytest.raises(ValueError, match="--lora_target_modules nothing"):
        add_lora(small_dit, 4, ("q", "nothing"))
    add_lora(small_dit, 4, ("q",))
    state = lora_state_dict(small_dit)
    with pytest.raises(ValueError, match=r"some/lora.safetensors: LoRA of another shape"):
        load_lora(small_dit, {name: value[:2] for name, value in state.items()}, "some/lora.safetensors")
    with pytest.raises(ValueError, match="LoRA of another shape"):
        load_lora(small_dit, dict(list(state.items())[:-1]), "some/lora.safetensors")
