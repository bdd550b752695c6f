"""Reading one file: damaged ones, pictures, distances, motion."""

import numpy as np
import pytest
from PIL import Image

from motion_depth.data.arrays import read_npy, read_picture
from motion_depth.data.scene import FAR_DEPTH, NEAR_DEPTH
from tests.data.test_scene import one_array


@pytest.mark.parametrize("suffix", ["png", "jpg", "npy"])
def test_a_file_cut_or_damaged_anywhere_is_never_another_kind_of_error(tmp_path, suffix):
    rng = np.random.default_rng(0)
    path = tmp_path / f"0001.{suffix}"
    if suffix == "npy":
        np.save(path, rng.random((20, 30), np.float32))
    else:
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    read = read_npy if suffix == "npy" else read_picture
    read(path)
    errors = []
    for end in [*range(0, 200, 3), *rng.integers(200, len(whole), 100)]:
        damaged = bytearray(whole)
        damaged[end : end + 4] = rng.bytes(4)
        for content in (whole[:end], bytes(damaged)):
            path.write_bytes(content)
            try:
                read(path)
            except ValueError as error:
                errors.append(str(error))
    assert len(errors) >= 160  # nearly all that are cut; damaged values need not show
    assert all(error.startswith(f"{path}: ") for error in errors)


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
def test_pictures_of_other_modes_become_rgb(tmp_path, monkeypatch, fast):
    if not fast:
        monkeypatch.setattr("motion_depth.data.arrays.kornia_rs", None)
    rgb = np.random.default_rng(0).integers(0, 255, (5, 6, 3), np.uint8)
    grey = Image.fromarray(rgb[..., 0])
    for mode, image in {
        "RGB": Image.fromarray(rgb),
        "L": grey,
        "RGBA": Image.fromarray(np.dstack([rgb, rgb[..., :1]])),
        "P": grey.convert("P"),
    }.items():
        image.save(tmp_path / f"{mode}.png")
        expected = rgb if mode.startswith("RGB") else np.dstack([rgb[..., 0]] * 3)
        np.testing.assert_array_equal(read_picture(tmp_path / f"{mode}.png"), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("channel", [False, True])
def test_depth_where_nothing_is_becomes_zero(tmp_path, dtype, channel):
    depth = np.array([[1.5, np.inf, np.nan], [0.0, -2.0, -np.inf]], dtype)
    found = one_array(tmp_path, depth[..., None] if channel else depth).depth(1)
    assert found.dtype == np.float32
    assert found.tolist() == [[1.5, 0.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.filterwarnings("error")
def test_a_float64_beyond_float32_is_nothing_there(tmp_path):
    assert one_array(tmp_path, np.array([[1e300, 2.0]])).depth(1).tolist() == [[0.0, 2.0]]


def test_the_nearest_and_the_farthest_distance_survive_float16(tmp_path):
    """A renderer's 1e10 for the sky is nothing; so is what float16 would make 0 or leave without digits."""
    near, far = np.float32(NEAR_DEPTH), np.float32(FAR_DEPTH)
    below_near, below_far = np.nextafter(near, np.float32(0)), np.nextafter(far, np.float32(0))
    written = np.array([[near, below_far, below_near, far], [1e-10, 1e-4, 1e10, 1.18e10]], np.float32)
    found = one_array(tmp_path, written).depth(1)
    np.testing.assert_array_equal(found, [[near, below_far, 0, 0], [0, np.float32(1e-4), 0, 0]])
    kept = found[found > 0]
    np.testing.assert_allclose(kept.astype(np.float16).astype(np.float32), kept, rtol=2**-10)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_motion_keeps_the_first_two_channels(tmp_path, channels):
    motion = np.random.default_rng(0).random((3, 4, channels))
    found = one_array(tmp_path, np.asfortranarray(motion)).motion(1)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, motion[..., :2].astype(np.float32))
