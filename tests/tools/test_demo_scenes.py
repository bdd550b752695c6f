"""The demo scenes: layout on disk, exact motion and depth, determinism, and what a second run does."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image

from motion_depth.clips.dataset import create_motion_data_operator, find_scenes
from motion_depth.data.motion import warp
from motion_depth.files.folders import MARK, MARK_TEXT
from tools.demo.make_scenes import make_scenes, parse_arguments
from tools.demo.scenes import SCENES, SceneRenderer, simulate
from tools.demo.scenes.recording import record
from tools.demo.scenes.world import BOX, View, World
from tools.demo.scenes.write import MODALITIES, SETTINGS_FILE, Job, Settings, claimed

STILL = [name for name in SCENES if name.startswith("light_on_") or name == "duck_static"]
MOVING = [name for name in SCENES if name not in STILL]
SMALL = ("--height", 32, "--width", 48, "--num_frames", 5, "--workers", 1)


def make(output: Path, *flags: object) -> None:
    make_scenes(parse_arguments(["--output", str(output), *map(str, flags)]))


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*")) if path.is_file()}


def length(flow: np.ndarray) -> np.ndarray:
    """(h,w,2) -> (h,w)"""
    return np.hypot(flow[..., 0], flow[..., 1])


# --- on disk --------------------------------------------------------------------------------------------------------


def test_layout_of_a_non_square_scene(tmp_path):
    make(tmp_path, *SMALL, "--scenes", "ball_hits_nothing")
    scene = tmp_path / "test_ball_hits_nothing/env_0/0/0"
    assert {path.name: len(list(path.iterdir())) for path in scene.iterdir()} == dict.fromkeys(MODALITIES, 5)
    renderer = SceneRenderer(simulate("ball_hits_nothing", num_frames=5), 32, 48)
    for index in range(5):
        frame = renderer.frame(index)
        picture = np.asarray(Image.open(scene / f"rgb/rgb_{index:04d}.png"))
        motion = np.load(scene / f"motion_vectors/motion_vectors_{index:04d}.npy")
        distance = np.load(scene / f"distance_to_camera/distance_to_camera_{index:04d}.npy")
        assert (picture.dtype, motion.dtype, distance.dtype) == (np.uint8, np.float32, np.float32)
        assert motion.shape == (32, 48, 4)
        assert (motion[..., 2:] == 0).all()
        assert (distance > 0).all()  # inf where there is nothing
        for written, rendered in ((picture, frame.rgb), (motion[..., :2], frame.motion), (distance, frame.distance)):
            np.testing.assert_array_equal(written, rendered)
        assert np.isfinite(motion).all()
        assert length(motion).max() > 1 if index else not motion.any()


def test_some_scenes_show_sky_and_some_do_not():
    hit = [np.isfinite(SceneRenderer(simulate(name, num_frames=2), 24, 24).frame(0).distance).mean() for name in SCENES]
    assert len(hit) == 21
    assert max(hit) == 1
    assert min(hit) < 0.9


def test_the_same_seed_gives_the_same_files_with_any_number_of_workers(tmp_path):
    scenes = ("--scenes", "ball_collide", "duck_and_domino", "--variations", 2)
    for name, flags in {"one": (), "two": ("--workers", 2), "other": ("--seed", 1)}.items():
        make(tmp_path / name, *SMALL, *scenes, *flags)
    one, two, other = (file_bytes(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert len(one) == 4 * 3 * 5 + 1
    pictures = [f"test_ball_collide/env_{number}/0/0/rgb/rgb_0002.png" for number in range(2)]
    assert len({files[name] for files in (one, other) for name in pictures}) == 4


def test_a_range_of_variations_is_what_a_longer_range_has_of_them(tmp_path):
    make(tmp_path / "all", *SMALL, "--scenes", "ball_ramp", "--variations", 3)
    make(tmp_path / "some", *SMALL, "--scenes", "ball_ramp", "--first_variation", 1, "--variations", 2)
    of_all, some = file_bytes(tmp_path / "all"), file_bytes(tmp_path / "some")
    assert some == {name: data for name, data in of_all.items() if "env_0" not in name}
    assert len(some) == 2 * 3 * 5 + 1


# --- what the scenes show -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MOVING)
def test_moving_scenes_move_throughout(name):
    for variation in range(2):
        renderer = SceneRenderer(simulate(name, variation, num_frames=33), 64, 64)
        # A quarter pixel of 64 is half a pixel at the demo's 128.
        shares = [(length(renderer.motion(index, index - 1)[0]) > 0.25).mean() for index in range(2, 33, 5)]
        assert np.mean(shares) > 0.02, shares
        assert np.mean(np.array(shares) > 0.01) > 0.6, shares


@pytest.mark.parametrize("name", STILL)
def test_still_scenes_have_exactly_no_motion(name):
    renderer = SceneRenderer(simulate(name, num_frames=5), 48, 48)
    frames = [renderer.frame(index) for index in range(5)]
    assert all((frame.motion == 0).all() for frame in frames)
    change = np.abs(frames[0].rgb.astype(int) - frames[-1].rgb.astype(int))
    if name == "duck_static":
        assert change.max() == 0
    else:
        assert (change.max(axis=2) > 8).mean() > 0.15  # the light wanders


# --- motion and depth -----------------------------------------------------------------------------------------------


def sliding_block(velocity: tuple[float, float, float]) -> World:
    """A cube of 0.4 m that flies without gravity, straight before a camera whose view is 1 m wide at its front face."""
    world = World(np.random.default_rng(0), duration=0.2, view=View((-0.5, -0.2, -0.5), (0.5, 0.2, 0.5), elevation=0.0))
    world.spec.option.gravity = [0, 0, 0]
    world.geom(world.body((0, 0, 0), velocity=velocity), BOX, (0.2, 0.2, 0.2), world.material(["plain"], 0.1))
    return world


@pytest.mark.parametrize(("velocity", "step"), [((1.0, 0, 0), (0.1, 0, 0)), ((0, 0, 1.0), (0, 0, 0.1))])
def test_motion_has_replicators_sign_and_counts_pixels_and_depth_is_the_length_of_the_ray(velocity, step):
    recording = record(sliding_block(velocity), 3, "static")
    renderer = SceneRenderer(recording, 65, 65)
    front = -recording.camera_position[0, 1] - 0.2
    frame = renderer.frame(1)
    # To the right is negative in x, upward is positive in y.
    expected = np.array([-step[0], step[2]]) * renderer.focal / front
    np.testing.assert_allclose(frame.motion[32, 32], expected, atol=1e-3)
    assert length(frame.motion)[0, 0] == 0
    assert np.isinf(frame.distance[0, 0])
    assert frame.distance[32, 32] == pytest.approx(front, rel=1e-6)
    ray = np.linalg.norm([6 / renderer.focal, 4 / renderer.focal, 1])
    assert frame.distance[36, 38] == pytest.approx(front * ray, rel=1e-6)


@pytest.mark.parametrize("name", ["ball_collide", "block_domino", "duck_falls_in_box"])
@pytest.mark.parametrize("camera", ["static", "orbit"])
def test_motion_finds_the_same_texture_in_the_frame_before(name, camera):
    renderer = SceneRenderer(simulate(name, num_frames=33, camera=camera), 96, 96)
    now, before = renderer.frame(16), renderer.frame(15)
    visible = renderer.motion(16, 15)[1] & (length(now.motion) > 0.5)
    images = torch.from_numpy(np.stack([now.rgb, before.rgb]).astype(np.float32))
    images = rearrange(images, "two h w c -> two c h w")
    flow = rearrange(torch.from_numpy(now.motion), "h w xy -> 1 xy h w")
    errors = [
        (warp(images[1:], candidate)[0] - images[:1]).abs().mean(dim=1)[0].numpy()[visible].mean()
        for candidate in (flow, torch.zeros_like(flow), -flow)
    ]
    assert visible.mean() > 0.02
    assert errors[0] < 0.6 * min(errors[1:]), errors


def test_an_orbiting_camera_moves_the_sky_by_its_turning_alone():
    recording = simulate("light_on_sculpture", num_frames=9, camera="orbit")
    renderer = SceneRenderer(recording, 48, 48)
    flow, visible = renderer.motion(5, 4)
    sky = np.isinf(renderer.frame(5).distance)
    turn = recording.camera_rotation[4] @ recording.camera_rotation[5].T
    rows, columns = np.nonzero(sky)
    ray = np.stack([(columns - 23.5) / renderer.focal, (rows - 23.5) / renderer.focal, np.ones(len(rows))])
    x, y, z = turn @ ray
    expected = np.stack([renderer.focal * x / z + 23.5 - columns, renderer.focal * y / z + 23.5 - rows], axis=1)
    assert sky.any()
    assert visible[sky].any()
    np.testing.assert_allclose(flow[sky], expected, atol=1e-6)
    assert length(flow[sky]).min() > 0.1


def test_what_appears_from_behind_a_box_was_not_visible():
    """Points of the ball that were behind the box three frames ago: their motion is known, but they were not seen."""
    renderer = SceneRenderer(simulate("roll_behind_box", num_frames=33), 64, 64)
    flow, visible = renderer.motion(27, 24)
    ball = length(flow) > 1
    rows, columns = np.nonzero(ball)
    target = np.rint(np.stack([rows, columns], axis=1) + flow[ball][:, ::-1]).astype(int)
    nearer = renderer.frame(27).distance[ball] - renderer.frame(24).distance[target[:, 0], target[:, 1]]
    seen = visible[ball]
    assert seen.sum() > 20
    assert (~seen).sum() > 20
    assert (np.abs(nearer[seen]) < 0.4).mean() > 0.95  # the ball itself; a nearest pixel may fall off its rim
    assert (nearer[~seen] > 0.15).mean() > 0.95  # the box


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize(
    ("name", "camera"), [("ball_hits_duck", "static"), ("ball_ramp", "orbit"), ("domino_in_juice", "static")]
)
def test_composed_motion_of_a_strided_clip_is_the_exact_motion(tmp_path, name, camera, stride):
    size, num_frames = 96, 25
    flags = ("--height", size, "--width", size, "--num_frames", num_frames, "--workers", 1)
    make(tmp_path, *flags, "--scenes", name, "--camera", camera)
    operator = create_motion_data_operator(tmp_path, height=size, width=size, num_frames=9, frame_stride=stride)
    clip = operator(f"test_{name}/env_0/0/0")
    renderer = SceneRenderer(simulate(name, num_frames=num_frames, camera=camera), size, size)
    frame_ids = clip.frame_ids.tolist()
    assert np.diff(frame_ids).tolist() == [stride] * 8
    errors, moving_errors, kept, seen = [], [], 0, 0
    for position in range(1, 9):
        exact, visible = renderer.motion(frame_ids[position], frame_ids[position - 1])
        visible &= clip.depth_valid[position].numpy()  # where nothing is, motion counts only while the camera rests
        found = rearrange(clip.motion[position].numpy(), "xy h w -> h w xy")
        valid = clip.motion_valid[position].numpy()
        moving = visible & (length(exact) > 0.5)
        errors.append(length(found - exact)[visible & valid])
        moving_errors.append(length(found - exact)[moving & valid])
        kept, seen = kept + (moving & valid).sum(), seen + moving.sum()
        assert valid[visible].mean() > 0.9
    assert np.percentile(np.concatenate(errors), 99) < 0.1  # pixels
    assert np.percentile(np.concatenate(moving_errors), 99) < 0.2
    assert kept / seen > 0.7  # declaring everything invalid would be no answer


# --- running again, and mistakes ------------------------------------------------------------------------------------


def test_a_second_run_adds_what_is_missing_and_keeps_the_rest(tmp_path, capsys):
    make(tmp_path, *SMALL, "--scenes", "ball_collide")
    kept = tmp_path / "test_ball_collide/env_0"
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*")}
    leftover = tmp_path / "test_ball_collide/.env_1.01234567.partial"
    (leftover / "new/0/0/rgb.partial").mkdir(parents=True)
    (leftover / MARK).write_bytes(MARK_TEXT)
    capsys.readouterr()
    make(tmp_path, *SMALL, "--scenes", "ball_collide", "--variations", 2)
    assert "1 of 2 scenes are in" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*")} == before
    assert len(list((tmp_path / "test_ball_collide/env_1/0/0/rgb").iterdir())) == 5
    assert not leftover.exists()


def test_a_run_that_dies_leaves_no_scene(tmp_path, monkeypatch):
    real, count = np.save, []

    def failing_save(*arguments):
        count.append(1)
        if len(count) > 3:
            raise OSError("disk full")
        real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(np, "save", failing_save)
        make(tmp_path, *SMALL, "--scenes", "ball_ramp")
    assert not Job("ball_ramp", 0).folder(tmp_path).exists()
    assert find_scenes(tmp_path) == []
    make(tmp_path, *SMALL, "--scenes", "ball_ramp")
    assert [path.name for path in (tmp_path / "test_ball_ramp").iterdir()] == ["env_0"]


def test_scenes_of_other_settings_are_never_mixed_and_two_runs_never_meet(tmp_path):
    def refused(message: str, *flags: object) -> None:
        with pytest.raises(ValueError, match=message):
            make(tmp_path, *SMALL, *flags, "--scenes", "ball_collide")

    make(tmp_path, *SMALL, "--scenes", "ball_ramp")
    refused(r"made with --height 32 \(now 64\), --seed 0 \(now 3\)", "--height", 64, "--seed", 3)
    settings = Settings(**json.loads((tmp_path / SETTINGS_FILE).read_text()))
    with claimed(tmp_path, settings):
        refused("another run is writing")
    (tmp_path / SETTINGS_FILE).write_text("{")
    refused(f"{SETTINGS_FILE} is not readable as JSON")
    (tmp_path / SETTINGS_FILE).write_text("[]")
    refused("made with unknown settings")
    (tmp_path / SETTINGS_FILE).unlink()
    refused("another tool made them")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--scenes", "ball_colide"), "no scene 'ball_colide'; did you mean ball_collide?"),
        (("--scenes", "zebra"), "no scene 'zebra'; expected all, or some of: ball_and_block_fall"),
        (("--height", 8), "--height is 8; expected at least 16"),
        (("--num_frames", 1), "--num_frames is 1; expected at least 2"),
        (("--variations", 0), "--variations is 0; expected at least 1"),
        (("--first_variation", -1), "--first_variation is -1; expected at least 0"),
        (("--height", 100000, "--width", 100000), "GB left; make fewer"),
        (("--output", __file__), "is a file; expected a folder"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(tmp_path, flags, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(tmp_path / "out", *SMALL, *flags)
    assert not list((tmp_path / "out").glob("test_*"))
