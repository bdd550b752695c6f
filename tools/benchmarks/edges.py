"""What composing motion over two frames keeps at the edges of small moving objects, against the exact motion.

    python -m tools.benchmarks.edges                      # the table of docs/benchmarks.md; two minutes
    python -m tools.benchmarks.edges --sizes 128 --distances 3

Scenes of tools/demo_scenes, filmed from farther away so that what moves is small. The simulator's poses give the motion
between any two frames and whether a point was hidden; `compose` gets the motion and depth of single frames.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import max_pool2d

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from motion_depth.data.convention import MOVING_PIXELS
from motion_depth.data.motion import FrameMotion, compose
from tools.demo.scenes.builders import SCENES
from tools.demo.scenes.recording import CAMERAS, Recording, record
from tools.demo.scenes.render import SceneRenderer
from tools.demo.scenes.world import World

NAMES = ("ball_collide", "ball_rolls_off", "duck_and_domino", "ball_and_block_fall", "roll_behind_box", "ball_train")
FRAMES = 33  # of a scene
WRONG_PIXELS = 0.5  # a hidden point that is kept has another surface's motion if it is off by more
BANDS = ((1, 1), (2, 2), (3, 4), (5, 99))  # pixels to the nearest pixel of another body


@dataclass(frozen=True)
class Edges:
    """What was kept, of one or many frames.

    distance, kept: (n,) of every visible pixel of moving bodies: pixels to the nearest other body, and whether it is
    valid. error: (m,) pixels, of those that are valid. hidden_kept: (k,) of every pixel whose point was hidden in the
    frame between, whether it is valid. hidden_error: (k,) pixels, 0 where it is not.
    """

    distance: NDArray
    kept: NDArray
    error: NDArray
    hidden_kept: NDArray
    hidden_error: NDArray

    @staticmethod
    def together(parts: Iterable[Edges]) -> Edges:
        parts = [list(vars(part).values()) for part in parts]
        return Edges(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    @property
    def hidden_wrong(self) -> float:
        """Share of the hidden points that are valid with the motion of another surface."""
        return float((self.hidden_error > WRONG_PIXELS).mean())


def film(name: str, camera: str, distance: float, seed: int = 0) -> Recording:
    """A demo scene seen from `distance` times as far away as the demo's camera stands."""
    world = World(np.random.default_rng([seed, 0, zlib.crc32(name.encode())]))
    SCENES[name](world)
    low, high = np.array(world.view.low), np.array(world.view.high)
    middle, half = (low + high) / 2, distance * (high - low) / 2
    world.view.low, world.view.high = tuple(middle - half), tuple(middle + half)
    return record(world, FRAMES, camera)


def measure(recording: Recording, size: int, times: Iterable[int], how: Callable = compose) -> Iterator[Edges]:
    """Compose motion from frame t to frame t - 2 at some times, in pictures of size x size, and compare."""
    renderer = SceneRenderer(recording, size, size)
    for t in times:
        flows, visible = zip(*(renderer.motion(time, time - 1) for time in (t, t - 1)), strict=True)
        surfaces = [renderer.surfaces(time) for time in (t, t - 1)]
        frames = [_frame(flow, distance) for flow, (distance, _) in zip(flows, surfaces, strict=True)]
        flow, valid = (each.numpy() for each in how(frames))
        exact, still_visible = renderer.motion(t, t - 2)
        error = np.hypot(*(flow - rearrange(exact, "h w c -> c h w")))
        body = surfaces[0][1]
        moving = np.isin(body, renderer.moved_bodies(t, t - 2)) & (np.hypot(*np.moveaxis(exact, -1, 0)) > MOVING_PIXELS)
        seen = moving & visible[0] & still_visible
        end = renderer.pixels + flows[0].reshape(-1, 2)
        inside = ((end >= 0) & (end <= size - 1)).all(axis=1).reshape(size, size)
        hidden = inside & ~visible[0]
        hidden_error = np.where(valid, error, 0.0)[hidden]
        yield Edges(_to_edge(body)[seen], valid[seen], error[seen & valid], valid[hidden], hidden_error)


def _frame(flow: NDArray, distance: NDArray) -> FrameMotion:
    flow = torch.from_numpy(rearrange(flow, "h w c -> c h w").astype(np.float32))
    return FrameMotion(flow, torch.ones(flow.shape[1:], dtype=torch.bool), torch.from_numpy(distance))


def _to_edge(body: NDArray) -> NDArray:
    """Pixels to the nearest pixel of another body, along rows, columns and diagonals; at most 5. (h, w)."""
    ids: Tensor = torch.from_numpy(body.astype(np.float32))[None, None]
    distance = np.full(body.shape, 5)
    for reach in range(4, 0, -1):
        highest, lowest = (sign * max_pool2d(sign * ids, 2 * reach + 1, 1, reach)[0, 0].numpy() for sign in (1, -1))
        distance[highest != lowest] = reach
    return distance


def row(edges: Edges) -> list[str]:
    bands = [edges.kept[(edges.distance >= low) & (edges.distance <= high)] for low, high in BANDS]
    shares = [f"{kept.mean():.1%}" if len(kept) else "-" for kept in (edges.kept, *bands)]
    errors = [f"{error:.3f}" for error in np.quantile(edges.error, (0.5, 0.99))]
    hidden = [f"{share:.1%}" for share in (edges.hidden_kept.mean(), edges.hidden_wrong)]
    return [str(len(edges.kept)), *shares, *errors, str(len(edges.hidden_kept)), *hidden]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256], help="pixels along both sides")
    parser.add_argument("--distances", type=float, nargs="+", default=[1, 2.5, 4], help="of the camera; 1: the demo's")
    parser.add_argument("--times", type=int, default=5, help="frames of each scene that are compared")
    args = parser.parse_args()
    columns = ("size", "camera", "distance", "pixels", "kept", "edge", "2 px", "3-4 px", "5 px on")
    print(f"| {' | '.join((*columns, 'error p50', 'p99', 'hidden', 'kept', 'wrong'))} |")
    print("| --- " * (len(columns) + 5) + "|")
    times = np.linspace(2, FRAMES - 1, args.times).round().astype(int)
    for size in args.sizes:
        for camera in CAMERAS:
            for distance in args.distances:
                parts = [part for name in NAMES for part in measure(film(name, camera, distance), size, times)]
                cells = (str(size), camera, f"{distance:g}", *row(Edges.together(parts)))
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
