"""Files of the cache: each holds tensors and, in its header, what they were made of. Whole or not there.

An entry's file name ends with a hash over everything that its content depends on. So entries of other data or settings
lie beside it untouched, whoever writes them, and two jobs that write the same entry write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, uint8

from motion_depth.files.atomic import write_whole

SUFFIX = ".safetensors"
METADATA = "entry"  # under this name the header holds what the file is
BEGINS = re.compile(rb'.{8}\{"__metadata__":\{"%s":' % METADATA.encode(), re.DOTALL)  # the header's length, the header
LARGEST_HEADER = 100_000  # bytes; ours have a few thousand, a foreign file's first eight bytes may say anything


@dataclass(frozen=True, eq=False)
class Entry:
    """One file, and what its content is and must have been made of.

    Attributes:
        folder, stem: where it lies and how its name begins; entries that differ only in what they were made of share
            both.
        subject: what it is, such as the scene and the window.
        made_of: everything that determines the content, by the names that the user is told if one changes. Values are
            what JSON can hold; a value may be a dict, whose names are told too.
    """

    folder: Path
    stem: str
    subject: dict[str, object]
    made_of: dict[str, object]

    @cached_property
    def key(self) -> str:
        """A hash over subject and made_of."""
        return hashlib.sha256(_json([self.subject, self.made_of]).encode()).hexdigest()

    @cached_property
    def path(self) -> Path:
        return self.folder / f"{self.stem}-{self.key[:16]}{SUFFIX}"

    def stale(self) -> str | None:
        """Why the file cannot be used, told from headers alone: "damaged", "new", or what changed. None if it can."""
        try:
            if read_header(self.path)["key"] == self.key:
                return None
            return "damaged"
        except FileNotFoundError:
            changes = [found for other in self._others() if (found := self._changes(other["made_of"]))]
            return f"{' and '.join(min(changes, key=len))} changed" if changes else "new"
        except DAMAGE:
            return "damaged"
        except OSError as error:
            return f"not readable ({error.strerror})"

    def read(self) -> dict[str, Tensor]:
        """The tensors.

        Raises:
            ValueError: there is no such file, it is not readable, it is of another key, or a bit of it has changed.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise ValueError(f"{self.path}: not readable ({error.strerror}); start again to encode it") from None
        try:
            metadata, tensors = _metadata(data[8 : 8 + _header_size(data[:8])]), load(data)
        except DAMAGE as error:
            raise ValueError(f"{self.path}: damaged ({error}); delete it and start again to encode it anew") from None
        if metadata["key"] != self.key or metadata["checksum"] != checksum(tensors):
            found = "its bytes or its header have changed"
            raise ValueError(f"{self.path}: damaged ({found}); delete it and start again to encode it anew")
        return tensors

    def write(self, tensors: dict[str, Tensor]) -> int:
        """Puts the file in place, whole, and returns its bytes. Raises OSError if the folder or the disk refuses."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        about = {
            "key": self.key,
            "checksum": checksum(tensors),
            "subject": self.subject,
            "made_of": self.made_of,
        }
        data = save(tensors, {METADATA: _json(about)})  # one text: safetensors writes several in any order
        write_whole(self.path, data)
        return len(data)

    def _others(self) -> Iterator[dict[str, object]]:
        """Headers of entries with this subject, the newest first."""
        for path in sorted(self.folder.glob(f"{self.stem}-*{SUFFIX}"), key=_modified, reverse=True):
            try:
                header = read_header(path)
            except (OSError, *DAMAGE):
                continue  # whose it is cannot be told
            if header["subject"] == json.loads(_json(self.subject)):
                yield header

    def _changes(self, before: dict[str, object]) -> list[str]:
        """What differs from another entry: "files", or "settings (height, width)"."""
        now = json.loads(_json(self.made_of))
        changes = []
        for name in sorted(now.keys() | before.keys()):
            ours, theirs = now.get(name), before.get(name)
            if ours == theirs:
                continue
            if isinstance(ours, dict) and isinstance(theirs, dict):
                inner = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
                name += f" ({', '.join(inner)})"
            changes.append(name)
        return changes


def read_header(path: Path) -> dict[str, object]:
    """`key`, `subject`, `made_of` and `checksum` of an entry's file, whose size is compared with what it should be.

    Raises:
        FileNotFoundError: there is no such file.
        Any of DAMAGE: it is not an entry, or not a whole one.
    """
    with path.open("rb") as file:
        header = file.read(_header_size(file.read(8)))
        metadata = _metadata(header)
        tensors = {name: about for name, about in json.loads(header).items() if name != "__metadata__"}
        expected = 8 + len(header) + max(about["data_offsets"][1] for about in tensors.values())
        _expect_size(file, expected)
    return metadata


# What reading bytes that are not an entry can raise.
DAMAGE = (SafetensorError, ValueError, KeyError, TypeError, AttributeError, IndexError)


def checksum(tensors: dict[str, Tensor]) -> str:
    """CRC-32 over names and bytes, in the names' order."""
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].flatten().view(uint8).numpy(), zlib.crc32(name.encode(), total))
    return f"{total:08x}"


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _header_size(first: bytes) -> int:
    size = int.from_bytes(first, "little")
    if len(first) < 8 or not 2 <= size <= LARGEST_HEADER:
        raise ValueError("no safetensors header")
    return size


def _metadata(header: bytes) -> dict[str, object]:
    about = json.loads(json.loads(header)["__metadata__"][METADATA])
    return {name: about[name] for name in ("key", "checksum", "subject", "made_of")}


def _expect_size(file: BinaryIO, expected: int) -> None:
    if (found := os.fstat(file.fileno()).st_size) != expected:
        raise ValueError(f"{found} bytes, expected {expected}")


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
