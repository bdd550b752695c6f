"""The rotary embedding in float32: beside the library's, under everything that training does with a block."""

import copy

import pytest
import torch
from diffsynth.models.wan_video_dit import WanModel, rope_apply
from diffsynth.pipelines.wan_video import model_fn_wan_video

from motion_depth.model.rope import rotate, rotation_table
from motion_depth.model.wan import WanDit
from tests.support.dits import WIDE, frozen_dit

CPU = torch.device("cpu")


@pytest.fixture
def wide_dit() -> WanDit:
    return frozen_dit(WIDE)


def inputs(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 48, 4, 8, 8, generator=generator)
    context = torch.randn(1, 512, 16, generator=generator)
    return {"latents": latents.to(dtype), "timestep": torch.tensor([385.7]), "context": context.to(dtype)}


def library(dit: WanDit, latents: torch.Tensor, timestep: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """The library's forward, called as its pipeline calls it: with the timestep in the latents' type."""
    return model_fn_wan_video(
        dit, latents=latents, timestep=timestep.to(latents), context=context, fuse_vae_embedding_in_latents=True
    )


def test_a_number_is_turned_as_by_the_library_to_float32s_precision(wide_dit):
    x = torch.randn(2, 4 * 4 * 4, 512, generator=torch.Generator().manual_seed(0))
    stock, table = (rotation_table(wide_dit, (4, 4, 4), CPU, dtype) for dtype in (torch.complex128, torch.complex64))
    torch.testing.assert_close(rotate(x, table, 4), rope_apply(x, stock, 4), rtol=1e-5, atol=1e-6)


def test_a_bf16_dit_differs_by_less_than_its_own_precision(wide_dit):
    wide_dit.rotation = torch.complex128
    exact, _ = wide_dit.forward_with_taps(**inputs(torch.float32))
    dit = copy.deepcopy(wide_dit).bfloat16()
    stock, _ = dit.forward_with_taps(**inputs(torch.bfloat16))
    dit.rotation = torch.complex64
    ours, _ = dit.forward_with_taps(**inputs(torch.bfloat16))
    apart, own = (ours.float() - stock.float()).abs(), (stock.float() - exact).abs()
    assert 0 < apart.mean() < own.mean() / 2
    assert apart.max() < own.max()


def test_the_librarys_forward_stays_the_librarys_to_the_last_bit(wide_dit):
    dit = copy.deepcopy(wide_dit).bfloat16()
    stock = WanModel(**WIDE).bfloat16()
    stock.load_state_dict(dit.state_dict())
    before = library(stock, **inputs(torch.bfloat16))
    dit.forward_with_taps(**inputs(torch.bfloat16))
    assert torch.equal(library(dit, **inputs(torch.bfloat16)), before)
    dit.rotation = torch.complex128
    assert torch.equal(dit.forward_with_taps(**inputs(torch.bfloat16))[0], before)


def test_the_table_is_made_once_for_a_grid_and_follows_it(wide_dit):
    table = rotation_table(wide_dit, (4, 4, 4), CPU, torch.complex64)
    assert rotation_table(wide_dit, (4, 4, 4), CPU, torch.complex64) is table
    assert len(rotation_table(wide_dit, (2, 4, 4), CPU, torch.complex64)) == 32
    assert len(wide_dit._rotation_tables) == 1
    assert not any("rotation" in name for name in wide_dit.state_dict())
