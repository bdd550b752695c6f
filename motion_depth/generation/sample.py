"""Video from the library's own pipeline, with motion and depth read off it: while it is made, or from what is there.

The heads only read. Forward hooks on the DiT take what its blocks return and change nothing, so the video is the stock
pipeline's, bit for bit.

Axes: b clip (always 1 here), c channel, f latent frame, t video frame, h w the token grid (stride 32).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
from diffsynth.diffusion.base_pipeline import BasePipeline, PipelineUnit
from einops import rearrange
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.hooks import RemovableHandle

from motion_depth.checkpoints.checkpoint import Checkpoint
from motion_depth.checkpoints.models import load_heads, load_tuned, read_lora, read_lora_config
from motion_depth.checkpoints.schema import LORA_FILE
from motion_depth.clips.noise import clip_noise
from motion_depth.latents import WAN22
from motion_depth.model.backbone import DitFeatures
from motion_depth.model.heads import MotionDepthHeads
from motion_depth.model.motion_depth import MotionDepthModel
from motion_depth.model.wan import WanDit
from motion_depth.model.weights import quiet
from motion_depth.readouts.rows import predicted_maps
from motion_depth.readouts.targets import Targets

TILES = {"tile_size": (30, 52), "tile_stride": (15, 26)}  # of latents; the pipeline's defaults


@dataclass(frozen=True)
class Reading:
    """What the heads say at one noise level.

    Attributes:
        sigma: the level; 1 is a forecast from the first frame and the prompt alone.
        predictions: of `MotionDepthHeads.forward`, of one clip, (t, ...), on the CPU.
    """

    sigma: float
    predictions: dict[str, Tensor]

    @property
    def maps(self) -> Targets:
        """What the heads say of each quantity, and where they say that there is one."""
        return predicted_maps(self.predictions)


def fuse(checkpoint: Checkpoint, pipe: BasePipeline) -> None:
    """Gives a pipeline's DiT what a checkpoint has trained of it, as stock users do: LoRA by `load_lora`, or weights.

    Raises:
        ValueError: it does not fit the DiT. (The library leaves out layers that it does not find.)
    """
    load_tuned(pipe.dit, checkpoint)
    if read_lora_config(checkpoint):
        read_lora(checkpoint, pipe.dit)
        with quiet():
            pipe.load_lora(pipe.dit, str(checkpoint.folder / LORA_FILE))


def load_fused(checkpoint: Checkpoint, pipe: BasePipeline) -> MotionDepthModel:
    """A trained model on a pipeline's DiT, as `fuse` makes it. Raises ValueError if it does not fit the DiT."""
    heads = load_heads(checkpoint, pipe.dit.dim, len(pipe.dit.blocks))
    fuse(checkpoint, pipe)
    return MotionDepthModel(pipe.dit, heads, train_dit=False).to(pipe.device).requires_grad_(False).eval()


class TapRecorder:
    """Context in which chosen forwards of a DiT leave their features behind.

    Args:
        dit: the pipeline's DiT.
        taps: blocks whose outputs the heads read, ascending.
        forwards: numbers of the DiT's forwards, counted from 0 within the context, that are recorded.

    Attributes:
        features: forward number -> `DitFeatures`, as `Dit.forward_with_taps` gives them for the same inputs.
    """

    def __init__(self, dit: WanDit, taps: Sequence[int], forwards: Collection[int]):
        self.dit, self.taps, self.forwards = dit, taps, frozenset(forwards)
        self.features: dict[int, DitFeatures] = {}
        self._forward = -1
        self._embedding = self._latents = self._grid = None
        self._outputs: list[Tensor] = []
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> TapRecorder:
        # The library embeds the timestep first, then cuts the latents into patches, then runs the blocks.
        self._handles = [
            self.dit.time_embedding.register_forward_hook(self._begin),
            self.dit.patch_embedding.register_forward_hook(self._patches),
            *(self.dit.blocks[tap].register_forward_hook(self._block) for tap in self.taps),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self._forward += 1
        self._embedding, self._outputs = output, []

    def _patches(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self._latents, self._grid = inputs[0], tuple(output.shape[2:])

    def _block(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        if self._forward not in self.forwards:
            return
        self._outputs.append(output.detach())
        if len(self._outputs) == len(self.taps):
            # The library repeats the embedding for every token of a latent frame; the heads take it once.
            f, h, w = self._grid
            embedding = rearrange(self._embedding.detach(), "b (f h w) c -> b f (h w) c", f=f, h=h, w=w)[:, :, 0]
            self.features[self._forward] = DitFeatures(self._outputs, embedding, self._latents.detach(), self._grid)


@contextlib.contextmanager
def kept_latents(pipe: BasePipeline) -> Iterator[list[Tensor]]:
    """Context in which the pipeline leaves its finished latents (1, c, f, 2h, 2w) in the list, before they are decoded.

    It uses the library's own place for such work, a unit after denoising; this one returns nothing.
    """
    latents: list[Tensor] = []

    class Keep(PipelineUnit):
        def process(self, pipe: BasePipeline, **inputs: Tensor) -> dict:
            latents.append(inputs["latents"].clone())
            return {}

    unit = Keep(input_params=("latents",))
    pipe.post_units.append(unit)
    try:
        yield latents
    finally:
        pipe.post_units.remove(unit)


@contextlib.contextmanager
def prepared_prompts(pipe: BasePipeline, contexts: Mapping[str, Tensor]) -> Iterator[None]:
    """Context in which the pipeline needs no text encoder: its prompt unit hands out what was encoded beforehand.

    Args:
        contexts: of every prompt that will be asked for, the negative one too (`Backbone.encode_prompts`).
    """

    class Prepared(PipelineUnit):
        def process(self, pipe: BasePipeline, prompt: str, positive: bool) -> dict:
            context = contexts[prompt].to(pipe.device)
            return {"context": pad(context, (0, 0, 0, WAN22.text_tokens - len(context)))[None]}

    (place,) = (place for place, unit in enumerate(pipe.units) if unit.output_params == ("context",))
    own = pipe.units[place]
    pipe.units[place] = Prepared(
        seperate_cfg=own.seperate_cfg,
        input_params_posi=own.input_params_posi,
        input_params_nega=own.input_params_nega,
        output_params=own.output_params,
    )
    try:
        yield
    finally:
        pipe.units[place] = own


class Video(NamedTuple):
    """A generated video.

    Attributes:
        frames: (t, h, w, 3) uint8, the pipeline's.
        latents: (1, c, f, 2h, 2w), what it was decoded from.
    """

    frames: Tensor
    latents: Tensor


class Generated(NamedTuple):
    """A generated video, and denoising step -> what the heads say at it."""

    frames: Tensor
    latents: Tensor
    readings: dict[int, Reading]


def make_video(
    pipe: BasePipeline, image: Image.Image, progress: Callable, cfg_scale: float, **arguments: object
) -> Video:
    """One call of the library's pipeline.

    Args:
        image: the first frame, of the size that is generated.
        progress: wraps the iterable of steps, as tqdm does.
        cfg_scale: 1 runs the DiT once a step, anything else twice.
        arguments: further ones of `WanVideoPipeline.__call__`.
    """
    with kept_latents(pipe) as latents, quiet():
        frames = pipe(input_image=image, cfg_scale=cfg_scale, progress_bar_cmd=progress, **arguments)
    return Video(_stack(frames), latents[0])


@torch.no_grad()
def decode(pipe: BasePipeline, latents: Tensor) -> Tensor:
    """Latents (1, c, f, 2h, 2w) to frames (t, h, w, 3) uint8, as the pipeline decodes what it has generated."""
    with quiet():
        return _stack(pipe.vae_output_to_video(pipe.vae.decode(latents, device=pipe.device, tiled=True, **TILES)))


def _stack(frames: Sequence[Image.Image]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(frame) for frame in frames]))


def generate(
    pipe: BasePipeline,
    heads: MotionDepthHeads,
    image: Image.Image,
    steps: Collection[int],
    progress: Callable,
    cfg_scale: float,
    **arguments: object,
) -> Generated:
    """`make_video`, read at some denoising steps.

    Args:
        steps: denoising steps at which the heads read, from 0; they read the forward with the prompt.
    """
    per_step = 1 if cfg_scale == 1 else 2
    with TapRecorder(pipe.dit, heads.config.taps, [step * per_step for step in steps]) as recorder:
        made = make_video(pipe, image, progress, cfg_scale, **arguments)
    readings = {
        step: Reading(float(pipe.scheduler.sigmas[step]), _read(heads, recorder.features.pop(step * per_step)))
        for step in sorted(steps)
    }
    return Generated(*made, readings)


@torch.no_grad()
def _read(heads: MotionDepthHeads, features: DitFeatures) -> dict[str, Tensor]:
    latents = features.latents
    with torch.autocast(latents.device.type, dtype=latents.dtype, enabled=latents.dtype == torch.bfloat16):
        return _on_cpu(heads(features))


@torch.no_grad()
def read_latents(
    model: MotionDepthModel, latents: Tensor, first: Tensor, context: Tensor, sigma: float, seed: int, position: int = 0
) -> Reading:
    """Noises a clip's latents to a level and reads them in one forward, exactly as tools/evaluate.py does.

    Args:
        latents: (1, c, f, 2h, 2w).
        first: (1, c, 1, 2h, 2w), latents of the first frame alone.
        context: (1, l, c).
        seed, position: which noise; tools/evaluate.py counts positions over its clips.
    """
    noise = clip_noise(tuple(latents.shape[1:]), seed, position)[None].to(latents)
    level = torch.tensor([sigma], device=latents.device)
    with torch.autocast(latents.device.type, dtype=latents.dtype, enabled=latents.dtype == torch.bfloat16):
        return Reading(sigma, _on_cpu(model(latents, first, context, noise, level)))


def _on_cpu(predictions: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a batch of one clip."""
    return {name: value[0].float().cpu() for name, value in predictions.items()}
