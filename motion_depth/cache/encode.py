"""Fills the cache: reads what is missing in loader processes, encodes it here, and puts whole files in place."""

from __future__ import annotations

import contextlib
import errno
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from motion_depth.cache.cached import ClipCache, Missing, clip_files
from motion_depth.cache.entries import BEGINS, Entry
from motion_depth.cache.packing import pack_maps
from motion_depth.clips.batch import pack_targets
from motion_depth.clips.dataset import LoadError, raise_load_errors
from motion_depth.files.atomic import left_behind
from motion_depth.files.digests import KEPT_BEGINS
from motion_depth.model.backbone import Encoder
from motion_depth.progress import ProgressBar

ABANDONED_AFTER = 3600  # seconds; an unfinished file this old belongs to a job that was killed


def encode_missing(
    cache: ClipCache,
    missing: Missing,
    encoder: Encoder,
    rank: int = 0,
    processes: int = 1,
    workers: int = 0,
    progress: bool = True,
) -> None:
    """Encodes all prompts and this process's share of the clips; what another job has put there meanwhile is kept.

    Stopped at any moment, it leaves whole files, and the next call goes on from there.

    Args:
        missing: its clips are the same on all processes. Prompts are few: give them to one of the processes.
        rank, processes: of this process, and how many divide the clips.
        workers: loader processes; 0 reads in this one.
        progress: whether to show a bar with the time left, of this process's share.

    Raises:
        ValueError: a clip cannot be read, its files changed meanwhile, or the folder or the disk takes no more.
    """
    prompts, clips = missing.prompts, _share(missing.clips, rank, processes)
    loader = DataLoader(
        _Unencoded(cache, _rotated(clips)),
        batch_size=1,
        num_workers=workers,
        collate_fn=list,
        prefetch_factor=2 if workers else None,
    )
    _remove_abandoned(cache.folder)
    total, unit = len(prompts) + len(clips), "clip" if clips else "prompt"
    with ProgressBar(total=total, desc="encoding", unit=unit, disable=not progress or not total) as bar:
        for done, prompt in enumerate(prompts):
            entry = cache.context_entry(prompt)
            if entry.stale():
                left = len(prompts) - done
                _put(cache, entry, {"context": encoder.prompt(prompt)}, left)
            bar.update()
        for done, (clip,) in enumerate(loader):
            raise_load_errors([clip])
            cache.known[clip.scene, clip.window] = clip.files
            if clip.frames is not None:
                latents, first = encoder.frames(clip.frames[None])
                tensors = {"latents": latents[0], "first": first[0], **clip.packed}
                left = (len(clips) - done) * processes
                _put(cache, cache.clip_entry(clip.scene, clip.window), tensors, left)
            bar.update()


@dataclass
class _ReadClip:
    """A clip that has been read: frames (t, h, w, 3) uint8, and the tensors of its entry that need no model.

    files: the digest of its files. frames is None if the entry is there by now.
    """

    scene: str
    window: int
    files: str
    frames: Tensor | None
    packed: dict[str, Tensor]


class _Unencoded(Dataset):
    """Clips to be encoded, each as a `_ReadClip` or a LoadError."""

    def __init__(self, cache: ClipCache, clips: Sequence[tuple[str, int]]):
        self.cache, self.clips = cache, clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, number: int) -> _ReadClip | LoadError:
        scene, window = self.clips[number]
        try:
            files = self.cache.files_digest(scene, window)
            if self.cache.clip_entry(scene, window).stale() is None:
                return _ReadClip(scene, window, files, None, {})
            return _ReadClip(scene, window, files, *self._read(scene, window))
        except ValueError as error:
            return LoadError(f"scene {scene}, window {window}: {error}")

    def _read(self, scene: str, window: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Reads a clip, and makes sure that its files are still those that its key was made from."""
        operator = self.cache.operator
        clip = operator((scene, window))
        self.cache.files(scene).require_unchanged(clip_files(operator, scene, window))
        return clip.frames, {**pack_maps(pack_targets(clip)), "shape": torch.tensor(clip.depth.shape)}


def _share(items: Sequence[object], rank: int, processes: int) -> Sequence[object]:
    """Neighbours stay together: windows of a scene read the same files."""
    return items[len(items) * rank // processes : len(items) * (rank + 1) // processes]


def _rotated(items: Sequence[object]) -> Sequence[object]:
    """Begins somewhere else each time, so that two jobs that fill one cache divide the work."""
    start = random.SystemRandom().randrange(len(items)) if items else 0
    return [*items[start:], *items[:start]]


def _put(cache: ClipCache, entry: Entry, tensors: dict[str, Tensor], left: int) -> None:
    """Writes an entry. Raises ValueError if it, or the `left` entries like it (itself included), will not fit."""
    folder = cache.folder
    if wrong := {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} - {cache.dtype}:
        raise ValueError(f"encoder: found {wrong.pop()}, expected the cache's {cache.dtype}")
    needed = left * sum(tensor.nbytes for tensor in tensors.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(folder).free) < needed:
            raise ValueError(_full(folder, needed, free))
        entry.write(tensors)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ValueError(_full(folder, needed, 0)) from None
        raise ValueError(f"--cache_path {folder}: cannot be written ({error})") from None


def _full(folder: Path, needed: int, free: int) -> str:
    return (
        f"--cache_path {folder}: no room, found {free / 1e9:.3f} GB free (or left of your quota), expected about "
        f"{needed / 1e9:.3f} GB; make room or choose another folder, what is encoded already is kept"
    )


def _remove_abandoned(folder: Path) -> None:
    """Deletes what killed jobs left unfinished: what has our names, our first bytes, and no one who writes it."""
    for path in (*folder.rglob(".*.safetensors"), *folder.glob("files/.*.json")):
        with contextlib.suppress(OSError):  # another job finished or removed it, or writes it
            old = time.time() - path.lstat().st_mtime > ABANDONED_AFTER
            if old and left_behind(path, KEPT_BEGINS if path.suffix == ".json" else BEGINS):
                path.unlink()
