"""Rendering what changes gives what casting every ray at everything gives."""

import numpy as np
import pytest

from tools.demo.scenes import CAMERAS, SCENES, SPEEDING, SceneRenderer, simulate
from tools.demo.scenes.casting import Geoms
from tools.demo.scenes.render import EDGE_SAMPLES, contrast_edges

SIZE = 40


def picture_of_everything(renderer: SceneRenderer, index: int) -> np.ndarray:
    """(h,w,3) uint8"""
    camera, caster, shader = renderer.camera, renderer.caster, renderer.shader

    def colors(pixels: np.ndarray) -> np.ndarray:
        hits = caster.cast(index, camera.position(index), camera.directions(index, pixels))
        return shader.light(index, shader.surfaces(index, hits)).color

    picture = colors(renderer.pixels)
    edges = np.flatnonzero(contrast_edges(camera.image(picture)))
    picture[:, edges] = sum(colors(renderer.pixels[edges] + offset) for offset in EDGE_SAMPLES) / len(EDGE_SAMPLES)
    return camera.image(np.round(255 * picture.T).astype(np.uint8))


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("name", [*SCENES, *SPEEDING])
def test_a_frame_is_what_casting_everything_gives(name, camera):
    renderer = SceneRenderer(simulate(name, num_frames=9, camera=camera), SIZE, SIZE)
    for index in (0, 4, 5, 8):
        frame = renderer.frame(index)
        distance = renderer.surfaces(index)[0]
        np.testing.assert_array_equal(np.where(np.isinf(frame.distance), 0, frame.distance), distance)
        if index:
            np.testing.assert_allclose(frame.motion, renderer.motion(index, index - 1)[0], rtol=1e-6, atol=1e-9)
        difference = np.abs(frame.rgb.astype(int) - picture_of_everything(renderer, index)).max(axis=2)
        # At slivers of what moves, thinner than a pixel, a sample may see what no pixel's centre did.
        assert (difference > 1).mean() < 0.01, f"frame {index}"


@pytest.mark.parametrize("name", ["ball_hits_duck", "light_on_mug"])
def test_a_frame_does_not_depend_on_those_rendered_before_it(name):
    recording = simulate(name, num_frames=9)
    first, second = (SceneRenderer(recording, SIZE, SIZE) for _ in range(2))
    forwards, backwards = ({i: each.frame(i) for i in order} for each, order in ((first, (2, 7)), (second, (7, 2))))
    for index, frame in forwards.items():
        for name, values in vars(frame).items():
            np.testing.assert_array_equal(values, getattr(backwards[index], name))


def test_light_and_bodies_that_move_together_are_lit_anew():
    recording = simulate("ball_collide", num_frames=9)
    recording.light_position[:] += np.linspace(0, 1, 9)[:, None]
    renderer = SceneRenderer(recording, SIZE, SIZE)
    for index in (3, 4):
        np.testing.assert_allclose(renderer.frame(index).rgb, picture_of_everything(renderer, index), atol=1)


def test_no_ray_that_hits_what_moves_is_left_out():
    renderer = SceneRenderer(simulate("duck_and_domino", num_frames=9), SIZE, SIZE)
    position, directions = renderer.camera.position(5), renderer.camera.directions(5, renderer.pixels)
    hit = renderer.caster.cast(5, position, directions, Geoms.MOVING).geom >= 0
    near = renderer.caster.near_moving(5, position, directions.T.astype(np.float32))
    assert hit.mean() > 0.02
    assert (near | ~hit).all()
    assert near.mean() < 0.6
    inside = renderer.caster.pose(5).geom_xpos[-1]
    assert renderer.caster.near_moving(5, inside, directions.T.astype(np.float32)).all()
