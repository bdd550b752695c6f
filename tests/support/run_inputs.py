"""A complete set of inputs for the training script, with a finished run, and ways to change one thing of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from motion_depth.training.validation import Validation
from tests.support.inprocess import must_train
from tests.support.scene_files import plain_scene

HEADS, DIT = "motion_head.safetensors", "diffusion_pytorch_model.safetensors"
FRAME = "{:04d}"


@dataclass
class Inputs:
    """A complete set of inputs in a folder: scenes `a` and `b`, a CSV, a model, a finished run; and the flags."""

    root: Path
    flags: dict[str, object] = field(default_factory=dict)

    def __post_init__(self):
        self.data, self.csv, self.model = self.root / "data", self.root / "my.csv", self.root / "model"
        self.runs, self.out, self.cache = self.root / "runs", self.root / "out", self.root / "cache"
        self.flags = {
            "stage": 1, "dataset_base_path": self.data, "dataset_metadata_path": self.csv,
            "model_base_path": self.model, "height": 64, "width": 64, "num_frames": 5, "head_size": "small",
            "mixed_precision": "no", "dataset_num_workers": 0, "gradient_accumulation_steps": 1, "max_steps": 2,
            "save_steps": 1, "output_path": self.out, "resume": "none",
        }  # fmt: skip

    def argv(self, **changes: object) -> list[object]:
        given = {name: value for name, value in (self.flags | changes).items() if value is not None}
        return [
            word for name, value in given.items() for word in ([f"--{name}", value] if value != "" else [f"--{name}"])
        ]

    def copy(self, root: Path) -> Inputs:
        shutil.copytree(self.root, root)
        return Inputs(root)

    def file(self, kind: str, frame: int, scene: str = "a") -> Path:
        name = {"rgb": "step_{}.png", "motion_vectors": "motion_vectors_{}.npy", "distance_to_camera": "{}.npy"}[kind]
        return self.data / scene / kind / name.format(FRAME.format(frame))

    def resume(self, step: int = 2) -> Path:
        """Makes the call go on from a finished run; returns its step folder."""
        self.flags |= {"output_path": self.runs, "resume": "auto"}
        return self.runs / f"step-{step}"


def break_run(damage: Callable[[Path], None], everywhere: bool = True) -> Callable[[Inputs], None]:
    """Damages the step folders of a run that the call then wants to go on from."""

    def change(inputs: Inputs) -> None:
        for step in (1, 2) if everywhere else (2,):
            damage(inputs.resume(step))

    return change


def break_final(damage: Callable[[Path], None]) -> Callable[[Inputs], None]:
    """Damages the checkpoint that the heads start from."""

    def change(inputs: Inputs) -> None:
        inputs.flags |= {"heads_checkpoint": inputs.runs / "final", "head_size": None}
        damage(inputs.runs / "final")

    return change


def resume_after(change: Callable[[Inputs], None]) -> Callable[[Inputs], None]:
    """Changes something that a run was made from, and then wants to go on with the run."""
    return lambda inputs: (inputs.resume(), change(inputs))[1]


def flags(**changes: object) -> Callable[[Inputs], None]:
    return lambda inputs: inputs.flags.update(changes)


def write(name: str, text: str) -> Callable[[Inputs], None]:
    return lambda inputs: (inputs.root / name).write_text(text) and None


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def cut(path: Path, size: int = 40) -> None:
    path.write_bytes(path.read_bytes()[:size])


def flip(path: Path) -> None:
    """Another value in the last byte; size and name stay."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def with_manifest(folder: Path, change: Callable[[], None]) -> None:
    """Changes a file and corrects the manifest: a checkpoint that is whole, and wrong."""
    change()
    manifest = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in folder.iterdir()
        if path.name != "manifest.json"
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def edit_in(path: Path, part: str, **changes: object) -> None:
    edit_json(path, **{part: json.loads(path.read_text())[part] | changes})


def other_weights(path: Path) -> None:
    """Another value in one tensor; names and shapes stay."""
    tensors = load_file(path)
    name = min(tensors)
    save_file(tensors | {name: tensors[name] + 1}, path)


def other_motion(inputs: Inputs) -> None:
    """Of the other direction, in files of the same names and sizes."""
    for path in sorted((inputs.data / "b/motion_vectors").iterdir())[1:]:
        np.save(path, -np.load(path))


def plain_flags(root: Path, tiny_wan: Path) -> list[object]:
    """Writes scenes `a` and `b` and their CSV into a folder; flags of small clips of them, and of the model."""
    for scene in ("a", "b"):
        plain_scene(root / "data" / scene)
    (root / "my.csv").write_text("video,prompt\na,A ball.\nb,A ramp.\n")
    return [
        *("--dataset_base_path", root / "data", "--dataset_metadata_path", root / "my.csv"),
        *("--model_base_path", tiny_wan, "--height", 64, "--width", 64, "--num_frames", 5, "--mixed_precision", "no"),
        *("--dataset_num_workers", 0),
    ]


def validated_flags(root: Path, tiny_wan: Path) -> list[object]:
    """Flags of a stage-1 run of eight iterations on `plain_flags`, validated on a third scene every second."""
    flags = plain_flags(root, tiny_wan)
    plain_scene(root / "data/c")
    (root / "val.csv").write_text("video,prompt\nc,A cube.\n")
    return [
        *("--stage", 1, *flags, "--head_size", "small", "--gradient_accumulation_steps", 1),
        *("--val_metadata_path", root / "val.csv", "--val_steps", 2, "--save_steps", 0, "--max_steps", 8),
    ]


def later_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every validation of a run has a better score than those before."""
    real = Validation.score
    monkeypatch.setattr(Validation, "score", lambda *a: real(*a) | {"score": 1 / (1 + a[1])})


def finished_run(root: Path, tiny_wan: Path) -> Inputs:
    """Inputs in a folder, and a stage-1 run of two iterations on them."""
    plain_flags(root, tiny_wan)
    shutil.copytree(tiny_wan, root / "model")
    inputs = Inputs(root)
    must_train(*inputs.argv(output_path=inputs.runs))
    return inputs
