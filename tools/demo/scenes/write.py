"""Writes scenes as Sim_Physics lays them out: OUTPUT/test_<name>/env_<n>/0/0/{rgb,motion_vectors,distance_to_camera}.

A scene appears under its name only when it is complete, an existing one is never written again, and OUTPUT remembers
the settings that its scenes were made with, so that one folder never mixes sizes or seeds.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from motion_depth.files.folders import clear_leftovers, complete_folder

from .recording import simulate
from .render import SceneRenderer

MODALITIES = ("rgb", "motion_vectors", "distance_to_camera")
SETTINGS_FILE = "demo_scenes.json"
# How motion and depth are stored: the type, and motion's channels, of which Replicator writes four and uses two.
STORES = {"full": (np.float32, 4), "half": (np.float16, 2)}


@dataclass(frozen=True)
class Settings:
    """What every scene of one output folder has in common."""

    height: int
    width: int
    num_frames: int
    seed: int
    camera: str
    store: str = "full"

    @property
    def bytes_per_pixel(self) -> int:
        """Motion, depth and an uncompressed picture: what a pixel takes on disk at most."""
        dtype, channels = STORES[self.store]
        return np.dtype(dtype).itemsize * (channels + 1) + 3


@dataclass(frozen=True)
class Job:
    """One scene to make."""

    name: str
    variation: int

    def folder(self, output: Path) -> Path:
        return output / f"test_{self.name}" / f"env_{self.variation}"


@contextmanager
def claimed(output: Path, settings: Settings) -> Iterator[None]:
    """Holds OUTPUT for one run. ValueError if another run writes there or its scenes have other settings."""
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output} is a file; expected a folder, which may be new")
    output.mkdir(parents=True, exist_ok=True)
    path = output / SETTINGS_FILE
    other = "choose another --output"
    if not path.exists() and any(output.glob("test_*/env_*")):
        raise ValueError(f"{output} holds scenes but no {SETTINGS_FILE}: another tool made them; {other}")
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another run is writing scenes to {output}; wait for it or {other}") from None
        file.seek(0)
        if text := file.read():
            _require_same(path, text, asdict(settings))
        else:
            file.write(json.dumps(asdict(settings), indent=2) + "\n")
            file.flush()
        yield


def _require_same(path: Path, text: str, wanted: dict) -> None:
    other = "choose another --output"
    try:
        known = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not readable as JSON ({error}); delete the folder or {other}") from None
    known = {"store": "full"} | known if isinstance(known, dict) else {}  # older folders do not say how they store
    if known != wanted:
        differ = [name for name in sorted({*known, *wanted}) if known.get(name) != wanted.get(name)]
        changes = [f"--{name} {known.get(name)} (now {wanted.get(name)})" for name in differ if known]
        raise ValueError(
            f"{path.parent} holds scenes made with {', '.join(changes) or 'unknown settings'}; "
            f"repeat those settings to add to it, or {other}"
        )


def missing(output: Path, jobs: Sequence[Job]) -> list[Job]:
    """The jobs that OUTPUT lacks. Removes what a killed run left half done; call it inside `claimed`."""
    for parent in {job.folder(output).parent for job in jobs}:
        clear_leftovers(parent)
    return [job for job in jobs if not job.folder(output).exists()]


def require_space(output: Path, settings: Settings, count: int) -> int:
    """Bytes that `count` scenes take. ValueError if the disk has less."""
    needed = count * settings.num_frames * settings.height * settings.width * settings.bytes_per_pixel
    free = shutil.disk_usage(output).free
    if needed > free:
        raise ValueError(
            f"{count} scenes need {needed / 1e9:.1f} GB, and {output} has {free / 1e9:.1f} GB left; make fewer"
        )
    return needed


def write_scene(output: Path, job: Job, settings: Settings) -> None:
    """Simulates, renders and writes one scene; the folder takes its name when the last file is written."""
    recording = simulate(
        job.name, job.variation, seed=settings.seed, num_frames=settings.num_frames, camera=settings.camera
    )
    renderer, (dtype, channels) = SceneRenderer(recording, settings.height, settings.width), STORES[settings.store]
    with complete_folder(job.folder(output)) as draft:
        # Until all is written, the folders have other names too: nobody who searches for scenes finds half a one.
        places = {kind: draft / "0" / "0" / f"{kind}.partial" for kind in MODALITIES}
        for place in places.values():
            place.mkdir(parents=True)
        for index in range(settings.num_frames):
            frame = renderer.frame(index)
            motion = np.zeros((*frame.motion.shape[:2], channels), dtype)
            # Replicator's x and y count movement to the left and to the top: the backward flow in image coordinates.
            motion[..., :2] = frame.motion
            # Level 3 would make them 6 % smaller and take a third longer.
            Image.fromarray(frame.rgb).save(places["rgb"] / f"rgb_{index:04d}.png", compress_level=1)
            np.save(places["motion_vectors"] / f"motion_vectors_{index:04d}.npy", motion)
            np.save(places["distance_to_camera"] / f"distance_to_camera_{index:04d}.npy", frame.distance.astype(dtype))
        for kind, place in places.items():
            place.rename(place.with_name(kind))
