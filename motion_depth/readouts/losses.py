"""The losses of all heads, and of the DiT.

Every loss comes back per clip, (b,), so that batches equal gradient accumulation and every value can be logged by the
clip's own noise level. Terms are divided by scales of the training set, so that each quantity's loss, the sum of its
terms, is about 1 for its first prediction (no motion, median depth) whatever the scenes are like.
"""

from __future__ import annotations

from collections.abc import Mapping

from einops import reduce
from torch import Tensor

from motion_depth.readouts import READOUTS
from motion_depth.readouts.readout import Predictions
from motion_depth.readouts.targets import Targets


def head_losses(
    predictions: Predictions, targets: Targets, scales: Mapping[str, float], balanced: bool = True
) -> dict[str, Tensor]:
    """All losses of all heads as a named dict of (b,) tensors.

    Args:
        scales: see `Statistics.scales`.
        balanced: see `Readout.losses`.

    Returns:
        `<name>_loss` of each quantity, which are what is trained; behind them their terms, for the log.
    """
    terms = {name: each.losses(predictions, targets, scales, balanced) for name, each in READOUTS.items()}
    losses = {f"{name}_loss": sum(each.values()) for name, each in terms.items()}
    for each in terms.values():
        losses |= each
    return losses


def total_loss(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The sum that is trained, (b,). weights: by name of the quantity, or "flow", what its loss is multiplied by."""
    return sum(weight * losses[f"{name}_loss"] for name, weight in weights.items())


def flow_matching_loss(velocity: Tensor, latents: Tensor, noise: Tensor) -> Tensor:
    """The flow-matching loss, per clip: mean squared error of the velocity without latent 0.

    Args:
        velocity, latents, noise: (b, c, f, h, w); latent 0 is the clean first frame, nothing is predicted there.

    Returns:
        (b,); times the scheduler's training weight of each clip's timestep (`Dit.flow_weight`) the same as
        `diffsynth.diffusion.loss.FlowMatchSFTLoss` of it.
    """
    error = velocity[:, :, 1:].float() - (noise - latents)[:, :, 1:].float()
    return reduce(error.square(), "b c f h w -> b", "mean")


def trivial_flow_loss(latents: Tensor, sigma: float) -> float:
    """`flow_matching_loss` of the best guess that knows no more of a clip than how large its latents are.

    With s2 for the mean square of the latents behind latent 0: the least error of a linear guess of noise - latents
    from (1 - sigma) latents + sigma noise. At sigma 1 it is s2.
    """
    s2 = float(latents[..., 1:, :, :].float().square().mean())
    return s2 / ((1 - sigma) ** 2 * s2 + sigma**2)
