"""WAN2.2-TI2V through DiffSynth-Studio: loading, encoding, the DiT forward, and the module that is trained.

The only file that imports DiffSynth's pipeline.

Axes: b clip, c channel, f latent frame, t video frame (4 (f - 1) + 1), h w the token grid (stride 32), l text token.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Mapping, Sequence

import torch
from accelerate.utils.memory import clear_device_cache
from diffsynth.core import ModelConfig
from diffsynth.diffusion import FlowMatchScheduler
from diffsynth.models.wan_video_dit import WanModel, sinusoidal_embedding_1d
from diffsynth.pipelines.wan_video import WanVideoPipeline
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from motion_depth.latents import WAN22
from motion_depth.model.backbone import DitFeatures
from motion_depth.model.heads import MotionDepthHeads, example_features
from motion_depth.model.rope import rotation_table, use_float32
from motion_depth.model.weights import WanFiles, quiet, recognised_by_shapes
from motion_depth.readouts.losses import flow_matching_loss

CHECKPOINTING = ("every", "alternate", "none")


def load_pipeline(
    files: WanFiles, parts: Sequence[str], torch_dtype: torch.dtype, device: torch.device | str
) -> WanVideoPipeline:
    """Loads some parts ("dit", "text_encoder", "vae") into the library's pipeline, frozen and in evaluation mode."""
    tokenizer = ModelConfig(path=str(files.tokenizer)) if "text_encoder" in parts else None
    if torch.device(device).type == "cpu":
        device = "cpu"  # with several processes accelerate calls it cpu:0, which safetensors does not know
    with quiet(), recognised_by_shapes():
        pipe = WanVideoPipeline.from_pretrained(
            torch_dtype=torch_dtype,
            device=device,
            model_configs=files.configs(parts),
            tokenizer_config=tokenizer,
            redirect_common_files=False,
        )
    pipe.freeze_except([])
    pipe.scheduler.set_timesteps(1000, training=True)
    return pipe


class ClipEncoder:
    """VAE and text encoder: frames and prompts to latents and contexts, as the pipeline's own units do it.

    A prompt is encoded once and kept. Results are on the pipeline's device.

    Args:
        pipe: with the VAE, or the text encoder, or both.
        contexts: of prompts that are encoded already (`encode_prompts`); these need no text encoder.
    """

    def __init__(self, pipe: WanVideoPipeline, contexts: Mapping[str, Tensor] | None = None):
        self.pipe = pipe
        self._contexts = dict(contexts or {})
        if hasattr(pipe.vae, "scale"):  # the library leaves it on the CPU, and copies it for every encoding
            pipe.vae.scale = [each.to(pipe.device) for each in pipe.vae.scale]

    @torch.no_grad()
    def frames(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (b, t, h, w, 3) to latents (b, 48, f, h/16, w/16) and first-frame latents (b, 48, 1, h/16, w/16)."""
        pipe = self.pipe
        frames = frames.to(pipe.device, non_blocking=True).to(pipe.torch_dtype)
        video = rearrange(frames, "b t h w c -> b c t h w") * (2 / 255) - 1
        with quiet():
            # The library's `encode` does this to each clip, by way of the CPU, for which a GPU's host waits.
            latents, first = (
                torch.cat([pipe.vae.single_encode(clip, pipe.device) for clip in clips.split(1)])
                for clips in (video, video[:, :, :1])
            )
        return latents.to(pipe.torch_dtype), first.to(pipe.torch_dtype)

    @torch.no_grad()
    def prompt(self, prompt: str) -> Tensor:
        """One prompt to its context (l, c), trimmed to its own tokens."""
        if prompt not in self._contexts:
            pipe = self.pipe
            ids, mask = pipe.tokenizer(prompt, return_mask=True, add_special_tokens=True)
            context = pipe.text_encoder(ids.to(pipe.device), mask.to(pipe.device))
            self._contexts[prompt] = context[0, : int(mask.sum())].to(pipe.torch_dtype)
        return self._contexts[prompt].to(self.pipe.device, non_blocking=True)


def encode_prompts(
    files: WanFiles, prompts: Iterable[str], dtype: torch.dtype, device: torch.device | str
) -> dict[str, Tensor]:
    """Loads the text encoder, encodes prompts, each once, and drops it: nothing of it stays in memory.

    Returns:
        By prompt its context (l, c) on the CPU, trimmed to its own tokens, as `ClipEncoder.prompt` makes it.
    """
    encoder = ClipEncoder(load_pipeline(files, ("text_encoder",), dtype, device))
    contexts = {prompt: encoder.prompt(prompt).cpu() for prompt in dict.fromkeys(prompts)}
    del encoder
    clear_device_cache(garbage_collection=True)
    return contexts


def pad_contexts(contexts: Sequence[Tensor], device: torch.device | None = None) -> Tensor:
    """Trimmed contexts (l_i, c) to one (b, l, c), zeros behind each, which is what the pipeline feeds.

    Args:
        device: where to; None: where they are.
    """
    padded = contexts[0].new_zeros(len(contexts), WAN22.text_tokens, contexts[0].shape[-1], device=device)
    for row, context in zip(padded, contexts, strict=True):
        row[: len(context)].copy_(context, non_blocking=True)
    return padded


def dit_forward(
    dit: WanModel,
    latents: Tensor,
    timestep: Tensor,
    context: Tensor,
    taps: Sequence[int] = (),
    velocity: bool = True,
    checkpointing: str = "none",
) -> tuple[Tensor | None, DitFeatures]:
    """The library's `model_fn_wan_video` for TI2V, with a timestep per clip and with the blocks' outputs.

    Latent 0 is taken as the clean first frame: its tokens get timestep 0. The timestep embedding is computed per latent
    frame and then spread over its tokens; the library computes the same numbers once per token. As in its inference and
    training the timestep is rounded to the latents' type first, which of bfloat16's is up to 2 of 1000.

    Args:
        latents: (b, 48, f, 2h, 2w), latent 0 clean.
        timestep: (b,) float32 in [0, 1000].
        context: (b, l, c).
        taps: blocks whose outputs are wanted.
        velocity: whether to run the blocks after the last tap and the output layer.
        checkpointing: blocks recomputed in the backward pass: "every", "alternate" or "none".

    Returns:
        The velocity (b, 48, f, 2h, 2w), or None, and the features for the heads.
    """
    b, _, f, height, width = latents.shape
    h, w = height // 2, width // 2
    timestep = timestep.to(latents.dtype)
    first_timestep = torch.zeros_like(timestep)[:, None]
    frame_timestep = torch.cat([first_timestep, repeat(timestep, "b -> b rest", rest=f - 1)], dim=1)
    embedding = sinusoidal_embedding_1d(dit.freq_dim, rearrange(frame_timestep, "b f -> (b f)"))
    embedding = rearrange(dit.time_embedding(embedding), "(b f) c -> b f c", b=b)
    modulation = rearrange(dit.time_projection(embedding), "b f (six c) -> b f six c", six=6)
    modulation = repeat(modulation, "b f six c -> b (f hw) six c", hw=h * w)
    context = dit.text_embedding(context)
    x = rearrange(dit.patchify(latents), "b c f h w -> b (f h w) c").contiguous()
    rope = rotation_table(dit, (f, h, w), x.device)

    outputs = {}
    for index, block in enumerate(dit.blocks if velocity else dit.blocks[: max(taps) + 1]):
        recompute = checkpointing == "every" or (checkpointing == "alternate" and index % 2 == 0)
        if recompute and torch.is_grad_enabled():
            # No block draws random numbers, and keeping the generator's state would make a GPU wait at each of them.
            x = checkpoint(block, x, context, modulation, rope, use_reentrant=False, preserve_rng_state=False)
        else:
            x = block(x, context, modulation, rope)
        if index in taps:
            outputs[index] = x
    features = DitFeatures([outputs[tap] for tap in taps], embedding, latents, (f, h, w))
    if not velocity:
        return None, features
    x = dit.head(x, repeat(embedding, "b f c -> b (f hw) c", hw=h * w))
    return dit.unpatchify(x, (f, h, w)), features


def add_noise(latents: Tensor, first: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """(1 - sigma) latents + sigma noise, with latent 0 replaced by the clean first-frame latent.

    Args:
        latents, noise: (b, 48, f, 2h, 2w).
        first: (b, 48, 1, 2h, 2w).
        sigma: (b,) float32.
    """
    sigma = rearrange(sigma, "b -> b 1 1 1 1")
    noisy = ((1 - sigma) * latents.float() + sigma * noise.float()).to(latents.dtype)
    return torch.cat([first.to(noisy.dtype), noisy[:, :, 1:]], dim=2)


class MotionDepthModel(nn.Module):
    """What is trained and wrapped by DDP: the DiT (frozen, or with LoRA) and the two heads.

    Args:
        dit: the library's DiT; its own weights are frozen.
        heads: both heads.
        train_dit: whether gradients flow into the DiT (stage 2). Otherwise it runs without a graph and only up to the
            last tap.
        checkpointing: see `dit_forward`; only matters where gradients flow.
    """

    def __init__(self, dit: WanModel, heads: MotionDepthHeads, train_dit: bool, checkpointing: str = "none"):
        super().__init__()
        if max(heads.config.taps) >= len(dit.blocks):
            raise ValueError(f"heads read block {max(heads.config.taps)}, the DiT has {len(dit.blocks)} blocks")
        self.dit, self.heads = dit, heads
        self.train_dit, self.checkpointing = train_dit, checkpointing
        self.scheduler = FlowMatchScheduler("Wan")
        self.scheduler.set_timesteps(1000, training=True)
        self._grid: Tensor | None = None  # the scheduler's timesteps and weights, on the device
        use_float32(dit)

    def flow_weight(self, sigma: Tensor) -> Tensor:
        """(b,) to (b,): the scheduler's `training_weight` of the nearest timestep, without leaving the device."""
        if self._grid is None or self._grid.device != sigma.device:
            grid = torch.stack([self.scheduler.timesteps, self.scheduler.linear_timesteps_weights])
            self._grid = grid.to(sigma.device)
        timesteps, weights = self._grid
        return weights[(timesteps - sigma[:, None] * 1000).abs().argmin(dim=1)]

    def forward(
        self,
        latents: Tensor,
        first: Tensor,
        context: Tensor,
        noise: Tensor,
        sigma: Tensor,
        with_flow: bool = False,
        frames: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """One noised forward.

        Args:
            latents, noise: (b, 48, f, 2h, 2w).
            first: (b, 48, 1, 2h, 2w), the clean first-frame latent; never noised.
            context: (b, l, c).
            sigma: (b,) float32.
            with_flow: whether the flow-matching loss is wanted.
            frames: (b, n) frames that the heads decode; None: all.

        Returns:
            The heads' predictions (`MotionDepthHeads.forward`), and `flow_loss` (b,) if asked for.
        """
        noisy = add_noise(latents, first, noise, sigma)
        # The DiT runs as at inference, in its own precision; without LoRA no graph is built.
        graph = contextlib.nullcontext() if self.train_dit else torch.no_grad()
        with graph, torch.autocast(latents.device.type, enabled=False):
            velocity, features = dit_forward(
                self.dit,
                noisy,
                sigma * 1000,
                context,
                self.heads.config.taps,
                velocity=with_flow,
                checkpointing=self.checkpointing,
            )
        predictions = self.heads(features, frames)
        if with_flow:
            predictions["flow_loss"] = flow_matching_loss(velocity, latents, noise, self.flow_weight(sigma))
        return predictions


def count_operations(model: MotionDepthModel, grid: tuple[int, int, int]) -> dict[str, int]:
    """Floating-point operations of one forward of one clip, counted by torch on tensors without data.

    Args:
        grid: (f, h, w) of the tokens.

    Returns:
        `dit` (all blocks and the output layer) and `heads`.
    """
    f, h, w = grid
    dit = _on_meta(model.dit)
    context = torch.zeros(1, WAN22.text_tokens, dit.text_embedding[0].in_features, device="meta")
    latents = torch.zeros(1, dit.in_dim, f, 2 * h, 2 * w, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as dit_counter:
        dit_forward(dit, latents, torch.zeros(1, device="meta"), context)
    with torch.no_grad(), FlopCounterMode(display=False) as heads_counter:
        _on_meta(model.heads)(example_features(model.heads.config, grid, device="meta"))
    return {"dit": dit_counter.get_total_flops(), "heads": heads_counter.get_total_flops()}


def _on_meta(module: nn.Module) -> nn.Module:
    """A copy without data: shapes only, in float32."""
    with torch.device("meta"):
        return copy.deepcopy(
            module,
            {id(p): nn.Parameter(torch.empty_like(p, device="meta", dtype=torch.float32)) for p in module.parameters()},
        )
