"""The tiny model's files: the library's own loader and pipeline run them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffsynth.models.wan_video_dit import precompute_freqs_cis_3d
from diffsynth.models.wan_video_text_encoder import HuggingfaceTokenizer
from diffsynth.pipelines.wan_video import ModelConfig, WanVideoPipeline
from einops import rearrange
from PIL import Image

from motion_depth.tiny import model as tiny
from motion_depth.tiny.vae import SmallVideoVAE, TinyWanVideoVAE38, fit_vae
from tests.support.moving_squares import HEIGHT, WIDTH, psnr, render, windows

FILES = (tiny.DIT_FILE, tiny.TEXT_ENCODER_FILE, tiny.VAE_FILE)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> WanVideoPipeline:
    return WanVideoPipeline.from_pretrained(
        torch_dtype=dtype,
        device="cpu",
        model_configs=[ModelConfig(path=str(folder / name)) for name in FILES],
        tokenizer_config=ModelConfig(path=str(folder / tiny.TOKENIZER_FOLDER)),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_library_loads_the_files_and_generates(folder, dtype):
    tiny.register_model_configs(folder)
    pipe = load(folder, dtype)
    assert pipe.dit.seperated_timestep
    assert pipe.dit.fuse_vae_embedding_in_latents
    assert not pipe.dit.require_clip_embedding
    assert not pipe.dit.require_vae_embedding
    assert len(pipe.dit.blocks) == 10
    assert pipe.dit2 is None
    assert (pipe.height_division_factor, pipe.width_division_factor) == (32, 32)
    assert {parameter.dtype for parameter in pipe.dit.parameters()} == {dtype}
    image = Image.fromarray(render(0)[0])
    video = pipe(
        prompt="A ball rolls down a ramp.",
        input_image=image,
        height=64,
        width=96,
        num_frames=9,
        num_inference_steps=2,
        seed=0,
        output_type="floatpoint",
        progress_bar_cmd=list,
    )
    assert video.shape == (1, 3, 9, 64, 96)
    assert torch.isfinite(video).all()
    # The first frame is the given picture, within what 48 channels keep of it.
    picture = rearrange(torch.from_numpy(np.array(image)), "h w c -> 1 c h w").float() * (2 / 255) - 1
    assert psnr(video[:, :, 0], picture) > 30
    assert video[:, :, 1:].std() > 0.05


def test_every_block_says_something_about_picture_noise_level_and_text(folder):
    tiny.register_model_configs(folder)
    pipe = load(folder)
    assert all(parameter.std() > 0 for parameter in pipe.dit.parameters() if parameter.ndim > 1)
    outputs = []
    for block in pipe.dit.blocks:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))

    @torch.no_grad()
    def features(latents: torch.Tensor, timestep: float, context: torch.Tensor) -> torch.Tensor:
        """(blocks, tokens, dim)"""
        outputs.clear()
        timestep = torch.tensor([timestep])
        flags = {"fuse_vae_embedding_in_latents": True}
        pipe.model_fn(dit=pipe.dit, latents=latents, timestep=timestep, context=context, **flags)
        return torch.cat(outputs)

    generator = torch.Generator().manual_seed(0)
    latents, other_latents = torch.randn(2, 1, 48, 2, 4, 4, generator=generator)
    text, other_text = torch.randn(2, 1, 7, 64, generator=generator)
    base = features(latents, 500.0, text)
    assert len(base) == 10
    for changed in ((other_latents, 500.0, text), (latents, 20.0, text), (latents, 500.0, other_text)):
        difference = (features(*changed) - base).square().mean(dim=(1, 2))
        assert (difference > 1e-4 * base.square().mean(dim=(1, 2))).all()


@pytest.mark.parametrize(
    "text", ["A ball rolls.", "球が転がる — ¿qué?", "test_ball_collide/env_0", "x" * 40, "tab\tand\nline 😀", ""]
)
def test_tokenizer_takes_any_text(folder, text):
    tokenizer = HuggingfaceTokenizer(name=str(folder / tiny.TOKENIZER_FOLDER), seq_len=512, clean="whitespace")
    ids, mask = tokenizer(text, return_mask=True, add_special_tokens=True)
    length = int(mask.sum())
    assert ids.shape == (1, 512)
    assert ids[0, length - 1] == tokenizer.tokenizer.convert_tokens_to_ids("</s>")
    assert (ids[0, length:] == 0).all()
    assert tokenizer.tokenizer.convert_ids_to_tokens(0) == "<pad>"
    assert tokenizer.tokenizer.decode(ids[0, : length - 1]).strip() == " ".join(text.split())


@pytest.mark.parametrize(("dim", "heads"), [(128, 8), (130, 4), (66, 6), (16, 4)])
def test_head_width_that_rotary_embedding_cannot_use_is_an_error(dim, heads):
    with pytest.raises(ValueError, match=f"--dim {dim} with --num_heads {heads}"):
        tiny.dit_arguments(dim=dim, num_heads=heads)


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_layers": 10**9},
        {"num_layers": 257},
        {"dim": 3 * 2**16, "num_heads": 2**13},
        {"dim": 6144, "num_layers": 64},
    ],
)
def test_a_model_that_no_machine_builds_is_an_error(sizes):
    with pytest.raises(ValueError, match=r"--dim \d+ with --num_layers \d+: .*expected (a number of )?at most"):
        tiny.dit_arguments(**sizes)


def test_the_5bs_own_sizes_are_accepted():
    assert tiny.dit_arguments(3072, 24, 30, 4096)["num_layers"] == 30


def test_the_width_between_a_blocks_last_layers_is_four_times_the_dits_if_not_given():
    assert tiny.dit_arguments(dim=48)["ffn_dim"] == 192
    assert tiny.dit_arguments(dim=48, ffn_dim=100)["ffn_dim"] == 100
    with pytest.raises(ValueError, match="--dim 48 with --num_layers 10: found ffn_dim"):
        tiny.dit_arguments(dim=48, ffn_dim=10**9)


def test_accepted_head_widths_are_those_whose_numbers_the_library_pairs():
    def accepted(head_dim: int) -> bool:
        try:
            return bool(tiny.dit_arguments(dim=head_dim, num_heads=1))
        except ValueError:
            return False

    for head_dim in range(6, 130):
        pairs = sum(frequencies.shape[1] for frequencies in precompute_freqs_cis_3d(head_dim))
        assert accepted(head_dim) == (2 * pairs == head_dim), head_dim


@pytest.fixture(scope="module")
def conv_folder(tmp_path_factory, folder) -> Path:
    """The tiny model with a TinyWanVideoVAE38 in place of the fitted VAE."""
    path = tmp_path_factory.mktemp("conv")
    for entry in folder.iterdir():
        (path / entry.name).symlink_to(entry)
    for name in (tiny.VAE_FILE, tiny.CONFIG_FILE):
        (path / name).unlink()
    torch.manual_seed(0)
    entry = tiny.save_model(TinyWanVideoVAE38(dim=4, dec_dim=2), path / tiny.VAE_FILE, {"dim": 4, "dec_dim": 2})
    others = json.loads((folder / tiny.CONFIG_FILE).read_text())[:2]  # DiT and text encoder
    (path / tiny.CONFIG_FILE).write_text(json.dumps([*others, entry]))
    return path


@pytest.fixture(scope="module")
def full_folder(tmp_path_factory) -> Path:
    """A smaller tiny model, whose VAE has a network."""
    path = tmp_path_factory.mktemp("full")
    vae = fit_vae(windows(), decoder=(12, 10, 6), depths=(1, 2, 1))
    tiny.write_tiny_wan(path, vae, tiny.dit_arguments(dim=48, num_layers=1), seed=0)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("which", ["folder", "full_folder", "conv_folder"])
def test_pipeline_units_run_all_vaes(which, dtype, request):
    folder = request.getfixturevalue(which)
    tiny.register_model_configs(folder)
    pipe = load(folder, dtype)
    assert type(pipe.vae) is (TinyWanVideoVAE38 if which == "conv_folder" else SmallVideoVAE)
    assert which != "full_folder" or len(pipe.vae.model.decoder.middle) == 2
    pipe.scheduler.set_timesteps(1000, training=True)
    images = [Image.fromarray(frame) for frame in render(0)[:9]]
    shared = {
        "input_video": images,
        "input_image": images[0],
        "height": HEIGHT,
        "width": WIDTH,
        "num_frames": 9,
        "cfg_scale": 1,
        "tiled": False,
        "rand_device": "cpu",
        "seed": 0,
    }
    positive, negative = {"prompt": "Two balls collide.", "positive": True}, {}
    for unit in pipe.units[:8]:  # shape, noise, prompt, (speech), video, (image), (clip), first frame
        shared, positive, negative = pipe.unit_runner(unit, pipe, shared, positive, negative)
    assert shared["input_latents"].shape == shared["noise"].shape == (1, 48, 3, HEIGHT // 16, WIDTH // 16)
    assert torch.equal(shared["first_frame_latents"], shared["input_latents"][:, :, :1])
    assert shared["fuse_vae_embedding_in_latents"]
    assert positive["context"].shape == (1, 512, 64)
    tiles = {"tiled": True, "tile_size": (30, 52), "tile_stride": (15, 26)}
    decoded = pipe.vae.decode(shared["input_latents"], device="cpu", **tiles)
    assert decoded.shape == (1, 3, 9, HEIGHT, WIDTH)
