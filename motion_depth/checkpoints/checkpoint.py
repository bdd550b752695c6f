"""Checkpoint folders that are whole or not there, and reading them back.

A folder holds safetensors files, `config.json`, and `manifest.json` with the size and SHA-256 of every file. Nothing is
ever unpickled. One process at a time writes into an output folder (`training/ownership.py`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from motion_depth.checkpoints.schema import check_config
from motion_depth.files.atomic import flush
from motion_depth.files.digests import file_digest
from motion_depth.files.folders import complete_folder, remove_folder

MANIFEST = "manifest.json"
CONFIG = "config.json"
STEP_FOLDER = re.compile(r"step-(\d+)")
# What config.json, manifest.json and the safetensors headers may take beside the tensors.
OVERHEAD, OVERHEAD_PER_TENSOR = 100_000, 300  # bytes
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read and verified.

    Attributes:
        folder: where it lies.
        config: the parsed config.json.
        files: names of what the manifest vouches for; nothing else in the folder is read.
    """

    folder: Path
    config: dict
    files: frozenset[str]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of one file, such as "motion_head.safetensors". Raises ValueError if they cannot be read."""
        try:
            return load_file(self.folder / name)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{self.folder / name}: cannot be read ({error})") from None

    def has(self, name: str) -> bool:
        return name in self.files


def write_checkpoint(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], config: dict) -> None:
    """Writes a checkpoint folder; an existing one of the same name is replaced only once the new one is complete.

    Args:
        folder: the final place; its parent is created.
        tensors: file name -> tensor name -> tensor (any device).
        config: written as config.json.

    Raises:
        ValueError: the disk has no room, or does not take the files. Everything that was there is as it was.
    """
    about = json.dumps(config, indent=2).encode()
    needed, what = size_of(tensors) + len(about), f"the checkpoint {folder.name}/"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        require_space(folder.parent, needed, what)
        with complete_folder(folder) as draft:
            _write_files(draft, tensors, about)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise ValueError(_no_room(folder.parent, needed, what, error.strerror)) from None
        place = f": {error.filename}" if error.filename else ""
        raise ValueError(f"{folder}: cannot be written ({error.strerror}{place}); what was there is whole") from None


def size_of(tensors: Mapping[str, Mapping[str, Tensor]]) -> int:
    """Bytes that a checkpoint with these tensors takes at most."""
    each = [tensor for values in tensors.values() for tensor in values.values()]
    return OVERHEAD + sum(OVERHEAD_PER_TENSOR + tensor.nbytes for tensor in each)


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raises ValueError if fewer than `needed` bytes are free where a folder lies."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(_no_room(folder, needed, what, f"{free / 1e6:,.1f} MB are free"))


def _no_room(folder: Path, needed: int, what: str, why: str) -> str:
    return (
        f"{folder}: no room for {what}, which takes {needed / 1e6:,.1f} MB ({why}); what was there is whole. "
        "Make room and start again with --resume auto; --keep_last keeps only the newest checkpoints"
    )


def _write_files(draft: Path, tensors: Mapping[str, Mapping[str, Tensor]], config: bytes) -> None:
    manifest = {}

    def write(name: str, data: bytes) -> None:
        (draft / name).write_bytes(data)
        flush(draft / name)
        manifest[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    for name, values in tensors.items():
        # Through bytes: the library's own save_file makes files that only their owner can read.
        write(name, save({key: value.detach().cpu().contiguous() for key, value in values.items()}))
    write(CONFIG, config)
    write(MANIFEST, json.dumps(manifest, indent=2).encode())


def read_checkpoint(folder: Path) -> Checkpoint:
    """Reads a checkpoint folder, such as outputs/stage1/final.

    Raises:
        ValueError: there is no such folder, it is not whole (the message names the file), or its config.json is not
            that of a checkpoint (it names the field).
    """
    return require_schema(read_folder(folder))


def require_schema(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint. Raises ValueError if its config.json is not what it should be, or promises other files."""
    try:
        check_config(checkpoint.config, checkpoint.files)
    except ValueError as error:
        raise ValueError(f"{checkpoint.folder / CONFIG}: {error}") from None
    return checkpoint


def read_folder(folder: Path) -> Checkpoint:
    """Reads a checkpoint folder of whatever config.json; compares every file's size and checksum.

    Raises:
        ValueError: there is no such folder, or it is not whole; the message names the file.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such checkpoint folder")
    try:
        manifest = {name: (facts["bytes"], facts["sha256"]) for name, facts in _read_json(folder / MANIFEST).items()}
        config = _read_json(folder / CONFIG)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{folder}: not a checkpoint folder ({error})") from None
    if CONFIG not in manifest:
        raise ValueError(f"{folder / MANIFEST}: does not name {CONFIG}; the file was changed or is damaged")
    for name, (size, digest) in manifest.items():
        path = folder / name
        if Path(name).name != name:
            raise ValueError(f"{folder / MANIFEST}: names {name!r}, expected files of this folder")
        if not path.is_file():
            raise ValueError(f"{path}: missing from the checkpoint")
        if path.stat().st_size != size:
            raise ValueError(f"{path}: {path.stat().st_size} bytes, the manifest says {size}")
        if file_digest(path, hashlib.sha256()) != digest:
            raise ValueError(f"{path}: its checksum is not the manifest's; the file was changed or is damaged")
    return Checkpoint(folder, config, frozenset(manifest))


def step_folders(output_path: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every step-N folder, newest first."""
    if not output_path.is_dir():
        return []
    found = [(int(match[1]), path) for path in output_path.iterdir() if (match := STEP_FOLDER.fullmatch(path.name))]
    return sorted(found, reverse=True)


def newest_valid(output_path: Path) -> tuple[int, Checkpoint | None, list[str]]:
    """The newest step folder that is whole: (its step, it, messages about newer ones that were passed over).

    What its config.json says is not looked at (`require_schema`): no damage makes one that the manifest agrees with.
    """
    messages = []
    for step, folder in step_folders(output_path):
        try:
            return step, read_folder(folder), messages
        except (ValueError, SafetensorError) as error:
            messages.append(f"{error}; trying the one before")
    return 0, None, messages


def rotate(output_path: Path, keep_last: int, newest: int) -> list[Path]:
    """Deletes all but the `keep_last` newest step folders; 0 keeps all. Returns what was deleted.

    Args:
        newest: step of the one that has just been written. A folder of a later step was passed over as damaged when the
            run went on; it neither counts nor goes, and nor does a link.
    """
    own = [folder for step, folder in step_folders(output_path) if step <= newest and not folder.is_symlink()]
    old = own[keep_last:] if keep_last > 0 else []
    for folder in old:
        remove_folder(folder)
    return old


def _read_json(path: Path) -> dict:
    value = json.loads(path.read_text())
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return value
