"""The tiny model's autoencoders: WAN's layout, causality, and that little of the picture is lost."""

import numpy as np
import pytest
import torch
from einops import rearrange

from motion_depth.tiny.vae import (
    CHANGE_WEIGHT,
    COLOUR_STEP,
    BlockPCA,
    LinearVideoVAE,
    TinyWanVideoVAE38,
    fit_linear_vae,
    to_blocks,
)
from tests.support.moving_squares import FRAMES, HEIGHT, SCENES, WIDTH, psnr, render, windows


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    """(scenes, 3, T, H, W) in [-1, 1]."""
    frames = torch.from_numpy(np.stack([render(seed) for seed in range(SCENES)]))
    return rearrange(frames, "b t h w c -> b c t h w").float() * (2 / 255) - 1


@pytest.fixture(scope="module")
def vae() -> LinearVideoVAE:
    return fit_linear_vae(windows())


def test_latents_have_wan_layout_and_about_unit_variance(vae, clips):
    latents = vae.encode(clips, device="cpu")
    assert latents.shape == (SCENES, vae.z_dim, 1 + (FRAMES - 1) // 4, HEIGHT // 16, WIDTH // 16)
    assert (vae.z_dim, vae.model.z_dim, vae.upsampling_factor) == (48, 48, 16)
    # A component below one step of 8-bit colour is left small on purpose; the others are normalised.
    used = vae.model.rest.std > COLOUR_STEP
    assert used.sum() > 30
    std = latents[:, used, 1:].std(dim=(0, 2, 3, 4))
    assert std.min() > 0.3
    assert std.max() < 3.0


def test_decode_inverts_encode_on_fitted_scenes(vae, clips):
    decoded = vae.decode(vae.encode(clips, device="cpu"), device="cpu")
    assert decoded.shape == clips.shape
    assert decoded.abs().max() <= 1
    assert psnr(decoded[:, :, :1], clips[:, :, :1]) > 30
    assert psnr(decoded[:, :, 1:], clips[:, :, 1:]) > 25


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tiled", [False, True])
def test_first_latent_does_not_depend_on_the_rest(vae, clips, dtype, tiled):
    clip = clips[0].to(dtype)
    whole = vae.encode([clip], device="cpu", tiled=tiled)
    alone = vae.encode([clip[:, :1]], device="cpu", tiled=tiled)
    assert whole.dtype == dtype
    assert torch.equal(whole[:, :, :1], alone)


def test_each_latent_holds_its_own_four_frames(vae, clips):
    changed = clips[:1].clone()
    changed[:, :, 5:9] *= -1  # frames 5 .. 8 are latent 2
    differs = (vae.encode(changed, device="cpu") != vae.encode(clips[:1], device="cpu")).any(dim=(0, 1, 3, 4))
    assert differs.tolist() == [False, False, True, False]


def test_components_are_orthonormal_and_have_a_fixed_sign(vae):
    for pca in (vae.model.first, vae.model.rest):
        gram = pca.components @ pca.components.T
        torch.testing.assert_close(gram, torch.eye(vae.z_dim), atol=1e-4, rtol=0)
        assert (pca.components.amax(dim=1) >= -pca.components.amin(dim=1)).all()
        assert pca.std.min() >= np.float32(COLOUR_STEP)


def test_first_frame_components_lose_no_more_than_exact_principal_components(vae):
    """The decomposition is randomised; every block of the first frames of the fitted windows is in it."""
    every_block = (HEIGHT // 16) * (WIDTH // 16)
    pca = fit_linear_vae(windows(step=4), blocks_per_window=every_block).model.first
    pictures = torch.stack([window[0] for window in windows(step=4)]).float() * (2 / 255) - 1
    centred = to_blocks(rearrange(pictures, "b h w c -> b c 1 h w"), 1).flatten(0, 3) - pca.mean
    residual = centred - centred @ pca.components.T @ pca.components
    assert residual.square().sum() < 1.02 * torch.linalg.svdvals(centred)[vae.z_dim :].square().sum()


def test_change_over_time_is_weighted_and_unweighted_again():
    """Encoding undoes decoding for any orthonormal components; and the weight is in the state that is saved."""
    pca = BlockPCA(4, z_dim=48)
    basis = torch.linalg.qr(torch.randn(pca.components.shape[1], 48, generator=torch.Generator().manual_seed(0)))[0]
    pca.components.data = basis.T.contiguous()
    latents = torch.randn(1, 48, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(pca.encode(pca.decode(latents)), latents, atol=1e-4, rtol=1e-4)
    assert pca.state_dict()["change_weight"] == CHANGE_WEIGHT


@pytest.mark.parametrize("shape", [(3, 8, 64, 96), (3, 5, 72, 96), (3, 5, 64, 90)])
def test_clip_that_does_not_fit_the_layout_is_an_error(vae, shape):
    with pytest.raises(ValueError, match=f"given {shape[1]} frames of {shape[2]}x{shape[3]}"):
        vae.encode([torch.zeros(shape)], device="cpu")


def test_too_few_blocks_are_an_error():
    with pytest.raises(ValueError, match="too few"):
        fit_linear_vae([torch.zeros(4, 32, 32, 3, dtype=torch.uint8)])


@pytest.mark.parametrize("width", [1, 3, 8])
def test_real_vae_works_at_any_width(width, clips):
    torch.manual_seed(0)
    vae = TinyWanVideoVAE38(dim=width, dec_dim=width)
    latents = vae.encode(clips[:1, :, :9], device="cpu")
    assert latents.shape == (1, 48, 3, HEIGHT // 16, WIDTH // 16)
    assert torch.equal(vae.encode([clips[0, :, :1]], device="cpu"), latents[:, :, :1])
    decoded = vae.decode(latents, device="cpu")
    assert decoded.shape == clips[:1, :, :9].shape
    assert torch.isfinite(decoded).all()
    assert decoded.std() > 0
