"""Checkpoint folders that are whole or not there, and reading them back.

A folder holds safetensors files, `config.json`, and `manifest.json` with the size and SHA-256 of every file. It is
written beside its place under a temporary name, flushed to the disk and then renamed, so a folder that has its name is
complete. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

MANIFEST = "manifest.json"
CONFIG = "config.json"
STEP_FOLDER = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read and verified.

    Attributes:
        folder: where it lies.
        config: the parsed config.json.
    """

    folder: Path
    config: dict

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of one file, such as "motion_head.safetensors"."""
        return load_file(self.folder / name)

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()


def write_checkpoint(folder: Path, tensors: dict[str, dict[str, Tensor]], config: dict) -> None:
    """Writes a checkpoint folder; an existing one of the same name is replaced only once the new one is complete.

    Args:
        folder: the final place; its parent is created.
        tensors: file name -> tensor name -> tensor (any device).
        config: written as config.json.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        for name, values in tensors.items():
            # Through bytes: the library's own save_file makes files that only their owner can read.
            (draft / name).write_bytes(save({key: value.detach().cpu().contiguous() for key, value in values.items()}))
        (draft / CONFIG).write_text(json.dumps(config, indent=2))
        manifest = {
            path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(draft.iterdir())
        }
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=2))
        for path in draft.iterdir():
            _flush(path)
        _flush(draft)
        _put_in_place(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _put_in_place(draft: Path, folder: Path) -> None:
    """Renames; an older folder of that name steps aside first and goes last."""
    older = folder.with_name(f".{folder.name}.{os.getpid()}.older")
    if folder.exists():
        os.rename(folder, older)
    os.rename(draft, folder)
    _flush(folder.parent)
    shutil.rmtree(older, ignore_errors=True)


def read_checkpoint(folder: Path, verify: bool = True) -> Checkpoint:
    """Reads a checkpoint folder.

    Args:
        folder: such as outputs/stage1/final.
        verify: whether every file's checksum is compared too, not only its size.

    Raises:
        ValueError: there is no such folder, or it is not whole; the message names the file.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such checkpoint folder")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: not a checkpoint folder ({error})") from None
    for name, facts in manifest.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path}: missing from the checkpoint")
        if path.stat().st_size != facts["bytes"]:
            raise ValueError(f"{path}: {path.stat().st_size} bytes, the manifest says {facts['bytes']}")
        if verify and _sha256(path) != facts["sha256"]:
            raise ValueError(f"{path}: its checksum is not the manifest's; the file was changed or is damaged")
    return Checkpoint(folder, config)


def step_folders(output_path: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every step-N folder, newest first."""
    if not output_path.is_dir():
        return []
    found = [(int(match[1]), path) for path in output_path.iterdir() if (match := STEP_FOLDER.fullmatch(path.name))]
    return sorted(found, reverse=True)


def newest_valid(output_path: Path) -> tuple[int, Checkpoint | None, list[str]]:
    """The newest step folder that is whole: (its step, it, messages about newer ones that were passed over)."""
    messages = []
    for step, folder in step_folders(output_path):
        try:
            return step, read_checkpoint(folder), messages
        except (ValueError, SafetensorError) as error:
            messages.append(f"{error}; trying the one before")
    return 0, None, messages


def rotate(output_path: Path, keep_last: int) -> Iterable[Path]:
    """Deletes all but the newest `keep_last` step folders; 0 keeps all. Returns what was deleted."""
    if keep_last <= 0:
        return []
    old = [folder for _, folder in step_folders(output_path)[keep_last:]]
    for folder in old:
        gone = folder.with_name(f".{folder.name}.{os.getpid()}.older")
        os.rename(folder, gone)  # first out of sight, so that a kill in the middle leaves no half folder
        shutil.rmtree(gone, ignore_errors=True)
    return old


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
