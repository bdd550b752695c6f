"""How scenes are laid out on disk: one file for each way, found by what lies there. The table names them.

find_scenes(base)          names of all scenes under a folder
open_scene(base, name)     one of them, whole
list_scene(base, name)     one of them as it is, with all that is wrong with the names of its files
incomplete_scenes(base)    what looks like a scene and lacks something
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from motion_depth.data.findings import Finding, errors
from motion_depth.data.layouts import isaac_sim
from motion_depth.data.scene import DEPTH, MOTION, RGB, Scene


class Layout(Protocol):
    """What a layout's file defines."""

    SCENE: str
    """What a scene is, such as "a folder that holds rgb/ and ..."; for messages."""

    @staticmethod
    def is_scene(path: Path) -> bool:
        """Whether a folder or a file is a scene of this layout; asked of everything in a dataset."""

    @staticmethod
    def lacks(path: Path) -> str | None:
        """What a folder or a file that is meant to be a scene of this layout lacks; None of any other."""

    @staticmethod
    def list_scene(path: Path, name: str, kinds: Sequence[str]) -> tuple[Scene, list[Finding]]:
        """The scene at a path and all that is wrong with it, as far as names tell; its files are not read.

        kinds: beside rgb, motion and depth.
        """


LAYOUTS: dict[str, Layout] = {
    "isaac_sim": isaac_sim,
}


def find_scenes(base_path: str | Path) -> list[str]:
    """Every scene under a folder at any depth, relative to it, posix style, sorted; "." if it is a scene itself.

    Raises:
        ValueError: there is no such folder, a folder cannot be listed, or scenes lie behind a link that leaves it.
    """
    base = _base_folder(base_path)
    scenes = []
    for path, links in _walk(base):
        if _layout(path):
            scenes.append(path.relative_to(base).as_posix())
        for link in links:
            # A link that stays inside leads to scenes that are found anyway.
            target = link.resolve()
            if not target.is_relative_to(base) and any(_layout(inner) for inner, _ in _walk(target)):
                raise ValueError(
                    f"{link}: a link to {target}, outside {base}; scenes must lie inside the dataset's folder. "
                    "Move them there, or give the folder that holds them"
                )
    return sorted(scenes)


def list_scene(base_path: str | Path, name: str, kinds: Sequence[str] = ()) -> tuple[Scene | None, list[Finding]]:
    """A scene as it is, and all that is wrong with it, as far as the names of its files tell; None if there is none.

    Files whose number is far from all others are told and left out. Each error is one that `open_scene` raises when it
    comes to it.
    """
    try:
        base = _base_folder(base_path)
        path = _scene_path(base, name)
        scene, findings = _expect_layout(path).list_scene(path, name, kinds)
        for folder in dict.fromkeys(file.parent for files in scene.files.values() for file in files.values()):
            _expect_inside(folder, base)
    except ValueError as error:
        return None, [Finding("error", "scene_folder", str(error), name)]
    return scene, findings


def open_scene(base_path: str | Path, name: str, kinds: Sequence[str] = ()) -> Scene:
    """A scene whose names are checked, and one file of each kind.

    Args:
        name: relative to `base_path`, which it must not leave (by "..", as an absolute path, through a link).
        kinds: that the scene must have beside rgb, motion and depth.

    Raises:
        ValueError: names the file or folder, what it holds and what was expected.
    """
    scene, findings = list_scene(base_path, name, kinds)
    if problems := errors(findings):
        raise ValueError(problems[0].message)
    # Read one file of each kind now: a whole scene in a wrong format should not wait for its turn to be found. Not the
    # first frame's motion, which may hold anything.
    middle = scene.frame_ids[len(scene.frame_ids) // 2]
    scene.check(RGB, scene.frame_ids[0])
    if len(scene.frame_ids) > 1:
        scene.array(MOTION, middle)
    for kind in (DEPTH, *kinds):
        scene.array(kind, middle)
    return scene


def incomplete_scenes(base_path: str | Path, known: Collection[str] = ()) -> list[Finding]:
    """What looks like a scene of some layout and is none, anywhere under a folder.

    known: names that are left out.
    """
    base, findings = _base_folder(base_path), []
    for path, _ in _walk(base):
        name = path.relative_to(base)
        hidden = any(part.startswith(".") for part in name.parts)
        if not hidden and not _layout(path) and (lacks := _lacks(path)) and name.as_posix() not in known:
            findings.append(Finding("error", "scene_incomplete", f"{path}: {lacks}", name.as_posix(), str(path)))
    return findings


def what_scenes_are() -> str:
    """What a scene is in each layout, for messages."""
    return ", or ".join(layout.SCENE for layout in LAYOUTS.values())


def _layout(path: Path) -> Layout | None:
    return next((layout for layout in LAYOUTS.values() if layout.is_scene(path)), None)


def _lacks(path: Path) -> str | None:
    return next(filter(None, (layout.lacks(path) for layout in LAYOUTS.values())), None)


def _expect_layout(path: Path) -> Layout:
    if (layout := _layout(path)) is None:
        raise ValueError(f"{path}: {_lacks(path) or f'is no scene; a scene is {what_scenes_are()}'}")
    return layout


def _base_folder(base_path: str | Path) -> Path:
    base = Path(base_path)
    if not base.is_dir():
        raise ValueError(f"--dataset_base_path {base}: there is no such folder")
    return base.resolve()


def _scene_path(base: Path, name: str) -> Path:
    """Where a scene lies, after making sure that its name leads to something inside the base folder."""
    pure = PurePosixPath(name)
    if not name.strip() or "\0" in name or pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"scene {name!r}: expected a folder inside {base}, relative to it and without '..'")
    path = base / pure
    if not path.exists():
        raise ValueError(f"{path}: there is no such scene folder; the CSV's `video` is relative to {base}")
    _expect_inside(path, base)
    return path


def _expect_inside(path: Path, base: Path) -> None:
    if not path.resolve().is_relative_to(base):
        raise ValueError(f"{path}: leads out of {base} through a link, to {path.resolve()}")


def _walk(top: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Folders and files under `top` with the links to folders in each.

    Neither links nor the inside of scenes are entered.
    """

    def stop(error: OSError) -> None:
        raise ValueError(f"{error.filename}: cannot be listed ({error.strerror})")

    for name, folders, files in os.walk(top, onerror=stop):
        folder = Path(name)
        yield folder, [folder / inner for inner in folders if (folder / inner).is_symlink()]
        if _layout(folder):
            folders.clear()
        else:
            yield from ((folder / file, []) for file in files)
