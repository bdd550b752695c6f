"""The rotary embedding in float32: beside the library's, under everything that training does with a block."""

import copy

import pytest
import torch
from diffsynth.models.wan_video_dit import SelfAttention, WanModel, rope_apply
from diffsynth.pipelines.wan_video import model_fn_wan_video

from motion_depth.model.rope import rotate, rotation_table, use_float32
from motion_depth.model.wan import dit_forward

CPU = torch.device("cpu")


@pytest.fixture
def wide_dit() -> WanModel:
    """Two blocks with heads as wide as WAN's, 128."""
    torch.manual_seed(0)
    dit = WanModel(
        dim=512, in_dim=48, ffn_dim=512, out_dim=48, text_dim=16, freq_dim=64, eps=1e-6, patch_size=(1, 2, 2),
        num_heads=4, num_layers=2, has_image_input=False, seperated_timestep=True, require_vae_embedding=False,
        require_clip_embedding=False, fuse_vae_embedding_in_latents=True,
    )  # fmt: skip
    return dit.eval().requires_grad_(False)


def inputs(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 48, 4, 8, 8, generator=generator)
    context = torch.randn(1, 512, 16, generator=generator)
    return {"latents": latents.to(dtype), "timestep": torch.tensor([385.7]), "context": context.to(dtype)}


def library(dit: WanModel, latents: torch.Tensor, timestep: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """The library's forward, called as its pipeline calls it: with the timestep in the latents' type."""
    return model_fn_wan_video(
        dit, latents=latents, timestep=timestep.to(latents), context=context, fuse_vae_embedding_in_latents=True
    )


def test_a_number_is_turned_as_by_the_library_to_float32s_precision(wide_dit):
    x = torch.randn(2, 4 * 4 * 4, 512, generator=torch.Generator().manual_seed(0))
    stock = rotation_table(wide_dit, (4, 4, 4), CPU)
    use_float32(wide_dit)
    table = rotation_table(wide_dit, (4, 4, 4), CPU)
    assert (stock.dtype, table.dtype) == (torch.complex128, torch.complex64)
    torch.testing.assert_close(rotate(x, table, 4), rope_apply(x, stock, 4), rtol=1e-5, atol=1e-6)


def test_a_bf16_dit_differs_by_less_than_its_own_precision(wide_dit):
    exact, _ = dit_forward(wide_dit, **inputs(torch.float32))
    dit = copy.deepcopy(wide_dit).bfloat16()
    stock, _ = dit_forward(dit, **inputs(torch.bfloat16))
    use_float32(dit)
    ours, _ = dit_forward(dit, **inputs(torch.bfloat16))
    apart, own = (ours.float() - stock.float()).abs(), (stock.float() - exact).abs()
    assert 0 < apart.mean() < own.mean() / 2
    assert apart.max() < own.max()


def test_the_librarys_forward_stays_the_librarys_to_the_last_bit(wide_dit):
    dit = copy.deepcopy(wide_dit).bfloat16()
    before = library(dit, **inputs(torch.bfloat16))
    use_float32(dit)
    dit_forward(dit, **inputs(torch.bfloat16))
    assert torch.equal(library(dit, **inputs(torch.bfloat16)), before)
    assert type(wide_dit.blocks[0].self_attn) is SelfAttention
    use_float32(dit, wanted=False)
    assert torch.equal(dit_forward(dit, **inputs(torch.bfloat16))[0], before)


def test_the_table_is_made_once_for_a_grid_and_follows_it(wide_dit):
    table = rotation_table(wide_dit, (4, 4, 4), CPU)
    assert rotation_table(wide_dit, (4, 4, 4), CPU) is table
    assert len(rotation_table(wide_dit, (2, 4, 4), CPU)) == 32
    assert len(wide_dit._rotation_tables) == 1
    assert not any("rotation" in name for name in wide_dit.state_dict())


def test_compiled_blocks_turn_alike(wide_dit):
    use_float32(wide_dit)
    plain, _ = dit_forward(wide_dit, **inputs(torch.float32))
    for block in wide_dit.blocks:
        block.compile(backend="aot_eager")
    compiled, _ = dit_forward(wide_dit, **inputs(torch.float32))
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-4)
