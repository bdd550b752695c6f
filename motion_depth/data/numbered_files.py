"""Files that belong to the frame whose number ends their stem: listing them, and comparing those of several kinds.

What is wrong becomes findings about a scene, in a list that is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import chain, islice, pairwise
from pathlib import Path

from motion_depth.data.findings import Finding

FRAME_NUMBER = re.compile(r"[0-9]+$")
MOST_DIGITS = 18  # of a frame number: they become 64-bit integers


def numbered_files(folder: Path, suffixes: tuple[str, ...], scene: str, findings: list[Finding]) -> dict[int, Path]:
    """The folder's files with one of these suffixes, by frame number. Hidden and other files are not data."""
    files: dict[int, Path] = {}

    def error(code: str, path: Path, message: str) -> None:
        findings.append(Finding("error", code, f"{path}: {message}", scene, str(path)))

    try:
        listed = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as refused:
        error("folder_unreadable", folder, f"cannot be listed ({refused.strerror})")
        return {}
    data = [path for path in listed if path.suffix.lower() in suffixes]
    for path in data:
        number = FRAME_NUMBER.search(path.stem)
        if number is None:
            error("frame_number", path, f"found no frame number, expected one at the end, as in step_0007{path.suffix}")
        elif (frame := int(number.group())) >= 10**MOST_DIGITS:
            digits = len(number.group())
            error("frame_number", path, f"found a frame number of {digits} digits, expected at most {MOST_DIGITS}")
        elif frame in files:
            error("frame_twice", path, f"found frame {frame} twice, see {files[frame].name}; expected one file a frame")
        else:
            files[frame] = path
    if not data:
        error("folder_empty", folder, f"found no {' or '.join(suffixes)} file, expected one for each frame")
    elif others := [path.name for path in listed if path.suffix.lower() not in suffixes]:
        names = f"{', '.join(others[:3])}{', ...' if len(others) > 3 else ''}"
        message = f"{folder}: {len(others)} entries are no data and are ignored: {names}"
        findings.append(Finding("note", "file_ignored", message, scene, str(folder)))
    return dict(sorted(files.items()))


def without_strays(
    files: Mapping[str, Mapping[int, Path]], scene: str, findings: list[Finding]
) -> dict[str, dict[int, Path]]:
    """The files, by kind and frame, without those that are surely no frames of the scene.

    Such as screenshot_20261124.png: a number is a stray's if it is further from all others than a scene of so many
    frames is long, and few are.
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
        return {kind: dict(its) for kind, its in files.items()}
    for kind, its in files.items():
        if here := [number for number in its if number in strays]:
            path = its[here[0]]
            more = f"; so are those of {len(here) - 1} more files in {kind}" if len(here) > 1 else ""
            message = (
                f"{path}: its frame number {here[0]} is far from all others, {frames[0]} to {frames[-1]}{more}"
                ". Move away what is no frame of the scene"
            )
            findings.append(Finding("error", "frame_stray", message, scene, str(path)))
    return {kind: {n: path for n, path in its.items() if n not in strays} for kind, its in files.items()}


def compare_frames(folder: Path, files: Mapping[str, Mapping[int, Path]], scene: str, findings: list[Finding]) -> None:
    """Whether every kind has all frames, and none is left out between the first and the last."""
    everywhere = sorted(set().union(*files.values()))
    for kind, its in files.items():
        if missing := [frame for frame in everywhere if frame not in its]:
            other = next(other for other, others in files.items() if missing[0] in others)
            message = (
                f"{folder / kind}: {_frames(missing, len(missing))} missing, which {other} has; found {len(its)} "
                f"frames, expected the same frames in {', '.join(files)}"
            )
            findings.append(Finding("error", "frame_missing", message, scene, str(folder / kind)))
    # Names may hold any number: what lies between two of them is counted, and never listed.
    gaps = (range(before + 1, after) for before, after in pairwise(everywhere))
    if count := everywhere[-1] - everywhere[0] + 1 - len(everywhere):
        message = (
            f"{folder}: {_frames(islice(chain.from_iterable(gaps), 3), count)} missing between {everywhere[0]} "
            f"and {everywhere[-1]}; expected numbers without a gap, because motion leads from each frame "
            "to the one before"
        )
        findings.append(Finding("error", "frame_gap", message, scene, str(folder)))


def _frames(numbers: Iterable[int], count: int) -> str:
    """ "frame 7 is" or "frames 7, 8, 9, ... (12 in all) are", of a count of numbers of which the first are given."""
    shown = ", ".join(str(number) for number in islice(numbers, 3))
    return f"frame {shown} is" if count == 1 else f"frames {shown}{f', ... ({count} in all)' if count > 3 else ''} are"
