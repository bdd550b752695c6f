"""Which clips a scene has, by its number of frames: window w begins at the w-th frame, all at one stride."""

from __future__ import annotations

from typing import Literal

Stride = int | Literal["auto"]


def usable_frames(frames: int, frame_offset: int) -> int:
    """Of a scene's frames those whose motion file is there; frame t's motion lies in the file of t + frame_offset."""
    return frames - max(0, frame_offset)


def windows(frames: int, num_frames: int, frame_stride: Stride, frame_offset: int = 0) -> tuple[int, int]:
    """Stride and number of distinct clips of a scene; (0, 0) if it is too short. A stride of "auto" is the largest."""
    usable = usable_frames(frames, frame_offset)
    longest = (usable - 1) // (num_frames - 1)
    stride = longest if frame_stride == "auto" else frame_stride
    return (stride, usable - (num_frames - 1) * stride) if 1 <= stride <= longest else (0, 0)
