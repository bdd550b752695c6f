"""The tiny model's autoencoders: WAN's layout, causality, and that little of the picture is lost."""

import copy

import numpy as np
import pytest
import torch
from einops import rearrange

from motion_depth.tiny.block_code import BlockCode, draw_blocks, hadamard
from motion_depth.tiny.vae import SmallVideoVAE, TinyWanVideoVAE38, fit_vae, load_vae, save_vae
from tests.support.moving_squares import FRAMES, HEIGHT, SCENES, WIDTH, psnr, render, windows

SIZES = {"decoder": (12, 10, 6), "depths": (1, 2, 1)}


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    """(scenes, 3, T, H, W) in [-1, 1]."""
    frames = torch.from_numpy(np.stack([render(seed) for seed in range(SCENES)]))
    return rearrange(frames, "b t h w c -> b c t h w").float() * (2 / 255) - 1


@pytest.fixture(scope="module")
def fitted() -> SmallVideoVAE:
    """The linear code alone."""
    return fit_vae(windows())


@pytest.fixture(scope="module")
def full() -> SmallVideoVAE:
    """With a network, whose layers that start at zero are as if they had been trained."""
    vae = fit_vae(windows(), **SIZES)
    generator = torch.Generator().manual_seed(0)
    for parameter in vae.parameters():
        if not parameter.any():
            parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    vae.model.mean.copy_(0.1 * torch.randn(2, 48, generator=generator))
    vae.model.std.copy_(0.5 + torch.rand(2, 48, generator=generator))
    return vae


@pytest.fixture(params=["fitted", "full"])
def vae(request) -> SmallVideoVAE:
    return request.getfixturevalue(request.param)


def test_latents_have_wan_layout(vae, clips):
    latents = vae.encode(clips, device="cpu")
    assert latents.shape == (SCENES, vae.z_dim, 1 + (FRAMES - 1) // 4, HEIGHT // 16, WIDTH // 16)
    assert (vae.z_dim, vae.model.z_dim, vae.upsampling_factor) == (48, 48, 16)
    assert vae.decode(latents, device="cpu").shape == clips.shape


def test_fitted_blocks_have_mean_0_and_equal_variance_in_all_channels():
    blocks = draw_blocks(windows(), 64, seed=0)
    code = BlockCode(4, 48)
    code.fit(blocks, seed=0)
    codes = code.encode(rearrange(blocks, "n (c k p q) -> n c k p q", c=3, k=4, p=16, q=16)).flatten(1)
    assert codes.mean(dim=0).abs().max() < 1e-3
    torch.testing.assert_close(codes.var(dim=0), torch.ones(48), atol=0.05, rtol=0)


def test_an_error_in_fitted_latents_is_an_error_in_pixels(fitted):
    """Equal noise on any channel of latent 0 costs the same pixels, and no direction of all channels costs more."""
    back = fitted.model.first_code.back
    gram = back.T @ back
    torch.testing.assert_close(gram, gram[0, 0] * torch.eye(48), atol=float(1e-3 * gram[0, 0]), rtol=0)


def test_hadamard_matrix_is_orthonormal_with_entries_of_one_size():
    matrix = hadamard()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(48))
    torch.testing.assert_close(matrix.abs(), torch.full((48, 48), 48**-0.5))
    with pytest.raises(ValueError, match="order 16"):
        hadamard(16)


def test_decode_inverts_encode_on_fitted_scenes(fitted, clips):
    decoded = fitted.decode(fitted.encode(clips, device="cpu"), device="cpu")
    assert decoded.abs().max() <= 1
    assert psnr(decoded[:, :, :1], clips[:, :, :1]) > 30
    assert psnr(decoded[:, :, 1:], clips[:, :, 1:]) > 25


def test_a_network_that_was_not_trained_changes_nothing(fitted, clips):
    untrained = fit_vae(windows(), **SIZES)
    latents = untrained.encode(clips, device="cpu")
    assert torch.equal(latents, fitted.encode(clips, device="cpu"))
    assert torch.equal(untrained.decode(latents, device="cpu"), fitted.decode(latents, device="cpu"))


def test_equal_windows_and_seeds_give_equal_weights():
    weights = [fit_vae(windows(), seed=seed, **SIZES).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["model.rest_code.into"], weights[2]["model.rest_code.into"])
    assert not torch.equal(weights[0]["model.decoder.unfold.weight"], weights[2]["model.decoder.unfold.weight"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tiled", [False, True])
def test_first_latent_does_not_depend_on_the_rest(vae, clips, dtype, tiled):
    clip = clips[0].to(dtype)
    typed = copy.deepcopy(vae).to(dtype)
    whole = typed.encode([clip], device="cpu", tiled=tiled)
    alone = typed.encode([clip[:, :1]], device="cpu", tiled=tiled)
    assert whole.dtype == dtype
    assert torch.equal(whole[:, :, :1], alone)


def test_prefix_of_frames_gives_prefix_of_latents_and_the_other_way(vae, clips):
    latents = vae.encode(clips[:1], device="cpu")
    torch.testing.assert_close(vae.encode(clips[:1, :, :9], device="cpu"), latents[:, :, :3])
    frames = vae.decode(latents, device="cpu")
    for count in (1, 2, 3):
        torch.testing.assert_close(
            vae.decode(latents[:, :, :count], device="cpu"), frames[:, :, : 4 * count - 3], atol=1e-5, rtol=1e-4
        )


def test_each_latent_holds_its_own_four_frames(vae, clips):
    changed = clips[:1].clone()
    changed[:, :, 5:9] *= -1  # frames 5 .. 8 are latent 2
    differs = (vae.encode(changed, device="cpu") != vae.encode(clips[:1], device="cpu")).any(dim=(0, 1, 3, 4))
    assert differs.tolist() == [False, False, True, False]


def test_decoder_overlaps_blocks_and_looks_back(full):
    latents = torch.zeros(1, 48, 4, 3, 3)
    changed = latents.clone()
    changed[:, :, 1, 1, 1] = 3.0
    difference = (full.model.decode(changed) - full.model.decode(latents)).abs().amax(dim=(0, 1))
    assert (difference[1:5, 16:32, 16:32] > 0).all()
    assert difference[1:5, :16].max() > 0  # the block above
    assert difference[5:9].max() > 0  # the frames of the next latent
    assert difference[0].max() == 0  # the frame before


def test_windows_of_a_scene_are_encoded_at_once(vae, clips):
    first, rest = vae.model.encode_windows(clips[:1, :, :11])
    assert (first.shape[1], rest.shape[1]) == (11, 7)
    for start in range(3):
        latents = vae.model.encode(clips[:1, :, start : start + 9])[0]
        window = torch.stack([first[:, start], rest[:, start], rest[:, start + 4]], dim=1)
        torch.testing.assert_close(window, latents, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(3, 8, 64, 96), (3, 5, 72, 96), (3, 5, 64, 90)])
def test_clip_that_does_not_fit_the_layout_is_an_error(fitted, shape):
    with pytest.raises(ValueError, match=f"given {shape[1]} frames of {shape[2]}x{shape[3]}"):
        fitted.encode([torch.zeros(shape)], device="cpu")


def test_too_few_blocks_are_an_error():
    with pytest.raises(ValueError, match="too few"):
        fit_vae([torch.zeros(4, 32, 32, 3, dtype=torch.uint8)])


@pytest.mark.parametrize("sizes", [{"decoder": (4,)}, {"depths": (1, 1)}])
def test_sizes_that_are_not_three_are_an_error(sizes):
    with pytest.raises(ValueError, match=f"{next(iter(sizes))} .*expected three"):
        SmallVideoVAE(**sizes)


def test_a_saved_vae_says_what_it_is_made_of(full, clips, tmp_path):
    save_vae(full, tmp_path / "vae.safetensors")
    loaded = load_vae(tmp_path / "vae.safetensors")
    assert loaded.arguments == full.arguments
    assert torch.equal(loaded.model.rest_code.into, full.model.rest_code.into)
    assert torch.equal(loaded.model.decoder.unfold.weight, full.model.decoder.unfold.weight.bfloat16().float())
    torch.testing.assert_close(loaded.model.encode(clips), full.model.encode(clips), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("content", [b"", b"no safetensors at all", None])
def test_a_file_that_holds_no_vae_is_a_one_line_error(content, tmp_path):
    path = tmp_path / "vae.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="not a small VAE") as error:
        load_vae(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


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
