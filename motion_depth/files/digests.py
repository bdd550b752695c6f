"""What files, weights and code are, by content: the same on every machine that has a copy, whatever times say."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import BinaryIO, TypeVar

from motion_depth.files.atomic import expect_file, write_whole

T = TypeVar("T")
DIGEST_BYTES = 16
CHUNK = 1 << 20  # bytes
KEPT_BEGINS = re.compile(rb'\["[0-9a-f]{%d}"' % (2 * DIGEST_BYTES))  # a file that `SceneFiles.read` writes
SAMPLE_EVERY = 16 << 20  # of weights are read SAMPLE bytes in every so many, and SAMPLE of every tensor
SAMPLE = 4096
# Where in a scene frames lie whose files are read when nothing is remembered of it: early ones, where things move, too.
SAMPLED_FRAMES = (1 / 6, 1 / 2, 5 / 6)


def text_digest(text: str) -> str:
    """Of a text."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def file_digest(path: Path, digest: hashlib._Hash | None = None) -> str:
    """Of all bytes of a file, by BLAKE2b if no other digest is given. Raises ValueError if it cannot be read."""
    digest = digest or hashlib.blake2b(digest_size=DIGEST_BYTES)
    try:
        with open(expect_file(path), "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise ValueError(f"{path}: not readable ({error.strerror})") from None
    return digest.hexdigest()


def sampled(items: Sequence[T]) -> list[T]:
    """Those at SAMPLED_FRAMES of a sequence that is not empty, each once."""
    return [items[place] for place in dict.fromkeys(int(share * len(items)) for share in SAMPLED_FRAMES)]


def sample_digest(paths: Iterable[Path], chosen: Iterable[Path], known: Mapping[Path, str] | None = None) -> str:
    """Of names (with their folders') and sizes of files, in this order, and of the content of some of them.

    Args:
        known: the files' content (`file_digest`), where it need not be read.

    Raises:
        ValueError: a chosen file cannot be read. OSError: one cannot be looked at.
    """
    names = [f"{path.parent.name}/{path.name} {os.stat(path).st_size}" for path in paths]
    digests = [known[path] if known else file_digest(path) for path in chosen]
    return text_digest("\n".join([*names, *digests]))


def weights_digest(path: Path) -> str:
    """Of a file's size, its header, its end and a sample of its bytes; a few milliseconds for a GB.

    Read are the header of a safetensors file and the beginning of each of its tensors, or else the first CHUNK bytes;
    the last CHUNK bytes, where a .pth archive keeps a checksum of each tensor; and a block in every SAMPLE_EVERY bytes.
    So other weights are told apart, but not a change of single numbers between those of a safetensors file.

    Raises:
        ValueError: it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    try:
        with open(expect_file(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head, tensors = _header(file, size) if path.suffix == ".safetensors" else (CHUNK, [])
            spans = [(0, head), (max(0, size - CHUNK), CHUNK)]
            spans += [(begin, SAMPLE) for begin in {*tensors, *range(0, size, SAMPLE_EVERY)}]
            digest.update(str(size).encode())
            for begin, length in sorted(spans):
                digest.update(os.pread(file.fileno(), length, begin))
    except OSError as error:
        raise ValueError(f"{path}: not readable ({error.strerror})") from None
    return digest.hexdigest()


def _header(file: BinaryIO, size: int) -> tuple[int, list[int]]:
    """How long the header of a safetensors file is, and where its tensors begin; (CHUNK, []) if it is none."""
    length = int.from_bytes(file.read(8), "little")
    if length > size:
        return CHUNK, []
    try:
        about = json.loads(file.read(length))
        return 8 + length, [8 + length + about[name]["data_offsets"][0] for name in about if name != "__metadata__"]
    except (ValueError, KeyError, TypeError):
        return CHUNK, []


@dataclass(frozen=True)
class SceneFiles:
    """A scene's files at one moment.

    Attributes:
        stamps: by path, what changes whenever the file is written or replaced here (`stamp`).
        digests: by path, of the content.
    """

    stamps: Mapping[Path, str]
    digests: Mapping[Path, str]

    @classmethod
    def known(cls, paths: Iterable[Path], folder: Path, name: str) -> SceneFiles | None:
        """What `read` would return, if it would read nothing; else None. Raises ValueError if a file is not there."""
        stamps = {path: stamp(path) for path in paths}
        with contextlib.suppress(OSError, ValueError, TypeError):  # there is no such file, or it is damaged
            digests = json.loads(_place(folder, name, stamps).read_bytes())
            if all(len(each) == 2 * DIGEST_BYTES for each in digests):
                return cls(stamps, dict(zip(stamps, digests, strict=True)))
        return None

    @classmethod
    def read(cls, paths: Sequence[Path], folder: Path, name: str) -> SceneFiles:
        """Looks at all files, and reads those of a scene of which one has changed or that is new here.

        What was read is kept in `folder` under `name` and the stamps. They hold the absolute path and the time of the
        last change, so several machines can share the folder: one that has other copies keeps its own.

        Raises:
            ValueError: a file cannot be read, or changes while it is.
        """
        if known := cls.known(paths, folder, name):
            return known
        stamps = {path: stamp(path) for path in paths}
        digests = {path: file_digest(path) for path in stamps}
        if changed := [path for path in stamps if stamp(path) != stamps[path]]:
            raise ValueError(f"{changed[0]}: changed while it was read; start again when the scene is complete")
        with contextlib.suppress(OSError):  # a folder that is only read from: they are read again next time
            write_whole(_place(folder, name, stamps), json.dumps(list(digests.values())))
        return cls(stamps, digests)

    def digest(self, paths: Iterable[Path] | None = None) -> str:
        """Of some files in their order (all of them by default): their folders' names, their own, their content."""
        chosen = self.digests if paths is None else paths
        return text_digest("\n".join(f"{path.parent.name}/{path.name} {self.digests[path]}" for path in chosen))

    def require_unchanged(self, paths: Iterable[Path]) -> None:
        """Raises ValueError if one of some files has changed since."""
        if changed := [path for path in paths if stamp(path) != self.stamps[path]]:
            raise ValueError(f"{changed[0]}: changed since the start; start again when the scene is complete")


def stamp(path: Path) -> str:
    """Size and times of the last writing and the last change of a file.

    The system sets the latter (ctime), so it tells a file whose size and time of writing were put back. Not the inode:
    some network file systems number files anew with every mount.

    Raises:
        ValueError: it cannot be looked at.
    """
    try:
        stat = os.stat(path)
    except OSError as error:
        raise ValueError(f"{path}: not readable ({error.strerror})") from None
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def code_digests(functions: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Of code of this package as Python understands it: comments, docstrings and layout do not count.

    Args:
        functions: names of functions, classes and constants by file; none: all of the file.

    Raises:
        ValueError: a file has no such name.
    """
    return {name: _code_digest(Path(__file__).parents[1] / name, wanted) for name, wanted in functions.items()}


def _code_digest(path: Path, wanted: Sequence[str]) -> str:
    statements = {}
    for number, node in enumerate(ast.parse(path.read_text()).body):
        targets = getattr(node, "targets", [getattr(node, "target", node)])
        statements[getattr(targets[0], "id", getattr(node, "name", number))] = node
    if missing := set(wanted) - statements.keys():
        raise ValueError(f"{path}: has no {min(missing)}")
    chosen = [statements[name] for name in wanted or statements]
    return text_digest("\n".join(ast.unparse(_without_docstrings(node)) for node in chosen))


def _without_docstrings(node: ast.AST) -> ast.AST:
    for inner in ast.walk(node):
        if isinstance(body := getattr(inner, "body", None), list):
            inner.body = [each for each in body if not _is_text(each)] or [ast.Pass()]
    return ast.Pass() if _is_text(node) else node


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of installed packages; "" of one that is not there."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def scene_file_name(scene: str) -> str:
    """A scene as the name of one file or folder; two may share it, so what lies there says which scene it is of."""
    return re.sub(r"[^\w.-]+", "_", scene).strip("._")[:80] or "scene"


def _place(folder: Path, name: str, stamps: Mapping[Path, str]) -> Path:
    now = text_digest("\n".join(f"{os.path.abspath(path)} {stamps[path]}" for path in stamps))
    return folder / f"{name}-{now}.json"
