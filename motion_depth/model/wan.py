"""WAN2.2-TI2V through DiffSynth-Studio: its files, its encoders, and its DiT's forward with taps.

Axes: b clip, c channel, f latent frame, t video frame (4 (f - 1) + 1), h w the token grid (stride 32), l text token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from diffsynth.core import ModelConfig
from diffsynth.diffusion import FlowMatchScheduler
from diffsynth.models.wan_video_dit import WanModel, sinusoidal_embedding_1d
from diffsynth.pipelines.wan_video import WanVideoPipeline
from einops import rearrange, repeat
from torch import Tensor

from motion_depth.latents import WAN22
from motion_depth.model.backbone import Backbone, Dit, DitFeatures, Encoder, new_tensors_in
from motion_depth.model.rope import Float32Attention, rotation_table
from motion_depth.model.text_attention import ShortTextAttention, shorten
from motion_depth.model.weights import WanFiles, check_weights, quiet, read_shapes, recognised_by_shapes


class WanDit(WanModel, Dit):
    """The library's DiT, unchanged for the library's own calls, with `forward_with_taps`.

    Attributes:
        rotation: type of the rotary table; complex128 makes the forward the library's to the last bit.
    """

    layout = WAN22
    rotation = torch.complex64

    @staticmethod
    def of(dit: WanModel) -> WanDit:
        """What the library has loaded, made one in place: only classes change, no weight and no name."""
        dit.__class__ = WanDit
        for block in dit.blocks:
            block.self_attn.__class__ = Float32Attention
            block.cross_attn.__class__ = ShortTextAttention
        return dit

    def __init__(self, **arguments: object):
        super().__init__(**arguments)
        WanDit.of(self)

    @property
    def text_dim(self) -> int:
        return self.text_embedding[0].in_features

    def forward_with_taps(
        self,
        latents: Tensor,
        timestep: Tensor,
        context: Tensor,
        taps: Sequence[int] = (),
        velocity: bool = True,
        checkpointing: str = "none",
    ) -> tuple[Tensor | None, DitFeatures]:
        """The library's `model_fn_wan_video` for TI2V, with a timestep per clip and with the blocks' outputs.

        The tokens of latent 0 get timestep 0. The timestep embedding is computed per latent frame and then spread over
        its tokens; the library computes the same numbers once per token. As in its inference and training the timestep
        is rounded to the latents' type first, which between 512 and 1000 moves a bfloat16 one by up to 2. A context
        counts as padded with zeros to the 512 tokens that the pipeline feeds (text_attention.py).
        """
        b, _, f, height, width = latents.shape
        h, w = height // WAN22.patch, width // WAN22.patch
        timestep = timestep.to(latents.dtype)
        first_timestep = torch.zeros_like(timestep)[:, None]
        frame_timestep = torch.cat([first_timestep, repeat(timestep, "b -> b rest", rest=f - 1)], dim=1)
        embedding = sinusoidal_embedding_1d(self.freq_dim, rearrange(frame_timestep, "b f -> (b f)"))
        embedding = rearrange(self.time_embedding(embedding), "(b f) c -> b f c", b=b)
        modulation = rearrange(self.time_projection(embedding), "b f (six c) -> b f six c", six=6)
        modulation = repeat(modulation, "b f six c -> b (f hw) six c", hw=h * w)
        context = self.text_embedding(shorten(context))
        x = rearrange(self.patchify(latents), "b c f h w -> b (f h w) c").contiguous()
        rope = rotation_table(self, (f, h, w), x.device, self.rotation)
        x, outputs = self.run_blocks(x, (context, modulation, rope), taps, velocity, checkpointing)
        features = DitFeatures(outputs, embedding, latents, (f, h, w))
        if not velocity:
            return None, features
        x = self.head(x, repeat(embedding, "b f c -> b (f hw) c", hw=h * w))
        return self.unpatchify(x, (f, h, w)), features

    def flow_weight(self, sigma: Tensor) -> Tensor:
        """The library's `training_weight` of the nearest timestep of its schedule, without leaving the device."""
        grid = self.__dict__.get("_grid")
        if grid is None or grid.device != sigma.device:
            scheduler = FlowMatchScheduler("Wan")
            scheduler.set_timesteps(1000, training=True)
            grid = torch.stack([scheduler.timesteps, scheduler.linear_timesteps_weights]).to(sigma.device)
            self.__dict__["_grid"] = grid  # no buffer: it is not the model's
        timesteps, weights = grid
        return weights[(timesteps - sigma[:, None] * 1000).abs().argmin(dim=1)]


class WanEncoder(Encoder):
    """VAE and text encoder of a pipeline, which has one or both: as the pipeline's own units encode.

    A prompt is encoded once and kept. Results are on the pipeline's device.
    """

    def __init__(self, pipe: WanVideoPipeline, contexts: Mapping[str, Tensor] | None = None):
        self.pipe = pipe
        self._contexts = dict(contexts or {})
        if hasattr(pipe.vae, "scale"):  # the library leaves it on the CPU, and copies it for every encoding
            pipe.vae.scale = [each.to(pipe.device) for each in pipe.vae.scale]

    @torch.no_grad()
    def frames(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (b, t, h, w, 3) to latents (b, 48, f, h/16, w/16) and first-frame latents (b, 48, 1, h/16, w/16)."""
        pipe, video = self.pipe, self._video(frames)
        with quiet():
            # The library's `encode` does this to each clip, by way of the CPU, for which a GPU's host waits.
            latents, first = (
                torch.cat([pipe.vae.single_encode(clip, pipe.device) for clip in clips.split(1)])
                for clips in (video, video[:, :, :1])
            )
        return latents.to(pipe.torch_dtype), first.to(pipe.torch_dtype)

    @torch.no_grad()
    def windows(self, frames: Tensor, starts: Sequence[int], length: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Encoder.windows`. A VAE whose latents see their own frames alone (tiny/) looks at each frame once."""
        shared = getattr(self.pipe.vae.model, "encode_windows", None)
        if shared is None or len(starts) * length < 2 * len(frames):
            yield from super().windows(frames, starts, length)
            return
        first, rest = (part.to(self.pipe.torch_dtype) for part in shared(self._video(frames[None])))
        for start in starts:
            of_first = first[None, :, start : start + 1]
            yield torch.cat([of_first, rest[None, :, start : start + length - 1 : 4]], dim=2), of_first

    def _video(self, frames: Tensor) -> Tensor:
        frames = frames.to(self.pipe.device, non_blocking=True).to(self.pipe.torch_dtype)
        return rearrange(frames, "b t h w c -> b c t h w") * (2 / 255) - 1

    @torch.no_grad()
    def prompt(self, prompt: str) -> Tensor:
        """One prompt to its context (l, c), trimmed to its own tokens."""
        if prompt not in self._contexts:
            pipe = self.pipe
            ids, mask = pipe.tokenizer(prompt, return_mask=True, add_special_tokens=True)
            context = pipe.text_encoder(ids.to(pipe.device), mask.to(pipe.device))
            self._contexts[prompt] = context[0, : int(mask.sum())].to(pipe.torch_dtype)
        return self._contexts[prompt].to(self.pipe.device, non_blocking=True)


class Wan(Backbone):
    """WAN2.2-TI2V-5B's release, or a smaller model of its kind (tiny/).

    Attributes:
        arguments: the library's, of each part.
    """

    layout = WAN22

    def __init__(self, files: WanFiles):
        """Raises ValueError: a file cannot be read, is another model, or the DiT is not of WAN2.2-TI2V's kind."""
        self.files, self.arguments = files, check_weights(files)
        self.dim, self.num_blocks = self.arguments["dit"]["dim"], self.arguments["dit"]["num_layers"]

    @classmethod
    def in_folder(cls, folder: Path, tokenizer: Path | None = None) -> Wan:
        """What lies in a folder, as `find` says."""
        return cls(WanFiles.in_folder(folder, tokenizer))

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return any(folder.glob("diffusion_pytorch_model*.safetensors"))

    @classmethod
    def find(
        cls, model_base_path: Path | None, model_paths: str | None, model_ids: str | None, tokenizer: Path | None
    ) -> Wan:
        return cls(WanFiles.find(model_base_path, model_paths, model_ids, tokenizer))

    def identity(self) -> dict[str, list[str]]:
        return self.files.identity()

    def count_numbers(self, part: str) -> int:
        return sum(shape.numel() for shape in read_shapes(getattr(self.files, part)).values())

    def linear_layers(self) -> list[str]:
        shapes = read_shapes(self.files.dit).items()
        return [name.removesuffix(".weight") for name, value in shapes if name.endswith(".weight") and value.dim() == 2]

    def empty_dit(self, dtype: torch.dtype) -> WanDit:
        with new_tensors_in(dtype):
            return WanDit(**self.arguments["dit"]).requires_grad_(False)

    def load_dit(self, dtype: torch.dtype, device: torch.device | str) -> WanDit:
        return self.load_pipeline(("dit",), dtype, device).dit

    def load_encoder(
        self,
        parts: Sequence[str],
        dtype: torch.dtype,
        device: torch.device | str,
        contexts: Mapping[str, Tensor] | None = None,
    ) -> WanEncoder:
        return WanEncoder(self.load_pipeline(parts, dtype, device), contexts)

    def load_pipeline(self, parts: Sequence[str], dtype: torch.dtype, device: torch.device | str) -> WanVideoPipeline:
        """Some parts in the library's pipeline, frozen and in evaluation mode."""
        tokenizer = ModelConfig(path=str(self.files.tokenizer)) if "text_encoder" in parts else None
        if torch.device(device).type == "cpu":
            device = "cpu"  # with several processes accelerate calls it cpu:0, which safetensors does not know
        with quiet(), recognised_by_shapes():
            pipe = WanVideoPipeline.from_pretrained(
                torch_dtype=dtype,
                device=device,
                model_configs=self.files.configs(parts),
                tokenizer_config=tokenizer,
                redirect_common_files=False,
            )
        pipe.freeze_except([])
        pipe.scheduler.set_timesteps(1000, training=True)
        if "dit" in parts:
            WanDit.of(pipe.dit)
        return pipe
