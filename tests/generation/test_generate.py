"""Generating: the heads only read, and the video is the stock pipeline's, without a text encoder in memory."""

import numpy as np
import pytest
import torch
from diffsynth.core import load_state_dict
from diffsynth.pipelines.wan_video import model_fn_wan_video

from motion_depth.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from motion_depth.checkpoints.models import load_model
from motion_depth.checkpoints.schema import LORA_FILE
from motion_depth.generation.sample import TapRecorder, decode, generate, load_fused, prepared_prompts, read_latents
from motion_depth.model.weights import quiet
from tests.support.tool_runs import FRAMES, SIZE, load

CALL = {"prompt": "Balls collide.", "negative_prompt": "Blur.", "height": SIZE, "width": SIZE, "num_frames": FRAMES,
        "num_inference_steps": 4}  # fmt: skip


def test_recorded_features_are_those_of_our_own_forward(small_dit):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 48, 3, 4, 6, generator=generator)
    context = torch.randn(1, 512, 16, generator=generator)
    library = {"latents": latents, "context": context, "fuse_vae_embedding_in_latents": True}
    with torch.no_grad():
        plain = model_fn_wan_video(small_dit, timestep=torch.tensor([384.0]), **library)
        with TapRecorder(small_dit, (1, 4), [1]) as recorder:
            model_fn_wan_video(small_dit, timestep=torch.tensor([700.0]), **library)
            recorded = model_fn_wan_video(small_dit, timestep=torch.tensor([384.0]), **library)
        model_fn_wan_video(small_dit, timestep=torch.tensor([100.0]), **library)
        _, expected = small_dit.forward_with_taps(latents, torch.tensor([384.0]), context, taps=(1, 4))
    assert torch.equal(plain, recorded)
    assert list(recorder.features) == [1]
    found = recorder.features[1]
    assert found.grid == expected.grid == (3, 2, 3)
    assert torch.equal(found.latents, latents)
    torch.testing.assert_close(found.time_embedding, expected.time_embedding)
    for ours, theirs in zip(found.taps, expected.taps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
def test_the_video_is_the_stock_pipelines_bit_for_bit(lora_checkpoint, first_frame, tiny_backbone, cfg_scale):
    stock = load(tiny_backbone)
    plain = stock(input_image=first_frame, seed=3, cfg_scale=cfg_scale, progress_bar_cmd=list, **CALL)
    with quiet():
        stock.load_lora(stock.dit, str(lora_checkpoint / LORA_FILE))
    expected = stock(input_image=first_frame, seed=3, cfg_scale=cfg_scale, progress_bar_cmd=list, **CALL)
    assert any(np.asarray(a).tobytes() != np.asarray(b).tobytes() for a, b in zip(plain, expected, strict=True))

    own = load(tiny_backbone, "dit", "vae")  # prompts are encoded beforehand: no text encoder is there
    contexts = tiny_backbone.encode_prompts([CALL["prompt"], CALL["negative_prompt"]], torch.float32, "cpu")
    model = load_fused(read_checkpoint(lora_checkpoint), own)
    units, post_units = list(own.units), list(own.post_units)
    with prepared_prompts(own, contexts):
        made = generate(own, model.heads, first_frame, (0, 3), list, cfg_scale, seed=3, **CALL)
    assert torch.equal(made.frames, torch.from_numpy(np.stack([np.asarray(frame) for frame in expected])))
    assert own.units == units
    assert own.post_units == post_units
    assert not any(module._forward_hooks for module in own.dit.modules())
    assert list(made.readings) == [0, 3]
    assert made.readings[0].sigma == 1.0
    assert made.readings[0].predictions["motion"].shape == (FRAMES, 2, SIZE, SIZE)
    assert torch.equal(decode(own, made.latents), made.frames)

    # The heads read the forward with the prompt, whatever guidance does: the first step knows no other.
    ids, mask = stock.tokenizer(CALL["prompt"], return_mask=True, add_special_tokens=True)
    context = stock.text_encoder(ids, mask)[:, : int(mask.sum())]
    noise = own.generate_noise(tuple(made.latents.shape), seed=3)
    noise[:, :, :1] = made.latents[:, :, :1]
    with torch.no_grad():
        _, features = own.dit.forward_with_taps(noise, torch.tensor([1000.0]), context, model.heads.config.taps)
        expected_motion = model.heads(features)["motion"][0]
    torch.testing.assert_close(made.readings[0].predictions["motion"], expected_motion, rtol=1e-3, atol=1e-4)


def test_bfloat16_gives_the_stock_pipelines_video_too(lora_checkpoint, tiny_backbone, first_frame):
    videos = []
    for read in (False, True):
        parts = ("dit", "vae") if read else ("dit", "text_encoder", "vae")
        pipe = tiny_backbone.load_pipeline(parts, torch.bfloat16, "cpu")
        model = load_fused(read_checkpoint(lora_checkpoint), pipe)
        if read:
            contexts = tiny_backbone.encode_prompts([CALL["prompt"], CALL["negative_prompt"]], torch.bfloat16, "cpu")
            with prepared_prompts(pipe, contexts):
                made = generate(pipe, model.heads, first_frame, (0, 3), list, 3.0, seed=1, **CALL)
            videos.append(made.frames)
        else:
            video = pipe(input_image=first_frame, seed=1, cfg_scale=3.0, progress_bar_cmd=list, **CALL)
            videos.append(torch.from_numpy(np.stack([np.asarray(frame) for frame in video])))
    assert torch.equal(*videos)
    context = torch.zeros(1, 512, pipe.dit.text_dim, dtype=torch.bfloat16)
    last = read_latents(model, made.latents, made.latents[:, :, :1], context, 0.02, 0)
    for reading in (*made.readings.values(), last):
        assert all(value.dtype == torch.float32 for value in reading.predictions.values())
        assert reading.maps["motion"].map.isfinite().all()
        assert (reading.maps["depth"].map > 0).all()


def test_fused_lora_reads_as_adapters_do(lora_checkpoint, tiny_backbone):
    found = read_checkpoint(lora_checkpoint)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 48, 3, 4, 4, generator=generator)
    inputs = (latents, latents[:, :, :1], torch.randn(1, 512, tiny_backbone.arguments["dit"]["text_dim"],
              generator=generator), torch.randn(latents.shape, generator=generator), torch.tensor([0.5]))  # fmt: skip
    predictions = []
    for apply in (lambda p: load_fused(found, p), lambda p: load_model(found, p.dit, "cpu")):
        fresh = load(tiny_backbone, "dit")
        predictions.append(apply(fresh)(*inputs))
    for name in ("motion", "log_depth"):
        torch.testing.assert_close(predictions[0][name], predictions[1][name], rtol=1e-3, atol=1e-4)


def test_lora_of_another_dit_is_an_error(lora_checkpoint, tiny_backbone, tmp_path):
    found = read_checkpoint(lora_checkpoint)
    tensors = {path.name: load_state_dict(str(path)) for path in lora_checkpoint.glob("*.safetensors")}
    tensors[LORA_FILE] = {name.replace("blocks.0", "blocks.77"): value for name, value in tensors[LORA_FILE].items()}
    write_checkpoint(tmp_path / "other", tensors, found.config)
    with pytest.raises(ValueError, match=r"blocks\.77.* does not fit the DiT"):
        load_fused(read_checkpoint(tmp_path / "other"), load(tiny_backbone, "dit"))
