"""The module that is trained: a DiT, frozen, with LoRA or wholly trained, and the heads that read it, if there are any.

Axes: b clip, c channel, f latent frame, h w the token grid, p latents along a side of a token, l text token.
"""

from __future__ import annotations

import contextlib
import copy

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from motion_depth.model.backbone import Dit
from motion_depth.model.heads import MotionDepthHeads, example_features
from motion_depth.model.tuning import compute_type
from motion_depth.readouts.losses import flow_matching_loss


def add_noise(latents: Tensor, first: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """(1 - sigma) latents + sigma noise, with latent 0 replaced by the clean first-frame latent.

    Args:
        latents, noise: (b, c, f, p h, p w).
        first: (b, c, 1, p h, p w).
        sigma: (b,) float32.
    """
    sigma = rearrange(sigma, "b -> b 1 1 1 1")
    noisy = ((1 - sigma) * latents.float() + sigma * noise.float()).to(latents.dtype)
    return torch.cat([first.to(noisy.dtype), noisy[:, :, 1:]], dim=2)


class MotionDepthModel(nn.Module):
    """What is trained and wrapped by DDP: the DiT (frozen, with LoRA, or `tuning.tune_fully`) and the heads.

    Args:
        dit: what of it trains is decided already.
        heads: all heads; None where the DiT alone is trained.
        train_dit: whether gradients flow into the DiT (stage 2). Otherwise it runs without a graph and, where no flow
            loss is wanted, only up to the last tap.
        checkpointing: one of `backbone.CHECKPOINTING`; only matters where gradients flow into the DiT.

    Raises:
        ValueError: the heads read a block that the DiT does not have.
    """

    def __init__(self, dit: Dit, heads: MotionDepthHeads | None, train_dit: bool, checkpointing: str = "none"):
        super().__init__()
        self.taps = heads.config.taps if heads else ()
        if max(self.taps, default=0) >= len(dit.blocks):
            raise ValueError(f"heads read block {max(self.taps)}, the DiT has {len(dit.blocks)} blocks")
        self.dit, self.heads = dit, heads
        self.train_dit, self.checkpointing = train_dit, checkpointing

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
            latents, noise: (b, c, f, p h, p w).
            first: (b, c, 1, p h, p w), the clean first-frame latent; never noised.
            context: (b, l, c), zeros behind each prompt.
            sigma: (b,) float32.
            with_flow: whether the flow-matching loss is wanted.
            frames: (b, n) frames that the heads decode; None: all.

        Returns:
            The heads' predictions (`MotionDepthHeads.forward`), and if asked for `flow_error` (b,), the mean squared
            error of the velocity, and `flow_loss`, that times the library's weight of the noise level.
        """
        noisy = add_noise(latents, first, noise, sigma)
        # The DiT runs as at inference, in its own precision; where it is frozen no graph is built.
        graph = contextlib.nullcontext() if self.train_dit else torch.no_grad()
        with graph, torch.autocast(latents.device.type, enabled=False):
            velocity, features = self.dit.forward_with_taps(
                noisy,
                sigma * 1000,
                context,
                self.taps,
                velocity=with_flow,
                checkpointing=self.checkpointing,
            )
        predictions = self.heads(features, frames) if self.heads else {}
        if with_flow:
            predictions["flow_error"] = flow_matching_loss(velocity, latents, noise)
            predictions["flow_loss"] = predictions["flow_error"] * self.dit.flow_weight(sigma)
        return predictions


def count_operations(model: MotionDepthModel, num_frames: int, height: int, width: int) -> dict[str, int]:
    """Floating-point operations of one forward of one clip, counted by torch on tensors without data.

    Returns:
        `dit` (all blocks and the output layer) and `heads`, 0 where there are none.
    """
    dit, layout = _on_meta(model.dit), model.dit.layout
    like = {"device": "meta", "dtype": compute_type(dit)}
    context = torch.zeros(1, layout.text_tokens, dit.text_dim, **like)
    latents = torch.zeros(1, *layout.latent_shape(num_frames, height, width), **like)
    with torch.no_grad(), FlopCounterMode(display=False) as dit_counter:
        dit.forward_with_taps(latents, torch.zeros(1, device="meta"), context)
    if not model.heads:
        return {"dit": dit_counter.get_total_flops(), "heads": 0}
    features = example_features(model.heads.config, layout.token_grid(num_frames, height, width), device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as heads_counter:
        _on_meta(model.heads)(features)
    return {"dit": dit_counter.get_total_flops(), "heads": heads_counter.get_total_flops()}


def _on_meta(module: nn.Module) -> nn.Module:
    """A copy without data: shapes only, in float32."""
    with torch.device("meta"):
        return copy.deepcopy(
            module,
            {id(p): nn.Parameter(torch.empty_like(p, device="meta", dtype=torch.float32)) for p in module.parameters()},
        )
