"""The DiT forward against the library's, the clean first latent, the flow loss, LoRA, and what is trained."""

import weakref
from contextlib import nullcontext

import pytest
import torch
from diffsynth.diffusion import FlowMatchScheduler
from diffsynth.diffusion.loss import FlowMatchSFTLoss
from diffsynth.pipelines.wan_video import WanVideoPipeline, model_fn_wan_video

from motion_depth.clips.noise import clip_noise
from motion_depth.model.backbone import pad_contexts
from motion_depth.model.lora import add_lora
from motion_depth.model.motion_depth import MotionDepthModel, add_noise
from motion_depth.model.wan import Wan, WanEncoder

TARGETS = ("q", "k", "v", "o", "ffn.0", "ffn.2")


def inputs(b: int = 1, f: int = 3, h: int = 2, w: int = 3, text_dim: int = 16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(b, 48, f, 2 * h, 2 * w, generator=generator)
    return {
        "latents": latents,
        "first": torch.randn(b, 48, 1, 2 * h, 2 * w, generator=generator),
        "context": torch.randn(b, 512, text_dim, generator=generator),
        "noise": torch.randn(latents.shape, generator=generator),
        "sigma": torch.linspace(0.25, 0.75, b),
    }


def test_dit_forward_is_the_librarys(small_dit):
    data = inputs()
    theirs = model_fn_wan_video(
        small_dit,
        latents=data["latents"],
        timestep=torch.tensor([384.0]),
        context=data["context"],
        fuse_vae_embedding_in_latents=True,
    )
    ours, features = small_dit.forward_with_taps(data["latents"], torch.tensor([384.0]), data["context"], taps=(1, 5))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert len(features.taps) == 2


def test_the_timestep_is_rounded_as_in_stock_inference(small_dit):
    """The pipeline casts it to its own type before `model_fn`; 385.7 becomes 386 in bfloat16."""
    small_dit.bfloat16()
    data, timestep = inputs(), torch.tensor([385.7])
    latents, context = data["latents"].bfloat16(), data["context"].bfloat16()
    theirs = model_fn_wan_video(
        small_dit, latents=latents, timestep=timestep.bfloat16(), context=context, fuse_vae_embedding_in_latents=True
    )
    ours, _ = small_dit.forward_with_taps(latents, timestep, context)
    assert torch.equal(ours, theirs)


def test_the_flow_loss_weighs_a_timestep_as_the_librarys_scheduler_does(small_dit):
    scheduler = FlowMatchScheduler("Wan")
    scheduler.set_timesteps(1000, training=True)
    sigma = torch.rand(200, generator=torch.Generator().manual_seed(0))
    theirs = torch.stack([scheduler.training_weight(timestep) for timestep in sigma * 1000])
    assert torch.equal(small_dit.flow_weight(sigma), theirs)


def test_reading_taps_leaves_the_dits_output_bit_identical(small_dit):
    data = inputs()
    arguments = (data["latents"], torch.tensor([384.0]), data["context"])
    plain, _ = small_dit.forward_with_taps(*arguments)
    tapped, features = small_dit.forward_with_taps(*arguments, taps=(0, 2, 5))
    assert torch.equal(plain, tapped)
    velocity, early = small_dit.forward_with_taps(*arguments, taps=(0, 2), velocity=False)
    assert velocity is None
    assert all(torch.equal(one, other) for one, other in zip(early.taps, features.taps, strict=False))


def test_a_batch_is_its_clips_side_by_side(small_dit, small_heads):
    model = MotionDepthModel(small_dit, small_heads, train_dit=False)
    data = inputs(b=3)
    together = model(**data, with_flow=True)
    for clip in range(3):
        alone = model(**{name: value[clip : clip + 1] for name, value in data.items()}, with_flow=True)
        for name, value in alone.items():
            torch.testing.assert_close(value[0], together[name][clip], rtol=1e-4, atol=1e-5)


def test_the_first_latent_is_never_noised(small_dit, small_heads, monkeypatch):
    data = inputs(b=2)
    noisy = add_noise(data["latents"], data["first"], data["noise"], torch.tensor([0.3, 1.0]))
    assert torch.equal(noisy[:, :, :1], data["first"])
    assert torch.equal(noisy[1, :, 1:], data["noise"][1, :, 1:])
    seen = []
    patchify = type(small_dit).patchify
    monkeypatch.setattr(
        type(small_dit), "patchify", lambda self, x, *a, **k: seen.append(x) or patchify(self, x, *a, **k)
    )
    MotionDepthModel(small_dit, small_heads, train_dit=False)(**data, with_flow=True)
    assert torch.equal(seen[0][:, :, :1], data["first"])


@pytest.mark.parametrize("timestep_id", [0, 300, 999])
def test_flow_loss_is_the_librarys(small_dit, small_heads, monkeypatch, timestep_id):
    """On timesteps that bfloat16 holds exactly, which is what the library's loss rounds to."""
    pipe = WanVideoPipeline(device="cpu", torch_dtype=torch.float32)
    pipe.dit = small_dit
    pipe.scheduler.set_timesteps(1000, training=True)
    exact = pipe.scheduler.timesteps[timestep_id].bfloat16().float()
    pipe.scheduler.timesteps[timestep_id] = exact
    pipe.scheduler.sigmas[timestep_id] = exact / 1000
    data = inputs()
    monkeypatch.setattr(torch, "randint", lambda *args, **kwargs: torch.tensor([timestep_id]))
    monkeypatch.setattr(torch, "randn_like", lambda value: data["noise"].clone())
    theirs = FlowMatchSFTLoss(
        pipe,
        input_latents=data["latents"],
        first_frame_latents=data["first"],
        context=data["context"],
        fuse_vae_embedding_in_latents=True,
    )
    model = MotionDepthModel(small_dit, small_heads, train_dit=False)
    grid = torch.stack([pipe.scheduler.timesteps, pipe.scheduler.linear_timesteps_weights])
    small_dit.__dict__["_grid"] = grid  # with that one step made exact
    data["sigma"] = exact[None] / 1000
    torch.testing.assert_close(model(**data, with_flow=True)["flow_loss"][0], theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["every", "alternate"])
def test_checkpointing_changes_memory_not_numbers(small_dit, small_heads, policy):
    add_lora(small_dit, 4, TARGETS)
    with torch.no_grad():
        for name, parameter in small_dit.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.1)
    data = inputs()

    def gradients(checkpointing: str) -> dict[str, torch.Tensor]:
        model = MotionDepthModel(small_dit, small_heads, train_dit=True, checkpointing=checkpointing)
        model.zero_grad()
        out = model(**data, with_flow=True)
        (out["flow_loss"].sum() + out["motion"].square().mean() + out["log_depth"].square().mean()).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}

    plain, recomputed = gradients("none"), gradients(policy)
    for name, value in plain.items():
        assert torch.equal(value, recomputed[name]), name


@pytest.mark.parametrize("stage", [1, 2])
def test_what_is_trained_moves_and_what_is_frozen_does_not(small_dit, small_heads, stage):
    if stage == 2:
        add_lora(small_dit, 4, TARGETS)
    model = MotionDepthModel(small_dit, small_heads, train_dit=stage == 2)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-3, weight_decay=0.0)
    data = inputs()
    for step in range(4):
        data["noise"] = clip_noise(tuple(data["noise"].shape), 0, step)
        out = model(**data, with_flow=stage == 2)
        loss = (out["motion"] - 1).square().mean() + out["log_depth"].square().mean()
        loss = loss + (out["background_logit"] - 1).square().mean() + (out["flow_loss"].sum() if stage == 2 else 0)
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in trainable)
        optimizer.step()
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter.detach(), before[name])
        assert moved is (name.startswith("heads.") or ".lora_" in name), name
    assert model.dit.blocks[0].ffn[0].weight.grad is None if stage == 1 else True


def test_stage_1_builds_no_graph_in_the_dit(small_dit, small_heads):
    small_dit.requires_grad_(True)
    model = MotionDepthModel(small_dit, small_heads, train_dit=False)
    out = model(**inputs())
    (out["motion"] + 1).square().sum().backward()
    assert all(parameter.grad is None for parameter in small_dit.parameters())


def test_contexts_are_padded_as_the_pipeline_does(tiny_wan):
    pipe = Wan.in_folder(tiny_wan).load_pipeline(("dit", "text_encoder", "vae"), torch.float32, "cpu")
    from diffsynth.pipelines.wan_video import WanVideoUnit_PromptEmbedder

    encoder = WanEncoder(pipe)
    prompts = ["A ball rolls.", "A longer sentence about two dominoes that fall over one after the other."]
    padded = pad_contexts([encoder.prompt(prompt) for prompt in prompts])
    for row, prompt in zip(padded, prompts, strict=True):
        with torch.no_grad():
            theirs = WanVideoUnit_PromptEmbedder().encode_prompt(pipe, prompt)[0]
        assert torch.equal(row, theirs[: len(row)])
        assert not theirs[len(row) :].any()
    assert len(encoder.prompt(prompts[0])) < len(encoder.prompt(prompts[1])) < 512


def test_prompts_encoded_beforehand_are_the_same_and_leave_no_text_encoder(tiny_wan, monkeypatch):
    backbone, loaded, original = Wan.in_folder(tiny_wan), [], Wan.load_pipeline

    def load(self, parts, *arguments):
        pipe = original(self, parts, *arguments)
        loaded.append((parts, weakref.ref(pipe.text_encoder)))
        return pipe

    monkeypatch.setattr(Wan, "load_pipeline", load)
    contexts = backbone.encode_prompts(["A ball rolls.", "A duck.", "A ball rolls."], torch.float32, "cpu")
    ((parts, text_encoder),) = loaded
    assert parts == ("text_encoder",)
    assert text_encoder() is None
    monkeypatch.undo()
    both = backbone.load_encoder(("text_encoder", "vae"), torch.float32, "cpu")
    assert list(contexts) == ["A ball rolls.", "A duck."]
    assert all(torch.equal(context, both.prompt(prompt)) for prompt, context in contexts.items())
    without = backbone.load_encoder(("vae",), torch.float32, "cpu", contexts)
    assert torch.equal(without.prompt("A duck."), both.prompt("A duck."))


def test_encoded_frames_are_what_the_pipelines_units_encode(tiny_wan):
    from PIL import Image

    pipe = Wan.in_folder(tiny_wan).load_pipeline(("dit", "text_encoder", "vae"), torch.float32, "cpu")
    frames = torch.randint(0, 256, (9, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    latents, first = WanEncoder(pipe).frames(frames[None])
    video = pipe.preprocess_video([Image.fromarray(frame.numpy()) for frame in frames])
    with nullcontext() if torch.is_inference_mode_enabled() else torch.no_grad():
        theirs = pipe.vae.encode(video, device="cpu")
        their_first = pipe.vae.encode([video[0, :, :1]], device="cpu")
    assert torch.equal(latents, theirs)
    assert torch.equal(first, their_first)
    assert latents.shape == (1, 48, 3, 4, 6)


def test_windows_are_encoded_as_each_alone_or_from_what_a_vae_shares_between_them(tiny_wan, monkeypatch):
    encoder = WanEncoder(Wan.in_folder(tiny_wan).load_pipeline(("vae",), torch.float32, "cpu"))
    frames = torch.randint(0, 256, (14, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(encoder.pipe.vae.model, "encode_windows", None, raising=False)
    for start, (latents, first) in zip((0, 5), encoder.windows(frames, [0, 5], 9), strict=True):
        alone = encoder.frames(frames[None, start : start + 9])
        assert torch.equal(latents, alone[0])
        assert torch.equal(first, alone[1])

    def shared(video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        count = video.shape[2]
        return tuple(torch.arange(n).reshape(1, n, 1, 1) + at for n, at in ((count, 0.0), (count - 4, 100.0)))

    monkeypatch.setattr(encoder.pipe.vae.model, "encode_windows", shared)
    for start, (latents, first) in zip((0, 1, 2, 5), encoder.windows(frames, [0, 1, 2, 5], 9), strict=True):
        assert latents.flatten().tolist() == [start, 100 + start, 104 + start]
        assert latents.shape == (1, 1, 3, 1, 1)
        assert first.flatten().tolist() == [start]
