"""Attention to a short prompt is attention to the padded one."""

import pytest
import torch

from motion_depth.latents import WAN22


def forward(dit, context: torch.Tensor) -> torch.Tensor:
    latents = torch.randn(len(context), 48, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    return dit.forward_with_taps(latents, torch.full((len(context),), 384.0), context)[0]


@pytest.mark.parametrize("length", [1, 7, WAN22.text_tokens - 1])
def test_a_short_prompt_gives_what_the_padded_one_gives(small_dit, length):
    short = torch.randn(2, length, small_dit.text_dim, generator=torch.Generator().manual_seed(1))
    short[1, length // 2 :] = 0  # a shorter prompt beside a longer one
    whole = torch.nn.functional.pad(short, (0, 0, 0, WAN22.text_tokens - length))
    torch.testing.assert_close(forward(small_dit, short), forward(small_dit, whole), rtol=1e-4, atol=1e-5)


def test_the_padding_counts(small_dit):
    """Were the missing tokens left out, or one of them alone counted, the prompt would be heard much louder."""
    short = torch.randn(1, 7, small_dit.text_dim, generator=torch.Generator().manual_seed(1))
    longer = torch.nn.functional.pad(short, (0, 0, 0, 100))
    torch.testing.assert_close(forward(small_dit, short), forward(small_dit, longer), rtol=1e-4, atol=1e-5)
    attention = small_dit.blocks[0].cross_attn
    x, context = torch.randn(1, 5, small_dit.dim), torch.randn(1, 8, small_dit.dim)
    counted, alone = attention(x, context), super(type(attention), attention).forward(x, context)
    assert (counted - alone).abs().max() > 1e-3
