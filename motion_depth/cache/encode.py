"""Fills the cache: reads what is missing in loader processes, encodes it here, and puts whole files in place."""

from __future__ import annotations

import contextlib
import errno
import random
import shutil
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from motion_depth.cache.cached import ClipCache, Missing, clip_files
from motion_depth.cache.entries import BEGINS, Entry
from motion_depth.cache.packing import Packed, Packer, assemble
from motion_depth.clips.dataset import LoadError, raise_load_errors
from motion_depth.clips.overlapping import group_overlapping, in_order_of_overlap, read_overlapping
from motion_depth.files.atomic import left_behind
from motion_depth.files.digests import KEPT_BEGINS
from motion_depth.model.backbone import Encoder
from motion_depth.progress import ProgressBar

WAITING = 8  # entries that may wait to be written
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
    prompts = missing.prompts
    clips = _share(in_order_of_overlap(cache.operator, missing.clips), rank, processes)
    loader = DataLoader(
        _Unencoded(cache, _rotated(group_overlapping(cache.operator, clips))),
        batch_size=1,
        num_workers=workers,
        collate_fn=list,
        prefetch_factor=1 if workers else None,  # one is many clips
    )
    _remove_abandoned(cache.folder)
    total, unit = len(prompts) + len(clips), "clip" if clips else "prompt"
    with (
        ProgressBar(total=total, desc="encoding", unit=unit, disable=not progress or not total) as bar,
        _Writer(cache) as writer,
    ):
        for done, prompt in enumerate(prompts):
            entry = cache.context_entry(prompt)
            if entry.stale():
                writer.put(entry, {"context": encoder.prompt(prompt)}, len(prompts) - done)
            bar.update()
        left = len(clips)
        for (group,) in loader:
            raise_load_errors([group])
            cache.known.update(group.files)
            there = len(group.files) - len(group.packed)
            bar.update(there)
            left -= there
            encoded = encoder.windows(group.frames, group.starts, cache.operator.num_frames) if group.packed else ()
            for (clip, packed), (latents, first) in zip(group.packed.items(), encoded, strict=True):
                tensors = {"latents": latents[0], "first": first[0], **assemble(packed, group.pieces)}
                tensors["shape"] = torch.tensor(group.shape)
                writer.put(cache.clip_entry(*clip), tensors, left * processes)
                bar.update()
                left -= 1


@dataclass
class _ReadGroup:
    """Clips of one scene that have been read.

    Attributes:
        files: of each clip the digest of its files.
        packed: of each whose entry is not there by now its targets, from `pieces` (packing.py), in the order of starts.
        frames: (n, h, w, 3) uint8 of these.
        starts: of each of these the place of its first frame.
        shape: (t, h, w) of a clip.
    """

    files: dict[tuple[str, int], str]
    packed: dict[tuple[str, int], Packed] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    frames: Tensor | None = None
    starts: list[int] = field(default_factory=list)
    shape: tuple[int, ...] = ()


class _Unencoded(Dataset):
    """Groups of clips (scene, windows) to be encoded, each as a `_ReadGroup` or a LoadError."""

    def __init__(self, cache: ClipCache, groups: Sequence[tuple[str, list[int]]]):
        self.cache, self.groups = cache, groups

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> _ReadGroup | LoadError:
        scene, windows = self.groups[number]
        try:
            files = {(scene, window): self.cache.files_digest(scene, window) for window in windows}
            left = [window for window in windows if self.cache.clip_entry(scene, window).stale()]
            return self._read(scene, left, files) if left else _ReadGroup(files)
        except ValueError as error:
            return LoadError(f"scene {scene}, windows {windows[0]} to {windows[-1]}: {error}")

    def _read(self, scene: str, windows: list[int], files: dict[tuple[str, int], str]) -> _ReadGroup:
        """Reads clips, and makes sure that their files are still those that their keys were made from."""
        operator, packer = self.cache.operator, Packer()
        read = read_overlapping(operator, scene, windows)
        paths = dict.fromkeys(path for window in windows for path in clip_files(operator, scene, window))
        self.cache.files(scene).require_unchanged(paths)
        packed = {(scene, window): packer.add(clip) for window, clip in zip(windows, read.targets, strict=True)}
        shape = (operator.num_frames, *read.frames.shape[1:3])
        return _ReadGroup(files, packed, packer.pieces, read.frames, read.starts, shape)


def _share(items: Sequence[object], rank: int, processes: int) -> Sequence[object]:
    """Neighbours stay together."""
    return items[len(items) * rank // processes : len(items) * (rank + 1) // processes]


def _rotated(items: Sequence[object]) -> Sequence[object]:
    """Begins somewhere else each time, so that two jobs that fill one cache divide the work."""
    start = random.SystemRandom().randrange(len(items)) if items else 0
    return [*items[start:], *items[:start]]


class _Writer:
    """Writes entries in a thread of its own, as a disk is waited for, and soon raises what goes wrong there."""

    def __init__(self, cache: ClipCache):
        self.cache, self._pool, self._writing = cache, ThreadPoolExecutor(1), deque()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()
        if error[0] is None:
            self._wait(0)

    def put(self, entry: Entry, tensors: dict[str, Tensor], left: int) -> None:
        """Writes an entry. Raises ValueError if one, or the `left` like it (itself included), will not fit."""
        if wrong := {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} - {self.cache.dtype}:
            raise ValueError(f"encoder: found {wrong.pop()}, expected the cache's {self.cache.dtype}")
        self._writing.append(self._pool.submit(_put, self.cache.folder, entry, tensors, left))
        self._wait(WAITING)

    def _wait(self, most: int) -> None:
        while len(self._writing) > most:
            self._writing.popleft().result()


def _put(folder: Path, entry: Entry, tensors: dict[str, Tensor], left: int) -> None:
    """See `_Writer.put`."""
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
