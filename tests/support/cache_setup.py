"""What the tests of the cache share: scenes, files that stand for a model, a cache's folder, and a fake encoder."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import torch
from torch import Tensor

from motion_depth.cache.cached import ClipCache, Missing
from motion_depth.cache.encode import encode_missing
from motion_depth.cache.packing import Packer, assemble
from motion_depth.clips.dataset import MotionDepthDataset
from motion_depth.model.backbone import Encoder
from motion_depth.model.weights import WanFiles
from motion_depth.readouts.targets import Targets
from tests.support.scene_files import make_operator, plain_scene

ROWS = "video,prompt\nball,A ball.\nramp,A ramp.\n"
CLIPS = 8  # two scenes of 12 frames; clips of 5 frames with stride 2 leave four windows in each


class FakeEncoder(Encoder):
    """Encodes without a model: every tensor is a function of what it is made of. Counts, and can be interrupted."""

    def __init__(self, dtype: torch.dtype = torch.bfloat16, stop_after: int | None = None):
        self.dtype, self.stop_after, self.clips, self.prompts = dtype, stop_after, 0, 0

    def frames(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        if self.clips == self.stop_after:
            raise KeyboardInterrupt
        self.clips += 1
        seed = int.from_bytes(hashlib.sha256(frames.numpy()).digest()[:7], "big")
        latents = torch.randn(1, 4, 2, 4, 6, generator=torch.Generator().manual_seed(seed)).to(self.dtype)
        return latents, latents[:, :, :1]

    def prompt(self, prompt: str) -> Tensor:
        self.prompts += 1
        return torch.tensor([[float(ord(letter))] for letter in prompt], dtype=self.dtype)


class CacheSetup:
    """Two plain scenes, a CSV, files that stand for a model's, and an empty cache's folder."""

    def __init__(self, root: Path):
        self._at(root)
        for scene in ("ball", "ramp"):
            plain_scene(self.data / scene, size=(32, 64))
        self.csv.write_text(ROWS)
        (self.model / "tokenizer").mkdir(parents=True)
        for name in ("dit", "text_encoder", "vae", "tokenizer/tokenizer.json"):
            (self.model / name).write_text(name)

    def _at(self, root: Path) -> None:
        self.root, self.settings, self.order, self.dtype = root, {"height": 32, "width": 64}, {}, torch.bfloat16
        self.data, self.csv, self.model, self.folder = root / "data", root / "my.csv", root / "model", root / "cache"

    def copy(self, root: Path) -> CacheSetup:
        """The same files in another place; their entries hold there as well."""
        shutil.copytree(self.root, root)
        copy = CacheSetup.__new__(CacheSetup)
        copy._at(root)
        return copy

    def files_of_model(self) -> WanFiles:
        parts = {part: [self.model / part] for part in ("dit", "text_encoder", "vae")}
        return WanFiles(**parts, tokenizer=self.model / "tokenizer")

    def job(self) -> ClipCache:
        """As a new job would make it."""
        dataset = MotionDepthDataset(self.data, self.csv, make_operator(self.data, **self.settings), **self.order)
        files = self.files_of_model()
        return ClipCache(self.folder, dataset, files.identity(), self.dtype)

    def missing(self) -> Missing:
        return self.job().missing(range(100))

    def encode(self, encoder: FakeEncoder | None = None, **settings) -> FakeEncoder:
        """Fills the cache as a new job would."""
        encoder, job = encoder or FakeEncoder(self.dtype), self.job()
        encode_missing(job, job.missing(range(100)), encoder, progress=False, **settings)
        return encoder

    def empty(self) -> CacheSetup:
        shutil.rmtree(self.folder)
        return self

    def files(self, pattern: str = "*.safetensors") -> list[Path]:
        return sorted(self.folder.rglob(pattern))


def pack_alone(targets: Targets) -> dict[str, Tensor]:
    """What an entry holds of the unbatched targets of a clip that shares nothing with others."""
    packer, count = Packer(), len(next(targets.tensors()))
    return assemble(packer.add([targets.each(lambda value, t=t: value[t]) for t in range(count)]), packer.pieces)


def same_targets(one: Targets, other: Targets) -> bool:
    pairs = zip(one.tensors(), other.tensors(), strict=True)
    return list(one) == list(other) and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def touch(path: Path) -> None:
    """Another time of modification, the same content."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))


def alter(path: Path) -> None:
    """One byte in the middle is another one; size and time of modification stay."""
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def rename(path: Path) -> None:
    path.rename(path.with_name(f"again_{path.name}"))


def grow(path: Path) -> None:
    """Adds a byte; the time of modification stays."""
    stat = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
