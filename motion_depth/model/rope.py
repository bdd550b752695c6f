"""The DiT's rotary position embedding: its table on the device once, and turned in float32 where that is asked for.

The library turns queries and keys in complex128: of bfloat16 numbers, eight bytes wide, at a sixty-fourth of the speed
on most GPUs. In complex64 the turned number differs in its eighth digit, and is then rounded to bfloat16's third.

Axes: b clip, s token (f h w), n attention head, c complex channel, two its real and imaginary part.
"""

from __future__ import annotations

import torch
from diffsynth.models.wan_video_dit import SelfAttention, WanModel
from einops import rearrange, repeat
from torch import Tensor


class Float32Attention(SelfAttention):
    """The library's self-attention, which turns in the precision of the table that it is given.

    With the library's own table, complex128, it is the library's to the last bit.
    """

    def forward(self, x: Tensor, freqs: Tensor) -> Tensor:
        """Args: x (b, s, n 2c). freqs (s, 1, c), complex64 or complex128."""
        if freqs.dtype == torch.complex128:
            return super().forward(x, freqs)
        q, k = (rotate(part, freqs, self.num_heads) for part in (self.norm_q(self.q(x)), self.norm_k(self.k(x))))
        return self.o(self.attn(q, k, self.v(x)))


def rotate(x: Tensor, table: Tensor, heads: int) -> Tensor:
    """As the library's `rope_apply`: x (b, s, n 2c) times table (s, 1, c), in float32, back in x's type."""
    pairs = rearrange(x.float(), "b s (n c two) -> b s n c two", n=heads, two=2)
    turned = torch.view_as_real(torch.view_as_complex(pairs) * table)
    return rearrange(turned, "b s n c two -> b s (n c two)").to(x.dtype)


def rotation_table(dit: WanModel, grid: tuple[int, int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
    """(f h w, 1, c): the angles of every token of a grid (f, h, w), kept on the device for the next forward."""
    tables = dit.__dict__.setdefault("_rotation_tables", {})
    if (key := (grid, device, dtype)) not in tables:
        f, h, w = grid
        parts = [
            repeat(dit.freqs[0][:f], "f c -> (f h w) 1 c", h=h, w=w),
            repeat(dit.freqs[1][:h], "h c -> (f h w) 1 c", f=f, w=w),
            repeat(dit.freqs[2][:w], "w c -> (f h w) 1 c", f=f, h=h),
        ]
        tables.clear()  # of one grid, which a run keeps
        tables[key] = torch.cat(parts, dim=-1).to(device, dtype)
    return tables[key]
