"""Compiled blocks and heads compute what they did before; and what torch.compile did is counted."""

import copy

import pytest
import torch

from motion_depth.latents import WAN22
from motion_depth.model.compiling import compile_counts, compile_parts
from motion_depth.model.layers import FrameDecoder
from motion_depth.model.motion_depth import MotionDepthModel


def inputs(frames: int, batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(batch, 48, frames, 4, 4, generator=generator)
    return {
        "latents": latents,
        "first": latents[:, :, :1],
        "context": torch.randn(batch, WAN22.text_tokens, 16, generator=generator),
        "noise": torch.randn(latents.shape, generator=generator),
        "sigma": torch.linspace(0.2, 0.8, batch),
    }


def step(model: MotionDepthModel, frames: int = 2) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Predictions, and the gradients of their squares' sum."""
    model.zero_grad()
    found = model(**inputs(frames), with_flow=model.train_dit)
    sum(value.square().sum() for value in found.values()).backward()
    return found, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("train_dit", [False, True])
def test_compiled_parts_compute_the_same(small_dit, small_heads, train_dit):
    torch._dynamo.reset()
    torch.manual_seed(3)
    for head in (small_heads.motion, small_heads.depth):
        torch.nn.init.normal_(head.out.weight)  # zero at the start, which would compare nothing
    if train_dit:
        small_dit.blocks[0].self_attn.q.requires_grad_(True)
    model = MotionDepthModel(small_dit, small_heads, train_dit, checkpointing="every" if train_dit else "none")
    plain = copy.deepcopy(model)
    before = compile_counts()
    compile_parts(model.dit.blocks, [model.heads.motion, model.heads.depth], backend="aot_eager")
    assert list(model.state_dict()) == list(plain.state_dict())
    (ours, our_gradients), (theirs, their_gradients) = step(model), step(plain)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-4)
    assert our_gradients.keys() == their_gradients.keys()
    for name in their_gradients:
        torch.testing.assert_close(our_gradients[name], their_gradients[name], rtol=1e-3, atol=1e-3)
    after = compile_counts()
    assert after.graphs > before.graphs
    step(model)
    assert compile_counts() == after  # the same shapes need nothing new
    step(model, frames=3)
    assert compile_counts().recompiles > after.recompiles


def test_inductor_compiles_the_decoder_with_its_gradients():
    """The backend that --compile uses, on the part that it could not compile before: an upsampling over neighbours."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    plain = FrameDecoder((8, 8, 8), 48, 2, 16, convex=True)
    compiled = copy.deepcopy(plain)
    compiled.compile()
    x, latents = torch.randn(3, 8, 4, 4), torch.randn(3, 48, 4, 4)
    ours, theirs = compiled(x, latents), plain(x, latents)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    for output in (ours, theirs):
        output.square().sum().backward()
    for mine, other in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-3)
