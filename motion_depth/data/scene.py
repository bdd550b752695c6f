"""One scene on disk: find it, list its frames, compare its files. What does not fit is a ValueError that names it.

A scene is a folder that holds rgb/ (png or jpg), motion_vectors/ and distance_to_camera/ (npy). A file belongs to the
frame whose number ends its stem, whatever stands before it; the folder says what the file holds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path, PurePosixPath

from motion_depth.data.findings import Finding, Severity, errors
from motion_depth.data.frame_files import DEPTH, MOTION, RGB, picture_size, read_depth, read_motion

SUFFIXES = {RGB: (".png", ".jpg", ".jpeg"), MOTION: (".npy",), DEPTH: (".npy",)}
FRAME_NUMBER = re.compile(r"[0-9]+$")
MOST_DIGITS = 18  # of a frame number: they become 64-bit integers


@dataclass(frozen=True)
class SceneIndex:
    """The files of one scene.

    Attributes:
        scene: folder relative to the base path, as asked for.
        frame_ids: frame numbers, ascending, without a gap.
        height, width: of every picture, motion and depth file, in pixels.
        rgb, motion, depth: each frame number's file.
    """

    scene: str
    frame_ids: tuple[int, ...]
    height: int
    width: int
    rgb: Mapping[int, Path]
    motion: Mapping[int, Path]
    depth: Mapping[int, Path]


def is_scene(folder: str | Path) -> bool:
    """Whether a folder holds the three subfolders."""
    return all(os.path.isdir(os.path.join(folder, name)) for name in SUFFIXES)


def find_scenes(base_path: str | Path) -> list[str]:
    """Every scene under a folder at any depth, relative to it, posix style, sorted; "." if it is a scene itself.

    Raises:
        ValueError: there is no such folder, a folder cannot be listed, or scenes lie behind a link that leaves it.
    """
    base = _base_folder(base_path)
    scenes = []
    for folder, links in _walk(base):
        if is_scene(folder):
            scenes.append(folder.relative_to(base).as_posix())
        for link in links:
            # A link that stays inside leads to scenes that are found anyway.
            target = link.resolve()
            if not target.is_relative_to(base) and any(is_scene(inner) for inner, _ in _walk(target)):
                raise ValueError(
                    f"{link}: a link to {target}, outside {base}; scenes must lie inside the dataset's folder. "
                    "Move them there, or give the folder that holds them"
                )
    return sorted(scenes)


def list_scene(base_path: str | Path, scene: str) -> tuple[dict[str, dict[int, Path]], list[Finding]]:
    """List a scene's files by kind (RGB, MOTION, DEPTH) and frame number, ascending, with all that is wrong with it.

    Looks at names only. Files whose number is far from all others are found and left out. Each finding is one that
    `index_scene` raises when it comes to it, or a note.
    """
    findings: list[Finding] = []

    def found(code: str, path: Path | str, message: str, severity: Severity = "error") -> None:
        findings.append(Finding(severity, code, message, scene, str(path)))

    try:
        folder = _scene_folder(base_path, scene)
    except ValueError as error:
        found("scene_folder", "", str(error))
        return {}, findings
    files = {name: _numbered_files(folder / name, suffixes, found) for name, suffixes in SUFFIXES.items()}
    if all(files.values()):
        files = _without_strays(folder, files, found)
        _compare_frames(folder, files, found)
    return files, findings


def index_scene(base_path: str | Path, scene: str) -> SceneIndex:
    """List a scene's files and check their names; of their contents, one of each kind.

    Args:
        scene: folder relative to `base_path`, which it must not leave (by "..", as an absolute path, through a link).

    Raises:
        ValueError: names the file or folder, what was found and what was expected.
    """
    files, findings = list_scene(base_path, scene)
    if problems := errors(findings):
        raise ValueError(problems[0].message)
    frame_ids = tuple(files[RGB])
    height, width = picture_size(files[RGB][frame_ids[0]])
    # Read one file of each kind now: a whole scene in a wrong format should not wait for its turn to be found. Not the
    # first frame's motion, which may hold anything.
    middle = frame_ids[len(frame_ids) // 2]
    if len(frame_ids) > 1:
        read_motion(files[MOTION][middle], height, width)
    read_depth(files[DEPTH][middle], height, width)
    return SceneIndex(scene, frame_ids, height, width, files[RGB], files[MOTION], files[DEPTH])


def _base_folder(base_path: str | Path) -> Path:
    base = Path(base_path)
    if not base.is_dir():
        raise ValueError(f"--dataset_base_path {base}: there is no such folder")
    return base.resolve()


def _scene_folder(base_path: str | Path, scene: str) -> Path:
    """The folder of a scene, after making sure that the name is one, and leads to a scene inside the base folder."""
    base = _base_folder(base_path)
    pure = PurePosixPath(scene)
    if not scene.strip() or "\0" in scene or pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"scene {scene!r}: expected a folder inside {base}, relative to it and without '..'")
    folder = base / pure
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such scene folder; the CSV's `video` is relative to {base}")
    for name in SUFFIXES:
        inner = folder / name
        if not inner.is_dir():
            raise ValueError(f"{folder}: has no folder {name}; a scene holds {', '.join(SUFFIXES)}")
        if not inner.resolve().is_relative_to(base):
            raise ValueError(f"{inner}: leads out of {base} through a link, to {inner.resolve()}")
    return folder


def _walk(top: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Folders under `top` with the links to folders in each; neither links nor the inside of scenes are entered."""

    def stop(error: OSError) -> None:
        raise ValueError(f"{error.filename}: cannot be listed ({error.strerror})")

    for name, folders, _ in os.walk(top, onerror=stop):
        folder = Path(name)
        yield folder, [folder / inner for inner in folders if (folder / inner).is_symlink()]
        if is_scene(folder):
            folders.clear()


def _numbered_files(folder: Path, suffixes: tuple[str, ...], found: Callable[..., None]) -> dict[int, Path]:
    """The folder's files with one of these suffixes, by frame number. Hidden and other files are not data."""
    files: dict[int, Path] = {}
    try:
        listed = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        found("folder_unreadable", folder, f"{folder}: cannot be listed ({error.strerror})")
        return {}
    data = [path for path in listed if path.suffix.lower() in suffixes]
    for path in data:
        number = FRAME_NUMBER.search(path.stem)
        if number is None:
            expected = f"expected one at the end, as in step_0007{path.suffix}"
            found("frame_number", path, f"{path}: found no frame number, {expected}")
        elif (frame := int(number.group())) >= 10**MOST_DIGITS:
            many = f"a frame number of {len(number.group())} digits, expected at most {MOST_DIGITS}"
            found("frame_number", path, f"{path}: found {many}")
        elif frame in files:
            other = files[frame].name
            found("frame_twice", path, f"{path}: found frame {frame} twice, see {other}; expected one file a frame")
        else:
            files[frame] = path
    if not data:
        expected = f"found no {' or '.join(suffixes)} file, expected one for each frame"
        found("folder_empty", folder, f"{folder}: {expected}")
    elif others := [path.name for path in listed if path.suffix.lower() not in suffixes]:
        names = f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''}"
        found("file_ignored", folder, f"{folder}: {len(others)} entries are no data and are ignored: {names}", "note")
    return dict(sorted(files.items()))


def _without_strays(
    folder: Path, files: dict[str, dict[int, Path]], found: Callable[..., None]
) -> dict[str, dict[int, Path]]:
    """The files without those that are surely no frames of the scene, such as screenshot_20261124.png; they are found.

    A number is a stray's if it is further from all others than a scene of so many frames is long, and few are.
    """
    everywhere = sorted(set().union(*files.values()))
    blocks = [[everywhere[0]]]
    for before, number in pairwise(everywhere):
        if number - before > len(everywhere):
            blocks.append([])
        blocks[-1].append(number)
    frames = max(blocks, key=len)
    strays = set(everywhere) - set(frames)
    if len(strays) > max(1, len(everywhere) // 10):
        return files
    for name, its in files.items():
        if here := [number for number in its if number in strays]:
            more = f"; so are those of {len(here) - 1} more files in {name}" if len(here) > 1 else ""
            message = (
                f"{its[here[0]]}: its frame number {here[0]} is far from all others, {frames[0]} to {frames[-1]}{more}"
                ". Move away what is no frame of the scene"
            )
            found("frame_stray", its[here[0]], message)
    return {name: {n: path for n, path in its.items() if n not in strays} for name, its in files.items()}


def _compare_frames(folder: Path, files: Mapping[str, Mapping[int, Path]], found: Callable[..., None]) -> None:
    """Whether every kind has all frames, and none is left out between the first and the last."""
    everywhere = sorted(set().union(*files.values()))
    for name, its in files.items():
        if missing := [frame for frame in everywhere if frame not in its]:
            other = next(other for other, others in files.items() if missing[0] in others)
            found(
                "frame_missing",
                folder / name,
                f"{folder / name}: {_frames(missing, len(missing))} missing, which {other} has; found {len(its)} "
                f"frames, expected the same frames in {', '.join(files)}",
            )
    # Names may hold any number: what lies between two of them is counted, and never listed.
    gaps = (range(before + 1, after) for before, after in pairwise(everywhere))
    if count := everywhere[-1] - everywhere[0] + 1 - len(everywhere):
        found(
            "frame_gap",
            folder,
            f"{folder}: {_frames(islice(chain.from_iterable(gaps), 3), count)} missing between {everywhere[0]} "
            f"and {everywhere[-1]}; expected numbers without a gap, because motion leads from each frame "
            "to the one before",
        )


def _frames(numbers: Iterable[int], count: int) -> str:
    """ "frame 7 is" or "frames 7, 8, 9, ... (12 in all) are", of a count of numbers of which the first are given."""
    shown = ", ".join(str(number) for number in islice(numbers, 3))
    return f"frame {shown} is" if count == 1 else f"frames {shown}{f', ... ({count} in all)' if count > 3 else ''} are"
