"""Full fine-tuning of the DiT: float32 masters, and a forward as at inference."""

import copy

import pytest
import torch

from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.tuning import SAVED, compute_type, load_dit, tune_fully
from tests.model.test_wan import inputs


def bf16_inputs() -> dict[str, torch.Tensor]:
    return {name: value.bfloat16() if name != "sigma" else value for name, value in inputs().items()}


def test_float32_masters_compute_as_the_saved_file_does_at_inference(small_dit):
    """To the last bit, also under autocast; and recomputed blocks give the gradients of those that are kept."""
    names, saved = list(small_dit.state_dict()), copy.deepcopy(small_dit).bfloat16()
    tune_fully(small_dit, torch.bfloat16)
    assert list(small_dit.state_dict()) == names == [name for name, _ in small_dit.named_parameters()]
    assert all(p.dtype == torch.float32 and p.requires_grad for p in small_dit.parameters())
    assert compute_type(small_dit) == compute_type(saved) == torch.bfloat16
    gradients = []
    for checkpointing in ("none", "every"):
        with torch.autocast("cpu", torch.bfloat16):
            ours = MotionDepthModel(small_dit, None, True, checkpointing)(**bf16_inputs(), with_flow=True)
            theirs = MotionDepthModel(saved, None, False)(**bf16_inputs(), with_flow=True)
        assert ours.keys() == {"flow_error", "flow_loss"}
        assert torch.equal(ours["flow_error"], theirs["flow_error"])
        ours["flow_error"].sum().backward()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in small_dit.parameters())
        gradients.append([p.grad for p in small_dit.parameters()])
        small_dit.zero_grad()
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert all(torch.equal(value.to(SAVED), saved.state_dict()[name]) for name, value in small_dit.state_dict().items())


def test_behind_the_last_block_nothing_trains(small_dit):
    tune_fully(small_dit, torch.bfloat16, last_block=3)
    frozen = {name for name, p in small_dit.named_parameters() if not p.requires_grad}
    assert frozen == {name for name in small_dit.state_dict() if name.startswith(("blocks.4.", "blocks.5.", "head."))}
    assert {p.dtype for name, p in small_dit.named_parameters() if name in frozen} == {torch.bfloat16}


def test_weights_of_another_dit_are_refused(small_dit):
    state = {name: value.clone() for name, value in small_dit.state_dict().items()}
    load_dit(small_dit, {name: value + 1 for name, value in state.items()}, "dit.safetensors")
    assert torch.equal(small_dit.head.head.bias, state["head.head.bias"] + 1)
    with pytest.raises(
        ValueError, match=r"some/dit.safetensors: weights of another DiT \(1 tensors differ, the first is"
    ):
        load_dit(small_dit, state | {"more": torch.zeros(1)}, "some/dit.safetensors")
