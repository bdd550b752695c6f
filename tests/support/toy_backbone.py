"""A second backbone: a few linear layers, with other strides, channels and frames per latent than WAN's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from einops import rearrange, repeat
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from motion_depth.files.digests import weights_digest
from motion_depth.latents import LatentLayout
from motion_depth.model.backbone import Backbone, Dit, DitFeatures, Encoder

TOY = LatentLayout(stride=8, patch=2, frames_per_latent=2, channels=6, text_tokens=12)
DIM, TEXT_DIM, BLOCKS, TIMESTEPS = 24, 5, 6, 1000
FILE = "toy.safetensors"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = nn.Linear(DIM, DIM)

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        return x + torch.tanh(self.mlp(x + shift))


class ToyDit(Dit):
    layout, dim, text_dim = TOY, DIM, TEXT_DIM

    def __init__(self):
        super().__init__()
        self.patches = nn.Linear(TOY.channels * TOY.patch**2, DIM)
        self.time, self.text = nn.Linear(1, DIM), nn.Linear(TEXT_DIM, DIM)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.head = nn.Linear(DIM, TOY.channels * TOY.patch**2)

    def forward_with_taps(
        self,
        latents: Tensor,
        timestep: Tensor,
        context: Tensor,
        taps: Sequence[int] = (),
        velocity: bool = True,
        checkpointing: str = "none",
    ) -> tuple[Tensor | None, DitFeatures]:
        f, h, w = latents.shape[2], latents.shape[3] // TOY.patch, latents.shape[4] // TOY.patch
        patches = rearrange(latents, "b c f (h p) (w q) -> b (f h w) (c p q)", p=TOY.patch, q=TOY.patch)
        embedding = repeat(self.time(timestep[:, None].to(latents) / TIMESTEPS), "b c -> b f c", f=f)
        shift = repeat(embedding, "b f c -> b (f hw) c", hw=h * w) + self.text(context).mean(dim=1, keepdim=True)
        x, outputs = self.run_blocks(self.patches(patches), (shift,), taps, velocity, checkpointing)
        features = DitFeatures(outputs, embedding, latents, (f, h, w))
        if not velocity:
            return None, features
        out = rearrange(self.head(x), "b (f h w) (c p q) -> b c f (h p) (w q)", f=f, h=h, w=w, p=TOY.patch, q=TOY.patch)
        return out, features

    def flow_weight(self, sigma: Tensor) -> Tensor:
        return torch.ones_like(sigma)


class ToyEncoder(Encoder):
    """Means of blocks of pixels and frames, and the letters of a prompt."""

    def __init__(self, dtype: torch.dtype, device: torch.device | str):
        self.dtype, self.device = dtype, device

    def frames(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        video = rearrange(frames.to(self.device).float() / 255, "b t (h p) (w q) c -> b t h w (p q) c", p=8, q=8)
        values = torch.cat([video.mean(dim=-2), video.amax(dim=-2)], dim=-1)  # six channels for each frame
        first = values[:, :1]
        rest = rearrange(values[:, 1:], "b (f k) h w c -> b f k h w c", k=TOY.frames_per_latent).mean(dim=2)
        latents = rearrange(torch.cat([first, rest], dim=1), "b f h w c -> b c f h w").to(self.dtype)
        return latents, latents[:, :, :1].clone()

    def prompt(self, prompt: str) -> Tensor:
        codes = torch.tensor([ord(letter) % 7 for letter in prompt[: TOY.text_tokens]] or [0])
        return repeat(codes, "l -> l c", c=TEXT_DIM).to(self.device, self.dtype)


class ToyBackbone(Backbone):
    layout, dim, num_blocks = TOY, DIM, BLOCKS

    def __init__(self, folder: Path):
        self.file = folder / FILE

    @staticmethod
    def write(folder: Path) -> None:
        torch.manual_seed(0)
        save_file(ToyDit().state_dict(), folder / FILE)

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        return (folder / FILE).is_file()

    @classmethod
    def find(
        cls, model_base_path: Path | None, model_paths: str | None, model_ids: str | None, tokenizer: Path | None
    ) -> ToyBackbone:
        return cls(model_base_path)

    def identity(self) -> dict[str, list[str]]:
        return {part: [weights_digest(self.file)] for part in ("dit", "text_encoder", "vae", "tokenizer")}

    def count_numbers(self, part: str) -> int:
        return sum(value.numel() for value in load_file(self.file).values()) if part == "dit" else 0

    def linear_layers(self) -> list[str]:
        return [name for name, module in ToyDit().named_modules() if isinstance(module, nn.Linear)]

    def empty_dit(self, dtype: torch.dtype) -> ToyDit:
        return ToyDit().to(dtype).requires_grad_(False)

    def load_dit(self, dtype: torch.dtype, device: torch.device | str) -> ToyDit:
        dit = self.empty_dit(dtype)
        dit.load_state_dict(load_file(self.file))
        return dit.to(device).eval()

    def load_encoder(
        self,
        parts: Sequence[str],
        dtype: torch.dtype,
        device: torch.device | str,
        contexts: Mapping[str, Tensor] | None = None,
    ) -> ToyEncoder:
        return ToyEncoder(dtype, device)
