"""Scaling and cutting a picture's maps and motion to a clip's size. Flow is that of motion.py.

Axes: H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motion_depth.data.sampling import flow_targets


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
        inside = flow_targets(flow.unbind(dim=0))[2]
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
