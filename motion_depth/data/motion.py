"""Motion: flow of successive frames chained over several. Its convention, warping and resizing are imported here too.

Axes: N batch, C channel, H height, W width. A *flow* is float32 in pixels, channel order (x, y), x to the right, y
down, with pixel centres at integers: the top-left pixel's centre is (0, 0), the bottom-right one's (W-1, H-1).
All flow here is *backward*: the point seen at pixel p in frame t was at p + flow_t(p) in frame t-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from motion_depth.data.convention import MotionConvention, Units, decode_motion
from motion_depth.data.resizing import CoverCrop, cover_crop
from motion_depth.data.sampling import corners_of, into_picture, warp

__all__ = ["CoverCrop", "FrameMotion", "MotionConvention", "Units", "compose", "cover_crop", "decode_motion", "warp"]

# What `compose` calls "the same surface". A boundary between two surfaces shows in their flow and in their distance;
# a difference in flow below SAME_FLOW cannot do more harm to the composed vector than its own size.
SAME_FLOW = 0.1  # pixels
# Inside one surface the flow of neighbouring pixels differs by its rotation and approach, less than this.
MAX_FLOW_SLOPE = 0.5  # pixels per pixel
# Distances of two neighbouring pixels, or of one point in two successive frames, as a share of the distance.
SAME_DISTANCE = 0.05  # where the flow says "the same surface" as well
STRICT_DISTANCE = 0.005  # where the flow changes: an occluder in contact with what it hides is hardly nearer
# A lookup at an edge follows the corners of its surface, if these have a quarter of the weight, and if neither another
# corner is nearer than they are nor they are nearer than the point was, by more than this share: it may be hidden, by
# another surface or by the rim of its own that has turned away.
EDGE_WEIGHT, EDGE_DISTANCE = 0.25, 0.01


class Pixels(NamedTuple):
    """Some pixels of a frame, or points that were looked up there: flow (2, n), valid (n,), depth (n,)."""

    flow: Tensor
    valid: Tensor
    depth: Tensor


@dataclass(frozen=True)
class FrameMotion:
    """One frame of a scene, as `compose` needs it.

    flow: (2, H, W) to the frame before, 0 where it is invalid. valid: (H, W) bool. depth: (H, W) distance in metres,
    0 for "nothing there".
    """

    flow: Tensor
    valid: Tensor
    depth: Tensor

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
    - falls between surfaces, and no corner is surely the followed one's (`_at_edge`), or
    - is occluded: the distance found there is not what the followed surface should have (`_same_surface`).
    One frame alone comes back as it is, except for the zeros.
    """
    height, width = frames[0].depth.shape
    # Only what moves somewhere must be followed: in most clips, a few percent. All other pixels stay where they are.
    points = (~_rests(frames)).flatten().nonzero().squeeze(1)
    last = frames[0].at(points)
    flow, valid = last.flow, last.valid
    for earlier in frames[1:]:
        found = _look_up(earlier, last, points, flow)
        valid = valid & found.valid & _same_surface(last, found, width)
        flow = flow + found.flow
        last = found
    flow = flow.new_zeros(2, height * width).index_copy(1, points, flow.masked_fill(~valid, 0.0))
    valid = valid.new_ones(height * width).index_copy(0, points, valid)
    return flow.unflatten(1, (height, width)), valid.unflatten(0, (height, width))


def _rests(frames: Sequence[FrameMotion]) -> Tensor:
    """(H, W) bool: pixels whose vector is zero and valid in every frame, and whose distance stays the same."""
    rests = reduce(torch.logical_and, (frame.valid & (frame.flow == 0).all(dim=0) for frame in frames))
    return reduce(torch.logical_and, (later.depth == earlier.depth for later, earlier in pairwise(frames)), rests)


def _look_up(frame: FrameMotion, later: Pixels, points: Tensor, offset: Tensor) -> Pixels:
    """Sample `frame` where the pixels `points` (n,) come from: at p + offset, offset (2, n).

    later: these points one frame later, (n,). At an edge only those corners count that are of the followed surface.
    """
    height, width = frame.depth.shape
    x, y, inside = into_picture(points % width + offset[0], points // width + offset[1], height, width)
    index, weight = corners_of(x, y, width)
    corners = frame.at(index.flatten())
    flow, valid, depth = (corner.unflatten(-1, index.shape) for corner in corners)
    whole = valid.all(dim=0) & _smooth(flow, depth)
    edge = (inside & ~whole).nonzero().squeeze(1)
    if len(edge):
        there = [Pixels(*(each.index_select(-1, edge) for each in pixels)) for pixels in ((flow, valid, depth), later)]
        its_weight, found = _at_edge(*there, weight.index_select(1, edge), width)
        edge, its_weight = edge[found], its_weight[:, found]
        weight, whole = weight.index_copy(1, edge, its_weight), whole.index_fill(0, edge, True)
    found_flow = (flow * weight).sum(dim=1)
    if len(edge):
        at_edge = _extrapolate(frame, index[:, edge], weight[:, edge], x[edge], y[edge])
        found_flow = found_flow.index_copy(1, edge, at_edge)
    return Pixels(found_flow, inside & whole, (depth * weight).sum(dim=0))


def _extrapolate(frame: FrameMotion, index: Tensor, weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Flow (2, n) at points x, y (n,) at an edge: that of the heaviest corner and its slope inside the surface.

    index, weight: (4, n) of the corners, as `corners_of` orders them; weight 0: of another surface.
    """
    height, width = frame.depth.shape
    first = weight.max(dim=0, keepdim=True).indices  # argmax takes twenty times as long over so short a dimension
    anchor = index.gather(0, first)[0]
    start = frame.at(anchor)
    flow = start.flow
    for axis, (place, size, stride) in enumerate(((x, width, 1), (y, height, width))):
        here = anchor % width if axis == 0 else anchor // width
        other = first ^ (1 << axis)  # the corner beside it along this axis
        toward = torch.where(((first >> axis) & 1)[0] == 1, -1, 1)
        toward = torch.where(weight.gather(0, other)[0] > 0, toward, -toward)
        step = torch.where((here + toward >= 0) & (here + toward < size), toward, 0)
        beside = frame.at(anchor + stride * step)
        pair = torch.stack([start.flow, beside.flow], dim=1), torch.stack([start.depth, beside.depth])
        slope = torch.where(beside.valid & _smooth(*pair), (beside.flow - start.flow) * step, 0.0)
        flow = flow + slope * (place - here)
    return flow


def _at_edge(corners: Pixels, later: Pixels, weight: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Of lookups whose corners are not all of one surface: the weights without those of others, and what may be used.

    corners: flow (2, 4, n), valid and depth (4, n). later: the followed points one frame later, (n,). weight: (4, n).
    Returns weight (4, n), which sums to 1 where the lookup may be used, and that, (n,) bool.
    """
    followed = Pixels(later.flow[:, None], later.valid, later.depth)
    fits = corners.valid & _same_surface(followed, corners, width)
    goes_on = fits & (_length(corners.flow - followed.flow) <= SAME_FLOW)
    its = torch.where(goes_on.any(dim=0), goes_on, fits)
    weight = weight * its
    total = weight.sum(dim=0)
    weight = weight / total.clamp(min=EDGE_WEIGHT)
    distance = torch.where(corners.depth > 0, corners.depth, torch.inf)
    behind = distance > (1 - EDGE_DISTANCE) * _only(distance, its).amax(dim=0)
    in_front = (its | (behind & corners.valid)).all(dim=0)
    not_nearer = (corners.depth * weight).sum(dim=0) >= (1 - EDGE_DISTANCE) * later.depth
    agree = _smooth(_only(corners.flow, its), _only(corners.depth, its))
    return weight, (total >= EDGE_WEIGHT) & in_front & not_nearer & agree


def _only(values: Tensor, chosen: Tensor) -> Tensor:
    """values (..., 4, n) with those that are not chosen (4, n) replaced by one that is."""
    first = chosen.to(torch.uint8).max(dim=0).indices
    one = values.gather(-2, first.expand(*values.shape[:-2], 1, -1))
    return torch.where(chosen, values, one)


def _smooth(flow: Tensor, depth: Tensor) -> Tensor:
    """Whether neighbouring pixels may be mixed: they are of one surface, or of two that move alike; (points,) bool.

    flow, depth: of the four corners of each point, (2, 4, points) and (4, points).
    """
    slope = _length(flow.amax(dim=1) - flow.amin(dim=1))
    nearest = depth.amin(dim=0)
    same_distance = depth.amax(dim=0) - nearest <= SAME_DISTANCE * nearest
    return (slope <= SAME_FLOW) | ((slope <= MAX_FLOW_SLOPE) & same_distance)


def _same_surface(later: Pixels, earlier: Pixels, width: int) -> Tensor:
    """Whether what was found one frame earlier can be the surface that is followed; (n,) bool.

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
