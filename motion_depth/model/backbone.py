"""What the parts know of the model that they train on: its numbers, its files, how it encodes, what it computes.

Axes: b clip, c channel, f latent frame, t video frame, h w the token grid, p latents along a side of a token, l text
token.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from motion_depth.latents import LatentLayout

CHECKPOINTING = ("every", "alternate", "none")  # blocks that are recomputed in the backward pass


class DitFeatures(NamedTuple):
    """What a head reads of one forward."""

    taps: list[Tensor]  # per tap (b, f h w, c): output of a block, on the token grid
    time_embedding: Tensor  # (b, f, c): each latent frame's own timestep embedding
    latents: Tensor  # (b, c, f, p h, p w): the noised latents that the DiT was given
    grid: tuple[int, int, int]  # (f, h, w) of the tokens


class Dit(nn.Module):
    """A diffusion transformer. LoRA, compiling and sharding go by the names: `blocks`, and `head` behind them.

    Attributes:
        layout: of its latents.
        dim: width of what its blocks return, and of its timestep embedding.
        text_dim: width of the contexts that it takes.
        blocks: each takes and returns tokens (b, s, dim) first.
    """

    layout: ClassVar[LatentLayout]
    dim: int
    text_dim: int
    blocks: nn.ModuleList

    def forward_with_taps(
        self,
        latents: Tensor,
        timestep: Tensor,
        context: Tensor,
        taps: Sequence[int] = (),
        velocity: bool = True,
        checkpointing: str = "none",
    ) -> tuple[Tensor | None, DitFeatures]:
        """One forward of noised latents, of which latent 0 is the clean first frame.

        Args:
            latents: (b, c, f, p h, p w).
            timestep: (b,) float32 in [0, 1000].
            context: (b, l, text_dim), zeros behind each prompt.
            taps: blocks whose outputs are wanted, ascending.
            velocity: whether to run the blocks after the last tap and the output layer.
            checkpointing: one of CHECKPOINTING.

        Returns:
            The velocity, shaped as the latents, or None; and the features for the heads.
        """
        raise NotImplementedError

    def flow_weight(self, sigma: Tensor) -> Tensor:
        """(b,) to (b,): the weight of a noise level in the flow-matching loss."""
        raise NotImplementedError

    def run_blocks(
        self, x: Tensor, inputs: Sequence[Tensor], taps: Sequence[int], velocity: bool, checkpointing: str
    ) -> tuple[Tensor, list[Tensor]]:
        """Tokens (b, s, dim) through the blocks, as `forward_with_taps` says; what the last and the taps return."""
        outputs = {}
        for index, block in enumerate(self.blocks if velocity else self.blocks[: max(taps) + 1]):
            recompute = checkpointing == "every" or (checkpointing == "alternate" and index % 2 == 0)
            if recompute and torch.is_grad_enabled():
                # No block draws random numbers, and keeping the generator's state would make a GPU wait at each.
                x = checkpoint(block, x, *inputs, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, *inputs)
            if index in taps:
                outputs[index] = x
        return x, [outputs[tap] for tap in taps]


class Encoder(Protocol):
    """Frames and prompts to what a DiT takes; results are on the encoder's device."""

    def frames(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (b, t, h, w, 3) to latents (b, c, f, h/stride, w/stride) and those of the first frame alone (f = 1)."""

    def windows(self, frames: Tensor, starts: Sequence[int], length: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What `frames` gives of each clip of `length` of these frames uint8 (n, h, w, 3), b = 1, one after the other.

        Override it where clips that overlap can share work.
        """
        for start in starts:
            yield self.frames(frames[None, start : start + length])

    def prompt(self, prompt: str) -> Tensor:
        """One prompt to its context (l, c), trimmed to its own tokens."""


class Backbone(ABC):
    """A model's files, found and known to be what they should be, not loaded yet; its parts: dit, text_encoder, vae.

    Attributes:
        layout: of its latents.
        dim, num_blocks: of its DiT.
    """

    layout: ClassVar[LatentLayout]
    dim: int
    num_blocks: int

    @classmethod
    @abstractmethod
    def recognises(cls, folder: Path) -> bool:
        """Whether a folder looks like this kind of model; a look at names, no more."""

    @classmethod
    @abstractmethod
    def find(
        cls, model_base_path: Path | None, model_paths: str | None, model_ids: str | None, tokenizer: Path | None
    ) -> Backbone:
        """The model that one of the first three flags names: looks at headers, loads nothing, may download.

        Args:
            model_base_path: a folder. model_paths: a JSON list of files. model_ids: "MODEL_ID:PATTERN,...".
            tokenizer: the tokenizer's folder, or None for the usual place.

        Raises:
            ValueError: none or several of them are given, or the files are missing, broken, or of another model.
        """

    @abstractmethod
    def identity(self) -> dict[str, list[str]]:
        """By part, and `tokenizer`, the digest of each of its files: equal for copies, whatever they are called."""

    @abstractmethod
    def count_numbers(self, part: str) -> int:
        """How many numbers a part's weights are."""

    @abstractmethod
    def linear_layers(self) -> list[str]:
        """Full names of the DiT's linear layers, which can have LoRA."""

    @abstractmethod
    def empty_dit(self, dtype: torch.dtype) -> Dit:
        """The DiT without its weights: random ones instead, or under `torch.device("meta")` none."""

    def random_dit(self, dtype: torch.dtype, device: torch.device | str, seed: int) -> Dit:
        """The DiT with random weights, which knows nothing, in evaluation mode."""
        torch.manual_seed(seed)
        with torch.device(device):
            return self.empty_dit(dtype).eval()

    @abstractmethod
    def load_dit(self, dtype: torch.dtype, device: torch.device | str) -> Dit:
        """The DiT, frozen and in evaluation mode."""

    @abstractmethod
    def load_encoder(
        self,
        parts: Sequence[str],
        dtype: torch.dtype,
        device: torch.device | str,
        contexts: Mapping[str, Tensor] | None = None,
    ) -> Encoder:
        """The VAE, or the text encoder, or both.

        Args:
            contexts: of prompts that are encoded already (`encode_prompts`); these need no text encoder.
        """

    def encode_prompts(
        self, prompts: Iterable[str], dtype: torch.dtype, device: torch.device | str
    ) -> dict[str, Tensor]:
        """Loads the text encoder, encodes prompts, each once, and drops it: nothing of it stays in memory.

        Returns:
            By prompt its context (l, c) on the CPU, trimmed to its own tokens.
        """
        encoder = self.load_encoder(("text_encoder",), dtype, device)
        contexts = {prompt: encoder.prompt(prompt).cpu() for prompt in dict.fromkeys(prompts)}
        del encoder
        clear_device_cache(garbage_collection=True)
        return contexts


@contextlib.contextmanager
def new_tensors_in(dtype: torch.dtype) -> Iterator[None]:
    """Context in which modules are built in a type at once, also where there is no data that could be converted."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def pad_contexts(contexts: Sequence[Tensor], device: torch.device | None = None) -> Tensor:
    """Trimmed contexts (l_i, c) to one (b, l, c) of the longest's length, zeros behind each.

    Args:
        device: where to; None: where they are.
    """
    padded = contexts[0].new_zeros(len(contexts), max(map(len, contexts)), contexts[0].shape[-1], device=device)
    for row, context in zip(padded, contexts, strict=True):
        row[: len(context)].copy_(context, non_blocking=True)
    return padded
