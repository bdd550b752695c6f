"""Heads: time layout, shapes at odd grids, first prediction, chunking, budget at the 5B model's shapes."""

import pytest
import torch
from torch import nn

from motion_depth.model import heads as heads_module
from motion_depth.model.heads import HEAD_SIZES, HeadConfig, MotionDepthHeads, example_features, tap_blocks
from motion_depth.model.layers import FrameDecoder, TimeExpansion, convex_upsample
from motion_depth.model.motion_depth import MotionDepthModel, count_operations
from motion_depth.model.wan import WanDit
from motion_depth.readouts.statistics import neutral
from tests.support.quantities import statistics_of
from tools.benchmarks.models import DIT_5B


def build(kind: str = "dense", **changes) -> MotionDepthHeads:
    torch.manual_seed(0)
    config = HeadConfig(**{"dit_dim": 32, "taps": (1, 3), "kind": kind, **HEAD_SIZES["small"], **changes})
    return MotionDepthHeads(config, statistics_of(3.0, 0.7, 0.5))


def shake(module: nn.Module) -> None:
    """Gives the zero-initialised layers values, so that the output depends on the input."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.1) if parameter.detach().abs().sum() == 0 else None


@pytest.mark.parametrize("kind", ["dense", "linear"])
@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 3, 1), (5, 1, 2), (3, 5, 3)])
def test_any_grid_gives_full_resolution_maps(kind, grid):
    f, h, w = grid
    out = build(kind)(example_features(build(kind).config, grid, batch=2))
    frames = 4 * (f - 1) + 1
    assert out["motion"].shape == (2, frames, 2, 32 * h, 32 * w)
    assert out["log_depth"].shape == out["background_logit"].shape == (2, frames, 32 * h, 32 * w)
    assert all(value.dtype == torch.float32 for value in out.values())


@pytest.mark.parametrize("kind", ["dense", "linear"])
@pytest.mark.parametrize("upsampling", ["convex", "bilinear"])
def test_first_prediction_is_median_depth_and_no_motion(kind, upsampling):
    heads = build(kind, upsampling=upsampling)
    out = heads(example_features(heads.config, (2, 2, 2)))
    assert torch.equal(out["motion"], torch.zeros_like(out["motion"]))
    torch.testing.assert_close(out["log_depth"], torch.full_like(out["log_depth"], 0.7))
    assert torch.equal(out["background_logit"], torch.zeros_like(out["background_logit"]))


def test_time_expansion_reads_a_latent_and_the_one_before():
    expand = TimeExpansion(4, 4)
    x = torch.randn(1, 4, 5, 2, 2)
    before = expand(x)
    assert before.shape[2] == 17
    changed = x.clone()
    changed[:, :, 2] += 1
    moved = (expand(changed) - before).abs().amax(dim=(0, 1, 3, 4)) > 0
    # Latent 2 holds frames 5..8 and is the one before frames 9..12.
    assert moved.nonzero().flatten().tolist() == list(range(5, 13))


def test_linear_head_keeps_wans_time_layout():
    heads = build("linear")
    shake(heads)
    features = example_features(heads.config, (3, 1, 1))
    before = heads(features)["log_depth"]
    features.taps[0][:, 1] += torch.randn(32)
    moved = (heads(features)["log_depth"] - before).abs().amax(dim=(0, 2, 3)) > 0
    assert moved.nonzero().flatten().tolist() == [1, 2, 3, 4]


def test_convex_upsampling_of_a_constant_and_of_a_chosen_neighbour():
    coarse = torch.full((1, 1, 3, 3), 2.5)
    torch.testing.assert_close(convex_upsample(coarse, torch.randn(1, 36, 3, 3), 2), torch.full((1, 1, 6, 6), 2.5))
    coarse = torch.arange(9.0).reshape(1, 1, 3, 3)
    mask = torch.full((1, 36, 3, 3), -1e4)
    mask.unflatten(1, (9, 2, 2))[:, 5] = 1e4  # the neighbour to the right
    right = torch.tensor([[1.0, 2, 2], [4, 5, 5], [7, 8, 8]])  # repeats the border
    torch.testing.assert_close(
        convex_upsample(coarse, mask, 2)[0, 0], right.repeat_interleave(2, 0).repeat_interleave(2, 1)
    )


def test_decoding_in_chunks_changes_neither_values_nor_gradients(monkeypatch):
    heads = build()
    shake(heads)
    features = example_features(heads.config, (3, 2, 2))

    def run() -> tuple[torch.Tensor, list[torch.Tensor]]:
        heads.zero_grad()
        out = heads(features)
        sum(value.square().mean() for value in out.values()).backward()
        return out["motion"].detach(), [parameter.grad.clone() for parameter in heads.parameters()]

    whole, whole_gradients = run()
    calls = []
    monkeypatch.setattr(heads_module, "PIXELS_PER_CHUNK", 2 * 64 * 64)
    forward = FrameDecoder.forward
    monkeypatch.setattr(FrameDecoder, "forward", lambda self, x, y: calls.append(len(x)) or forward(self, x, y))
    chunked, chunked_gradients = run()
    assert max(calls) == 2
    assert len(calls) > 10
    torch.testing.assert_close(chunked, whole)
    for one, other in zip(whole_gradients, chunked_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["dense", "linear"])
def test_every_parameter_gets_a_gradient(kind):
    heads = build(kind)
    shake(heads)
    out = heads(example_features(heads.config, (2, 2, 2)))
    sum((value - torch.randn_like(value)).square().sum() for value in out.values()).backward()
    dead = [name for name, parameter in heads.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert dead == []


def test_noised_latents_are_read_only_with_the_skip():
    for skip in (True, False):
        heads = build(latent_skip=skip)
        shake(heads)
        features = example_features(heads.config, (2, 1, 1))
        other = features._replace(latents=torch.randn_like(features.latents))
        assert torch.equal(heads(features)["motion"], heads(other)["motion"]) is not skip


def test_taps_by_fraction_of_depth():
    assert tap_blocks(30) == (9, 14, 19, 24)
    assert tap_blocks(10) == (2, 4, 6, 7)
    assert tap_blocks(30, (1.0,)) == (29,)
    with pytest.raises(ValueError, match="two taps fall on one"):
        tap_blocks(3)
    with pytest.raises(ValueError, match=r"fractions of the DiT's depth in \(0, 1\]"):
        tap_blocks(30, (0.0, 0.5))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("kind", "big", "--head big"), ("upsampling", "x", "--head_upsampling x"), ("taps", (3, 1), "--head_taps")],
)
def test_bad_configurations_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        HeadConfig(**{"dit_dim": 8, "taps": (1, 2), field: value})


def test_full_heads_stay_within_budget_at_5b_shapes():
    """480 x 480 x 49 on the 5B model's shapes, without data: operations of both heads against the DiT's."""
    with torch.device("meta"):
        dit = WanDit(**DIT_5B)
        heads = MotionDepthHeads(HeadConfig(3072, tap_blocks(30), **HEAD_SIZES["full"]), neutral())
        out = heads(example_features(heads.config, (13, 15, 15), device="meta"))
    assert out["motion"].shape == (1, 49, 2, 480, 480)
    operations = count_operations(MotionDepthModel(dit, heads, train_dit=False), 49, 480, 480)
    assert 28e12 < operations["dit"] < 32e12
    assert operations["heads"] < 0.10 * operations["dit"]
