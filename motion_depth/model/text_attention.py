"""Cross-attention to a prompt without its padding: the same function of far fewer tokens.

The library pads every prompt to 512 tokens and attends to all of them. Padding tokens are alike, and n alike tokens
weigh as one whose logit is log n higher; so one stands for them all. On a small DiT that halves a step.

Axes: b clip, s video token, l text token, n attention head, c channel of a head.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from diffsynth.models.wan_video_dit import CrossAttention
from einops import rearrange
from torch import Tensor

from motion_depth.latents import WAN22


def shorten(context: Tensor) -> Tensor:
    """A context (b, l, c) with one token of padding, zeros, behind it; as it is, if it has all 512 tokens."""
    return F.pad(context, (0, 0, 0, int(context.shape[1] < WAN22.text_tokens)))


class ShortTextAttention(CrossAttention):
    """The library's cross-attention. Of fewer than 512 tokens the last one stands for all that are missing too."""

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Video tokens x (b, s, n c) and text tokens (b, l, n c) -> (b, s, n c)."""
        length = context.shape[1]
        if length == WAN22.text_tokens:
            return super().forward(x, context)
        q, k, v = self.norm_q(self.q(x)), self.norm_k(self.k(context)), self.v(context)
        q, k, v = (rearrange(each, "b s (n c) -> b n s c", n=self.num_heads) for each in (q, k, v))
        copies = math.log(WAN22.text_tokens - (length - 1))
        logits = F.pad(q.new_zeros(length - 1), (0, 1), value=copies)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=logits.expand(q.shape[2], length))
        return self.o(rearrange(out, "b n s c -> b s (n c)"))
