"""Files for other programs hold what was given, in the units that they say."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from motion_depth.generation.exports import points_of, write_arrays, write_depth_png, write_ply
from motion_depth.readouts import READOUTS


@pytest.fixture
def maps() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """frame (h, w, 3), depth (h, w), there (h, w) with one pixel of nothing."""
    generator = torch.Generator().manual_seed(0)
    frame = torch.randint(0, 256, (6, 8, 3), generator=generator, dtype=torch.uint8)
    depth = 1 + 5 * torch.rand(6, 8, generator=generator)
    there = torch.ones(6, 8, dtype=torch.bool)
    there[0, 0] = False
    return frame, depth, there


def read_ply(path) -> tuple[list[str], np.ndarray]:
    header, data = path.read_bytes().split(b"end_header\n", 1)
    kinds = [("xyz", "<f4", 3), ("rgb", "u1", 3)]
    return header.decode().splitlines(), np.frombuffer(data, dtype=kinds)


def test_points_lie_on_their_rays_at_their_distance():
    depth = torch.full((101, 201), 3.0)
    points = points_of(depth, fov=90.0)
    torch.testing.assert_close(points.norm(dim=-1), depth)
    torch.testing.assert_close(points[50, 100], torch.tensor([0.0, 0.0, 3.0]))
    x, y, z = points[50, 200].tolist()
    # The last pixel's centre lies half a pixel inside the edge, which is at 45 degrees.
    assert math.degrees(math.atan2(x, z)) == pytest.approx(45.0, abs=0.3)
    assert y == 0
    assert points[100, 100, 1] > 0, "y points down"


def test_point_cloud_has_a_coloured_point_for_every_pixel_with_a_depth(maps, tmp_path):
    frame, depth, there = maps
    assert write_ply(tmp_path / "new" / "cloud.ply", frame, depth, there, fov=60.0) == 47
    header, vertices = read_ply(tmp_path / "new" / "cloud.ply")
    assert header[:2] == ["ply", "format binary_little_endian 1.0"]
    assert "element vertex 47" in header
    assert [line.split()[-1] for line in header if line.startswith("property")] == [*"xyz", "red", "green", "blue"]
    assert (vertices["rgb"] == frame[there].numpy()).all()
    np.testing.assert_array_equal(vertices["xyz"], points_of(depth, 60.0)[there].numpy())


def test_depth_picture_is_in_millimetres_and_0_is_nothing(maps, tmp_path):
    _, depth, there = maps
    depth[5, 7] = 80.0
    assert write_depth_png(tmp_path / "depth.png", depth, there) == 1
    values = np.asarray(Image.open(tmp_path / "depth.png"))
    assert values.dtype == np.uint16
    assert values[0, 0] == 0
    assert values[5, 7] == 65535
    inner = there.clone()
    inner[5, 7] = False
    assert abs(values[inner.numpy()] / 1000 - depth[inner].numpy()).max() <= 0.00051


def test_arrays_come_with_their_units(tmp_path):
    motion, depth = torch.randn(3, 2, 4, 5), torch.rand(3, 4, 5)
    predictions = {"motion": motion, "log_depth": depth.log(), "background_logit": 0.5 - depth}
    for name, readout in READOUTS.items():
        write_arrays(tmp_path / f"{name}.npz", readout.arrays(predictions))
    with np.load(tmp_path / "motion.npz") as file:
        assert (file["motion"] == motion.numpy()).all()
        assert "pixels" in str(file["units"])
        assert int(file["valid_from"]) == 1
    with np.load(tmp_path / "depth.npz") as file:
        assert (file["depth"] == depth.log().exp().numpy()).all()
        assert (file["valid"] == (depth >= 0.5).numpy()).all()
        assert "metres" in str(file["units"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth.npz", "motion.npz"]
