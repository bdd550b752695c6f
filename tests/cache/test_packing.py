"""Targets come back from their packed bytes bit for bit, or there is an error."""

import numpy as np
import pytest
import torch

from motion_depth.cache.packing import Packer, assemble, unpack_maps
from motion_depth.clips.batch import pack_targets
from motion_depth.clips.overlapping import read_overlapping
from motion_depth.readouts.targets import Targets
from tests.support.cache_setup import pack_alone, same_targets
from tests.support.quantities import motion_and_depth
from tests.support.scene_files import make_operator, plain_scene


def ones(dtype: torch.dtype = torch.float16) -> Targets:
    """Targets of 5 frames of 4 x 4 pixels."""
    mask = torch.ones(5, 4, 4, dtype=torch.bool)
    return motion_and_depth(torch.ones(5, 2, 4, 4, dtype=dtype), mask, torch.ones(5, 4, 4, dtype=dtype), mask)


def test_packed_targets_come_back_bit_for_bit():
    t, h, w = 5, 7, 9  # masks of 315 bits, which fill no whole number of bytes
    random = np.random.default_rng(0)
    bits = random.integers(0, 2**16, (t, 3, h, w), dtype=np.uint16)  # every kind of float16: NaN, -0, inf, subnormal
    bits[0, 0, 0, :4] = 0x8000, 0x7C00, 0xFC00, 0x7E01
    bits[2:4] = bits[1]  # nothing moves
    maps = torch.from_numpy(bits.view(np.float16))
    masks = torch.from_numpy(random.random((2, t, h, w)) < 0.3)
    packed = pack_alone(motion_and_depth(maps[:, :2], masks[0], maps[:, 2], masks[1]))
    found = unpack_maps(packed, (t, h, w))
    assert (found["motion"].map.numpy().view(np.uint16) == bits[:, :2]).all()
    assert (found["depth"].map.numpy().view(np.uint16) == bits[:, 2]).all()
    assert torch.equal(found["motion"].valid, masks[0])
    assert torch.equal(found["depth"].valid, masks[1])


def test_a_clips_packed_targets_are_small(tmp_path):
    plain_scene(tmp_path / "ball", size=(32, 64))
    targets = pack_targets(make_operator(tmp_path, 32, 64)("ball"))
    packed = pack_alone(targets)
    assert same_targets(unpack_maps(packed, (5, 32, 64)), targets)
    unpacked = sum(tensor.nbytes for tensor in targets.tensors())
    assert sum(each.nbytes for each in packed.values()) < unpacked / 4


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-3], lambda data: data.flip(0), lambda data: data[:0]], ids=["cut", "turned", "empty"]
)
@pytest.mark.parametrize("name", ["motion", "motion_valid", "depth", "depth_valid"])
def test_damaged_packed_targets_are_an_error(name, damage):
    packed = pack_alone(ones())
    packed[name] = damage(packed[name])
    with pytest.raises(ValueError, match=r"packed targets: damaged \(Error -"):
        unpack_maps(packed, (5, 4, 4))


def test_targets_of_another_shape_or_type_are_an_error():
    with pytest.raises(ValueError, match=r"found maps of torch\.float32, expected torch\.float16"):
        pack_alone(ones(torch.float32))
    with pytest.raises(ValueError, match="packed targets: found 320 bytes, expected 384"):
        unpack_maps(pack_alone(ones()), (6, 4, 4))


def test_clips_share_the_pieces_of_frames_that_they_share(tmp_path):
    plain_scene(tmp_path / "ball", size=(32, 64))
    operator, packer = make_operator(tmp_path, 32, 64, frame_stride=1), Packer()
    read = read_overlapping(operator, "ball", [0, 1, 2])
    packed = [packer.add(clip) for clip in read.targets]
    assert packed[0]["depth"][2:] == packed[1]["depth"][1:-1]
    assert packed[0]["motion"][2:] != packed[1]["motion"][1:-1]  # beside a clip's first frame, which has none
    assert packed[0]["motion"][3:] == packed[1]["motion"][2:-1]
    for window, clip in enumerate(packed):
        assembled, alone = assemble(clip, packer.pieces), pack_alone(pack_targets(operator(("ball", window))))
        assert all(torch.equal(assembled[name], alone[name]) for name in alone)
