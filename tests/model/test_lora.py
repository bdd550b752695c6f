"""LoRA on the DiT: precision, training, the stock pipeline."""

import pytest
import torch
from safetensors.torch import save_file

from motion_depth.model.lora import add_lora, load_lora, lora_state_dict
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.wan import Wan
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


def test_lora_trains_where_bf16_weights_would_stall(small_dit, small_heads):
    """The same run with float32 and with bf16 masters: at lr 1e-4 most bf16 updates round to nothing."""
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.nn.Parameter(small_heads.motion.tap_mix.projections[0].weight.detach().to(dtype))
        start = weight.detach().clone()
        optimizer = torch.optim.AdamW([weight], lr=1e-4, weight_decay=0.0)
        generator = torch.Generator().manual_seed(0)
        for _ in range(8):
            weight.grad = torch.randn(weight.shape, generator=generator).to(dtype)
            optimizer.step()
        moved[dtype] = (weight.detach() != start).float().mean().item()
    assert moved[torch.float32] > 0.99
    assert moved[torch.bfloat16] < 0.7


def test_lora_round_trips_into_a_stock_pipeline(tiny_wan, tmp_path):
    """Saved LoRA, loaded by the library's own `load_lora`, gives the DiT that was trained."""
    backbone = Wan.in_folder(tiny_wan)
    trained = backbone.load_dit(torch.float32, "cpu")
    stock = backbone.load_pipeline(("dit",), torch.float32, "cpu")
    add_lora(trained, 4, TARGETS)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.05)
    save_file(lora_state_dict(trained), tmp_path / "lora.safetensors")
    data = inputs(text_dim=trained.text_dim)
    arguments = (data["latents"], torch.tensor([500.0]), data["context"])
    before, _ = stock.dit.forward_with_taps(*arguments)
    stock.load_lora(stock.dit, str(tmp_path / "lora.safetensors"))
    ours, theirs = trained.forward_with_taps(*arguments)[0], stock.dit.forward_with_taps(*arguments)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert (before - theirs).abs().max() > 0.01

    again = backbone.load_dit(torch.float32, "cpu")
    add_lora(again, 4, TARGETS)
    load_lora(again, lora_state_dict(trained), "x")
    assert torch.equal(again.forward_with_taps(*arguments)[0], ours)


def test_bad_lora_is_refused(small_dit):
    with pytest.raises(ValueError, match="--lora_target_modules nothing"):
        add_lora(small_dit, 4, ("q", "nothing"))
    add_lora(small_dit, 4, ("q",))
    state = lora_state_dict(small_dit)
    with pytest.raises(ValueError, match=r"some/lora.safetensors: LoRA of another shape"):
        load_lora(small_dit, {name: value[:2] for name, value in state.items()}, "some/lora.safetensors")
    with pytest.raises(ValueError, match="LoRA of another shape"):
        load_lora(small_dit, dict(list(state.items())[:-1]), "some/lora.safetensors")
