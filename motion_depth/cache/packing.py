"""Targets as compressed bytes, without loss: a few MB instead of the 90 of a clip of 49 frames of 480 x 480.

float16 maps are taken as 16-bit integers, of which each frame keeps the difference to the frame before (most of a
physics clip is the same again); their low and high bytes are stored apart and compressed. A frame's bytes are
compressed by themselves, into whole blocks of DEFLATE (RFC 1951), so that clips that overlap share them; laid end to
end they are one stream.

Axes: t frame, h w pixel.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from motion_depth.readouts import READOUTS
from motion_depth.readouts.targets import Target, Targets

LEVEL = 6  # of zlib
RAW = -15  # zlib's name for a stream without a header and without a checksum, which entries have of their own
LAST = b"\x03\x00"  # an empty block that ends a stream

Packed = dict[str, list[int]]  # of a clip: numbers of a `Packer`'s pieces, frame by frame, by `<name>`, `<name>_valid`


class Packer:
    """Packs clips; what several of them share is compressed once.

    Attributes:
        pieces: what there is of all clips so far.
    """

    def __init__(self):
        self.pieces: list[bytes] = []
        self._known: dict[tuple[int, ...], tuple[int, tuple[Tensor | None, ...]]] = {}

    def add(self, frames: Sequence[Targets]) -> Packed:
        """Packs a clip's targets, given frame by frame, maps (..., h, w) in float16. Raises ValueError for others.

        Tensors that were given before are known again, and so must not have changed.
        """
        packed: Packed = {name: [] for quantity in frames[0] for name in (quantity, f"{quantity}_valid")}
        for before, frame in zip((None, *frames), frames, strict=False):
            for name, (values, valid) in frame.items():
                packed[name].append(self._piece(_steps, values, before and before[name].map))
                packed[f"{name}_valid"].append(self._piece(_bits, valid))
        return packed

    def _piece(self, make: Callable[..., np.ndarray], *tensors: Tensor | None) -> int:
        key = tuple(map(id, tensors))
        if key not in self._known:
            squeeze = zlib.compressobj(LEVEL, zlib.DEFLATED, RAW)
            self.pieces.append(squeeze.compress(make(*tensors)) + squeeze.flush(zlib.Z_SYNC_FLUSH))
            self._known[key] = len(self.pieces) - 1, tensors  # kept: another tensor could get its id
        return self._known[key][0]


def assemble(packed: Packed, pieces: Sequence[bytes]) -> dict[str, Tensor]:
    """What a clip's entry holds of its targets: uint8 (bytes,) each."""
    streams = {name: b"".join([*(pieces[number] for number in numbers), LAST]) for name, numbers in packed.items()}
    return {name: torch.frombuffer(bytearray(stream), dtype=torch.uint8) for name, stream in streams.items()}


def unpack_maps(packed: dict[str, Tensor], shape: tuple[int, int, int]) -> Targets:
    """The targets that a `Packer` was given and `assemble` laid end to end, bit for bit.

    Args:
        shape: (t, h, w).

    Raises:
        ValueError: the bytes are damaged, or those of another shape.
    """
    return Targets({name: Target(*_unpack(packed, name, shape)) for name in READOUTS})


def _unpack(packed: dict[str, Tensor], name: str, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    t, h, w = shape
    of_map = (t, *READOUTS[name].map_channels, h, w)
    planes = _decompress(packed[name], 2 * math.prod(of_map)).reshape(t, 2, *of_map[1:])
    bits = _decompress(packed[f"{name}_valid"], t * ((h * w + 7) // 8)).reshape(t, -1)
    valid = np.unpackbits(bits, axis=1, count=h * w).view(np.bool_).reshape(shape)
    return _from_steps(planes), torch.from_numpy(valid)


def _steps(frame: Tensor, before: Tensor | None) -> np.ndarray:
    """float16 (...) to uint8 (2, ...): low and high bytes of the difference to the frame before, if there is one."""
    if frame.dtype != torch.float16:
        raise ValueError(f"targets: found maps of {frame.dtype}, expected torch.float16")
    bits = frame.contiguous().numpy().view(np.uint16)
    if before is not None:
        bits = bits - before.contiguous().numpy().view(np.uint16)  # wraps around, and so does the sum
    return np.stack([bits & 0xFF, bits >> 8]).astype(np.uint8)


def _from_steps(planes: np.ndarray) -> Tensor:
    bits = planes[:, 1].astype(np.uint16)
    bits <<= 8
    bits |= planes[:, 0]
    for before, frame in pairwise(bits):
        frame += before
    return torch.from_numpy(bits.view(np.float16))


def _bits(mask: Tensor) -> np.ndarray:
    return np.packbits(mask.numpy())


def _decompress(packed: Tensor, size: int) -> np.ndarray:
    """uint8 (size,)."""
    try:
        data = zlib.decompress(packed.numpy(), RAW, bufsize=size)
    except zlib.error as error:
        raise ValueError(f"packed targets: damaged ({error})") from None
    if len(data) != size:
        raise ValueError(f"packed targets: found {len(data)} bytes, expected {size}")
    return np.frombuffer(data, np.uint8)
