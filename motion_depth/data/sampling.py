"""Reading a picture between its pixels: warping by flow, and the corners and weights of bilinear sampling.

Axes: N batch, C channel, H height, W width. Flow and pixel coordinates are those of motion.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from einops import rearrange
from torch import Tensor


def warp(image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Fetch what each pixel showed in the earlier frame: warped(p) = image(p + flow(p)), bilinear.

    image: (N, C, H, W), floating and finite, the earlier frame. flow: (N, 2, H, W).
    Returns warped (N, C, H, W) in the image's type, and inside (N, H, W) bool: the point p + flow(p) lies in the
    picture, 0 <= x <= W-1 and 0 <= y <= H-1. Outside, `warped` repeats the border. Zero flow is the identity, bit for
    bit. Differentiable in the image and, between pixel centres, in the flow.
    """
    height, width = image.shape[-2:]
    x, y, inside = flow_targets(flow.unbind(dim=1))
    x, y = (rearrange(each.nan_to_num(0.0), "n h w -> n (h w)") for each in (x, y))
    index, weight = corners_of(x, y, width)
    pixels = rearrange(image, "n c h w -> n c (h w)")
    # One corner at a time: all four at once would hold four copies of the image.
    corners = (
        pixels.gather(2, corner_index[:, None].expand_as(pixels)) * corner_weight[:, None].to(pixels.dtype)
        for corner_index, corner_weight in zip(index, weight, strict=True)
    )
    warped = reduce(torch.add, corners)
    return rearrange(warped, "n c (h w) -> n c h w", h=height), inside


def flow_targets(flow: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """p + flow(p) for flow x and y (..., H, W): x, y moved into the picture, and whether they were inside it."""
    flow_x, flow_y = flow
    height, width = flow_x.shape[-2:]
    x = flow_x + torch.arange(width, device=flow_x.device, dtype=flow_x.dtype)
    y = flow_y + torch.arange(height, device=flow_y.device, dtype=flow_y.dtype)[:, None]
    return into_picture(x, y, height, width)


def into_picture(x: Tensor, y: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest coordinates inside a picture (NaN stays), and whether they are the ones given."""
    inner_x, inner_y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    return inner_x, inner_y, (inner_x == x) & (inner_y == y)


def corners_of(x: Tensor, y: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Bilinear corners of points inside the picture: flat pixel indices (4, ...) and weights (4, ...).

    A corner of weight 0 is replaced by one that counts. So a point on a pixel centre only ever sees that pixel.
    """
    left, top = x.floor(), y.floor()
    right_share, bottom_share = x - left, y - top
    left, top = left.long(), top.long()
    right, bottom = left + (right_share > 0), top + (bottom_share > 0)
    index = [row * width + column for row in (top, bottom) for column in (left, right)]
    weight = [v * h for v in (1 - bottom_share, bottom_share) for h in (1 - right_share, right_share)]
    return torch.stack(index), torch.stack(weight)
