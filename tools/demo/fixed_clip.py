"""A clip that is always the same, and a small model's flow-matching error on it: weights and code cannot drift apart.

Axes: t frame, h w pixel.
"""

from __future__ import annotations

import numpy as np
import torch
from diffsynth.pipelines.wan_video import WanVideoPipeline, model_fn_wan_video
from einops import rearrange

from tools.demo.scenes.recording import simulate
from tools.demo.scenes.render import SceneRenderer

SCENE, SEED, SIZE, SCENE_FRAMES, FRAMES = "ball_collide", 1, 128, 33, 17
PROMPT = "Balls collide."
SIGMAS = (1.0, 0.5)


def fixed_clip() -> np.ndarray:
    """uint8 (t, h, w, 3): the first 17 frames of a scene of the demo that no model is trained on."""
    recording = simulate(SCENE, 0, seed=SEED, num_frames=SCENE_FRAMES, camera="static")
    renderer = SceneRenderer(recording, SIZE, SIZE)
    return np.stack([renderer.frame(index).rgb for index in range(FRAMES)])


@torch.no_grad()
def errors_on_fixed_clip(pipe: WanVideoPipeline) -> dict[str, float]:
    """By noise level the mean squared error of the velocity as a share of the latents' variance, latent 0 left out.

    Args:
        pipe: the library's own, float32 on the CPU, with DiT, VAE and text encoder.
    """
    video = rearrange(torch.from_numpy(fixed_clip()), "t h w c -> 1 c t h w").float() * (2 / 255) - 1
    latents = pipe.vae.encode(video, device="cpu")
    ids, mask = pipe.tokenizer(PROMPT, return_mask=True, add_special_tokens=True)
    context = pipe.text_encoder(ids, mask)
    context[:, int(mask.sum()) :] = 0  # as the pipeline does
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    errors = {}
    for sigma in SIGMAS:
        noisy = (1 - sigma) * latents + sigma * noise
        noisy[:, :, 0] = latents[:, :, 0]
        velocity = model_fn_wan_video(
            pipe.dit, latents=noisy, timestep=torch.tensor([1000 * sigma]), context=context,
            fuse_vae_embedding_in_latents=True,
        )  # fmt: skip
        wrong = velocity - (noise - latents)
        errors[f"{sigma:g}"] = round(float(wrong[:, :, 1:].square().mean() / latents[:, :, 1:].var()), 4)
    return errors
