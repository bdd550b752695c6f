"""Motion vectors: convention on disk, warping, composing over several frames, resizing.

Axes: N batch, C channel, H height, W width. A *flow* is float32 in pixels, channel order (x, y), x to the right, y
down, with pixel centres at integers: the top-left pixel's centre is (0, 0), the bottom-right one's (W-1, H-1).
All flow here is *backward*: the point seen at pixel p in frame t was at p + flow_t(p) in frame t-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

Units = Literal["pixels", "normalized", "ndc"]
Direction = Literal["backward", "forward"]
YAxis = Literal["down", "up"]
FrameOffset = Literal[0, 1, -1]

# What `compose` calls "the same surface". A boundary between two surfaces shows in their flow and in their distance;
# a difference in flow below SAME_FLOW cannot do more harm to the composed vector than its own size.
SAME_FLOW = 0.1  # pixels
# Inside one surface the flow of neighbouring pixels differs by its rotation and approach, less than this.
MAX_FLOW_SLOPE = 0.5  # pixels per pixel
# Distances of two neighbouring pixels, or of one point in two successive frames, as a share of the distance.
SAME_DISTANCE = 0.05  # where the flow says "the same surface" as well
STRICT_DISTANCE = 0.005  # where the flow changes: an occluder in contact with what it hides is hardly nearer


@dataclass(frozen=True)
class MotionConvention:
    """How the motion files are to be read; the defaults are Omniverse Replicator's, as documented.

    units: `pixels`; `normalized` (a fraction of the picture's width and height); `ndc` (a fraction of half of them).
    direction: `backward` (the sign of this module); `forward` (the file holds the opposite sign).
    y_axis: `down` (y grows downward); `up`.
    frame_offset: frame t's motion lies in the file of frame t + frame_offset; some Isaac Sim releases are off by one.

    Raises ValueError, which names the training script's flag, for any other value.
    """

    units: Units = "pixels"
    direction: Direction = "backward"
    y_axis: YAxis = "down"
    frame_offset: FrameOffset = 0

    def __post_init__(self) -> None:
        choices = {"units": Units, "direction": Direction, "y_axis": YAxis, "frame_offset": FrameOffset}
        for name, choice in choices.items():
            found = getattr(self, name)
            if isinstance(found, bool) or found not in get_args(choice):
                expected = ", ".join(str(value) for value in get_args(choice))
                raise ValueError(f"--motion_{name}: found {found!r}, expected one of {expected}")

    def scale(self, height: int, width: int) -> tuple[float, float]:
        """Factors that turn a file's x and y into backward flow in pixels of a (height, width) picture."""
        sign = 1.0 if self.direction == "backward" else -1.0
        y_sign = sign if self.y_axis == "down" else -sign
        share = {"pixels": None, "normalized": 1.0, "ndc": 0.5}[self.units]
        return (sign, y_sign) if share is None else (sign * share * width, y_sign * share * height)


def decode_motion(raw: np.ndarray | Tensor, convention: MotionConvention) -> tuple[Tensor, Tensor]:
    """Turn one motion file's array into flow.

    raw: (H, W, C), C >= 2, any floating type; channels 0 and 1 are x and y, further ones are not looked at.
    Returns flow (2, H, W) and valid (H, W) bool; a vector that is not finite is invalid, its flow is 0.
    """
    raw = torch.as_tensor(raw)
    flow = torch.stack([raw[..., 0], raw[..., 1]]).float()
    height, width = flow.shape[1:]
    for channel, factor in zip(flow, convention.scale(height, width), strict=True):
        if factor != 1.0:
            channel.mul_(factor)
    valid = flow[0].isfinite() & flow[1].isfinite()
    return flow.masked_fill_(~valid, 0.0), valid


def warp(image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Fetch what each pixel showed in the earlier frame: warped(p) = image(p + flow(p)), bilinear.

    image: (N, C, H, W), floating and finite, the earlier frame. flow: (N, 2, H, W).
    Returns warped (N, C, H, W) in the image's type, and inside (N, H, W) bool: the point p + flow(p) lies in the
    picture, 0 <= x <= W-1 and 0 <= y <= H-1. Outside, `warped` repeats the border. Zero flow is the identity, bit for
    bit. Differentiable in the image and, between pixel centres, in the flow.
    """
    height, width = image.shape[-2:]
    x, y, inside = _targets(flow.unbind(dim=1))
    x, y = (rearrange(each.nan_to_num(0.0), "n h w -> n (h w)") for each in (x, y))
    index, weight = _corners(x, y, width)
    pixels = rearrange(image, "n c h w -> n c (h w)")
    # One corner at a time: all four at once would hold four copies of the image.
    corners = (
        pixels.gather(2, corner_index[:, None].expand_as(pixels)) * corner_weight[:, None].to(pixels.dtype)
        for corner_index, corner_weight in zip(index, weight, strict=True)
    )
    warped = reduce(torch.add, corners)
    return rearrange(warped, "n c (h w) -> n c h w", h=height), inside


@dataclass(frozen=True)
class FrameMotion:
    """One frame of a scene, as `compose` needs it.

    flow: (2, H, W) to the frame before. valid: (H, W) bool. depth: (H, W) distance in metres, 0 for "nothing there".
    """

    flow: Tensor
    valid: Tensor
    depth: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return self.depth.shape[0], self.depth.shape[1]

    def at(self, index: Tensor) -> Pixels:
        """The pixels with these flat indices (n,)."""
        return Pixels(
            self.flow.flatten(1).index_select(1, index),
            self.valid.flatten().index_select(0, index),
            self.depth.flatten().index_select(0, index),
        )


def compose(frames: Sequence[FrameMotion]) -> tuple[Tensor, Tensor]:
    """Chain the flow of successive frames, newest first: from frame t (`frames[0]`) to frame t - len(frames).

    F2_t(p) = F_t(p) + F_{t-1}(p + F_t(p)), bilinear, and so on. Returns flow (2, H, W), 0 where it is invalid, and
    valid (H, W) bool. A point is invalid if one of its vectors is, or if an intermediate lookup
    - leaves the picture (the end of the last vector may leave it: the vector itself is known),
    - falls between two surfaces, so that bilinear sampling would mix their flow, or
    - is occluded: the distance found there is not what the followed surface should have (`_same_surface`).
    One frame alone comes back as it is, except for the zeros.
    """
    flow, valid = frames[0].flow, frames[0].valid
    last = frames[0]
    for earlier in frames[1:]:
        found = _follow(earlier, flow)
        valid = valid & found.valid & _same_surface(last, found, flow.shape[-1])
        flow = flow + found.flow
        last = found
    return flow.masked_fill(~valid, 0.0), valid


class Pixels(NamedTuple):
    """Some pixels of a frame, or points that were looked up there: flow (2, n), valid (n,), depth (n,)."""

    flow: Tensor
    valid: Tensor
    depth: Tensor


class FrameLookup(Protocol):
    """A frame whose pixels can be asked for one by one."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""

    def at(self, index: Tensor) -> Pixels:
        """The pixels with these flat indices (n,)."""


def compose_at(frames: Sequence[FrameLookup], points: Tensor) -> tuple[Tensor, Tensor]:
    """`compose` for some pixels only: flow (2, n) and valid (n,) of the flat indices `points` (n,)."""
    last = frames[0].at(points)
    flow, valid = last.flow, last.valid
    for earlier in frames[1:]:
        found = _look_up(earlier, points, flow)
        valid = valid & found.valid & _same_surface(last, found, frames[0].size[1])
        flow = flow + found.flow
        last = found
    return flow.masked_fill(~valid, 0.0), valid


def leaves_picture(points: Tensor, flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Whether the vectors flow (2, n) of pixels (n,), flat indices, end outside the picture; (n,) bool."""
    height, width = size
    return ~_into_picture(points % width + flow[0], points // width + flow[1], height, width)[2]


def _follow(frame: FrameMotion, offset: Tensor) -> FrameMotion:
    """Sample `frame` at p + offset(p), offset (2, H, W): how the points that are at p later on look in `frame`."""
    # A point that rests is read where it is. Only the others need interpolation: in most clips, a few percent.
    moving = ((offset[0] != 0) | (offset[1] != 0)).flatten().nonzero().squeeze(1)
    found = _look_up(frame, moving, offset.flatten(1).index_select(1, moving))
    return FrameMotion(
        frame.flow.flatten(1).index_copy(1, moving, found.flow).unflatten(1, frame.size),
        frame.valid.flatten().index_copy(0, moving, found.valid).unflatten(0, frame.size),
        frame.depth.flatten().index_copy(0, moving, found.depth).unflatten(0, frame.size),
    )


def _look_up(frame: FrameLookup, points: Tensor, offset: Tensor) -> Pixels:
    """Sample `frame` where the pixels `points` (n,) come from: at p + offset, offset (2, n)."""
    height, width = frame.size
    x, y, inside = _into_picture(points % width + offset[0], points // width + offset[1], height, width)
    index, weight = _corners(x, y, width)
    corners = frame.at(index.flatten())
    flow, valid, depth = (corner.unflatten(-1, index.shape) for corner in corners)
    return Pixels(
        flow=(flow * weight).sum(dim=1),
        valid=inside & valid.all(dim=0) & _smooth(flow, depth),
        depth=(depth * weight).sum(dim=0),
    )


def _smooth(flow: Tensor, depth: Tensor) -> Tensor:
    """Whether neighbouring pixels may be mixed: they are of one surface, or of two that move alike; (points,) bool.

    flow, depth: of the four corners of each point, (2, 4, points) and (4, points).
    """
    slope = _length(flow.amax(dim=1) - flow.amin(dim=1))
    nearest = depth.amin(dim=0)
    same_distance = depth.amax(dim=0) - nearest <= SAME_DISTANCE * nearest
    return (slope <= SAME_FLOW) | ((slope <= MAX_FLOW_SLOPE) & same_distance)


def _same_surface(later: FrameMotion | Pixels, earlier: FrameMotion | Pixels, width: int) -> Tensor:
    """Whether what was found one frame earlier can be the surface that is followed; (H, W) or (n,) bool.

    Backward flow says where a point was, not how far away. From one frame to the next its distance can change about as
    much as it moves sideways, which is |flow| / width of the distance for a usual field of view. The allowance
    beyond that is SAME_DISTANCE where the point moves on as before, so that it may fly straight at the camera, and
    STRICT_DISTANCE where it moves differently now: a collision, or another surface that hid the point.
    """
    change = (earlier.depth - later.depth).abs()
    allowance = torch.where(_length(earlier.flow - later.flow) <= SAME_FLOW, SAME_DISTANCE, STRICT_DISTANCE)
    sideways = _length(later.flow) / width
    return change <= (allowance + sideways) * later.depth


def _length(flow: Tensor) -> Tensor:
    """The larger of |x| and |y|, of flow (2, ...)."""
    return torch.maximum(flow[0].abs(), flow[1].abs())


def _targets(flow: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """p + flow(p) for flow x and y (..., H, W): x, y moved into the picture, and whether they were inside it."""
    flow_x, flow_y = flow
    height, width = flow_x.shape[-2:]
    x = flow_x + torch.arange(width, device=flow_x.device, dtype=flow_x.dtype)
    y = flow_y + torch.arange(height, device=flow_y.device, dtype=flow_y.dtype)[:, None]
    return _into_picture(x, y, height, width)


def _into_picture(x: Tensor, y: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest coordinates inside a picture (NaN stays), and whether they are the ones given."""
    inner_x, inner_y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    return inner_x, inner_y, (inner_x == x) & (inner_y == y)


def _corners(x: Tensor, y: Tensor, width: int) -> tuple[Tensor, Tensor]:
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


@dataclass(frozen=True)
class CoverCrop:
    """Scale a picture until it covers the target, then cut out the centre, as DiffSynth's ImageCropAndResize does.

    source, resized, target: (height, width) of the file, after scaling, after cutting. top, left: of the cut, in pixels
    of the scaled picture. Built by `cover_crop`.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    target: tuple[int, int]
    top: int
    left: int

    def nearest(self, image: Tensor) -> Tensor:
        """Resize (..., source H, source W) to (..., target H, target W); each pixel is one of the file's, unmixed."""
        if self.source == self.target:
            return image
        rows = _nearest_indices(self.top, self.target[0], self.resized[0], self.source[0])
        columns = _nearest_indices(self.left, self.target[1], self.resized[1], self.source[1])
        return image[..., rows.to(image.device)[:, None], columns.to(image.device)]

    def motion(self, flow: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Resize flow (2, H, W) and valid (H, W): to the target's pixels, x and y by their own ratio.

        A vector that ends outside the target picture becomes invalid. Flow is 0 where it is invalid.
        """
        (source_h, source_w), (resized_h, resized_w) = self.source, self.resized
        ratio = flow.new_tensor([resized_w / source_w, resized_h / source_h])
        flow = self.nearest(flow) * ratio[:, None, None]
        inside = _targets(flow.unbind(dim=0))[2]
        valid = self.nearest(valid) & inside
        return flow.masked_fill(~valid, 0.0), valid


def cover_crop(source: tuple[int, int], target: tuple[int, int]) -> CoverCrop:
    """The CoverCrop from a (height, width) to a (height, width)."""
    scale = max(target[0] / source[0], target[1] / source[1])
    resized = round(source[0] * scale), round(source[1] * scale)
    top, left = (round((size - cut) / 2) for size, cut in zip(resized, target, strict=True))
    return CoverCrop(source, resized, target, top, left)


def _nearest_indices(start: int, count: int, resized: int, source: int) -> Tensor:
    """Source pixel that holds the centre of each of `count` resized pixels from `start` on; exact in integers."""
    centres = 2 * (torch.arange(count) + start) + 1
    return centres * source // (2 * resized)
