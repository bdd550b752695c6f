"""What a check found, kept beside the CSV, so that training can refuse flags that contradict it.

`my_metadata.csv` has its record in `my_metadata.check.json`. For each scene it holds a fingerprint of the motion files:
where one differs, the files are neither those that were checked nor a copy, and the record is not used. A CSV that
lists some of the scenes, such as my_metadata_train.csv, is served by any record beside it that knows them all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from motion_depth.data.findings import errors
from motion_depth.data.layouts import list_scene
from motion_depth.data.motion import MotionConvention
from motion_depth.doctor.convention import differs, flags, flags_or_all
from motion_depth.doctor.measure import fingerprint
from motion_depth.files.atomic import expect_file, write_whole

if TYPE_CHECKING:
    from motion_depth.doctor.check import DatasetCheck

SUFFIX = ".check.json"
VERSION = 2
BY_FLAGS = {"convention", "convention_differs", "scene_short"}  # training judges these by its own flags
THREADS = 16


@dataclass(frozen=True)
class Record:
    """What a check said about some scenes.

    Attributes:
        path: of the record. checked: when, ISO 8601.
        convention: the measured one, None if it could not be told. fitting: all that were not ruled out.
        explained: share of the change at moving pixels that `convention` explains.
        differing: those of the scenes that follow another convention than the others, with all that fit each, the best
            first. alike: whether any of the scenes is not among them.
        wrong: the errors about these scenes that flags cannot mend, a sentence each.
    """

    path: Path
    checked: str
    convention: MotionConvention | None
    fitting: tuple[MotionConvention, ...]
    explained: float
    differing: Mapping[str, tuple[MotionConvention, ...]]
    alike: bool
    wrong: tuple[str, ...]


def record_path(metadata_path: str | Path) -> Path:
    path = Path(metadata_path)
    return path.with_name(path.stem + SUFFIX)


def fingerprints(base_path: str | Path, scenes: Iterable[str]) -> dict[str, str]:
    """Of each scene, see `fingerprint`."""
    names = list(dict.fromkeys(scenes))
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(names, pool.map(lambda name: fingerprint(list_scene(base_path, name)[0]), names), strict=True))


def write_record(metadata_path: str | Path, check: DatasetCheck) -> Path:
    """Write the record of a check beside the CSV."""
    verdict, wrong = check.verdict, errors(check.findings)
    odd = {each.scene: each.verdict for each in check.measures if differs(each.verdict, verdict)}
    content = {
        "version": VERSION,
        "checked": datetime.now(UTC).isoformat(timespec="seconds"),
        "convention": verdict.convention and asdict(verdict.convention),
        "fitting": [asdict(each) for each in verdict.fitting],
        "explained": round(verdict.explained, 4),
        "differing": {name: [asdict(each) for each in (its.convention, *its.fitting)] for name, its in odd.items()},
        "errors": len(wrong),
        "wrong": [[each.scene, str(each)] for each in wrong if each.code not in BY_FLAGS],
        "scenes": {each.scene: each.fingerprint for each in check.measures},
    }
    write_whole(record_path(metadata_path), json.dumps(content, indent=1) + "\n")
    return record_path(metadata_path)


def recorded_check(metadata_path: str | Path, base_path: str | Path, scenes: Iterable[str]) -> Record | None:
    """The record beside the CSV that is about these scenes and these very motion files; None if there is none.

    Of several that of this CSV, or of one that it is a part of, comes before those of others, then the newest.
    """
    needed = list(dict.fromkeys(scenes))
    read = ((path, _read(path, needed)) for path in sorted(Path(metadata_path).parent.glob(f"*{SUFFIX}")))
    found = [(_is_of(path, metadata_path), *its) for path, its in read if its and {*needed} <= its[1].keys()]
    prints = fingerprints(base_path, needed) if found else {}
    for _, record, known in sorted(found, key=lambda each: (each[0], each[1].checked), reverse=True):
        if all(prints[scene] and known[scene] == prints[scene] for scene in needed):
            return record
    return None


def unused_record(metadata_path: str | Path) -> str | None:
    """A line about the record of this CSV, or of one that it is a part of, for which `recorded_check` has no use."""
    its = (path for path in sorted(Path(metadata_path).parent.glob(f"*{SUFFIX}")) if _is_of(path, metadata_path))
    why = "is not used, as it is no record of this version, or not of these scenes with these motion files"
    return next((f"{path}: {why}; run tools/make_metadata.py --check again" for path in its), None)


def contradiction(record: Record | None, convention: MotionConvention) -> str | None:
    """Why flags contradict a recorded check, with the flags to pass; None if they do not."""
    if record is None or record.convention is None:
        return None
    given = flags(convention) or "the documented convention (no --motion_... flag)"
    check = f"the check of this dataset ({record.path}, {record.checked}) measured another motion convention"
    if record.alike and convention not in record.fitting:
        measured = flags(record.convention, convention)
        explained = f"{measured} explains {record.explained:.0%} of what changes at moving pixels"
        return f"{check} than {given}: {explained}. Pass {measured}"
    odd = {scene: fitting[0] for scene, fitting in record.differing.items() if convention not in fitting}
    if not odd:
        return None
    scene, its = next(iter(odd.items()))
    if not record.alike:
        return f"{check} than {given} in {scene}. Pass {flags(its, convention)}"
    more = f" and in {len(odd) - 1} more" if len(odd) > 1 else ""
    others = f"than in the others: {flags_or_all(its)}. Convert these scenes, or leave them out"
    return f"{check} in {scene}{more} {others}"


def standing_errors(record: Record) -> str | None:
    """A line about what a recorded check found wrong, beside the flags; None if nothing."""
    if not record.wrong:
        return None
    first, *others = record.wrong
    more = f" (and {len(others)} more {'error' if len(others) == 1 else 'errors'})" if others else ""
    return f"the check of this dataset ({record.path}, {record.checked}) found an error: {first}{more}"


def _is_of(path: Path, metadata_path: str | Path) -> bool:
    """Whether a record is named after this CSV, or one that it is a part of (my.csv and my_train.csv)."""
    return Path(metadata_path).stem.startswith(path.name.removesuffix(SUFFIX))


def _read(path: Path, needed: Sequence[str]) -> tuple[Record, dict[str, str]] | None:
    """A record, as far as it is about some scenes, and its fingerprints; None if it is not one of this version."""

    def conventions(listed: Sequence[Mapping[str, str]]) -> tuple[MotionConvention, ...]:
        return tuple(MotionConvention(**each) for each in listed)

    try:
        content = json.loads(expect_file(path).read_text())
        if content["version"] != VERSION:
            return None
        record = Record(
            path,
            str(content["checked"]),
            convention=MotionConvention(**content["convention"]) if content["convention"] else None,
            fitting=conventions(content["fitting"]),
            explained=float(content["explained"]),
            differing={name: conventions(its) for name, its in content.get("differing", {}).items() if name in needed},
            alike=any(name not in content.get("differing", {}) for name in needed),
            wrong=tuple(text for scene, text in content.get("wrong", ()) if not scene or scene in needed),
        )
        return record, dict(content["scenes"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
