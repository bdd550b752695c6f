"""What a check found, kept beside the CSV, so that training can refuse flags that contradict it.

`my_metadata.csv` has its record in `my_metadata.check.json`. For each scene it holds a fingerprint of the motion files
(names, sizes, the content of three): where one differs, the files are neither those that were checked nor a copy, and
the record is not used. A CSV that lists some of the scenes, such as my_metadata_train.csv, is served by any record
beside it that knows them all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from motion_depth.data.findings import Finding, errors
from motion_depth.data.layouts import list_scene
from motion_depth.data.motion import MotionConvention
from motion_depth.data.scene import MOTION
from motion_depth.doctor.convention import Verdict, differing, flags
from motion_depth.doctor.dataset_rules import all_flags
from motion_depth.files.atomic import expect_file, write_whole
from motion_depth.files.digests import sample_digest, sampled

SUFFIX = ".check.json"
VERSION = 2
BY_FLAGS = {"convention", "convention_differs", "scene_short"}  # training judges these by its own flags
THREADS = 16


@dataclass(frozen=True)
class Record:
    """What a check said about scenes.

    convention: the measured one, None if it could not be told. fitting: all that were not ruled out. explained: share
    of the change at moving pixels that `convention` explains. differing: scenes that follow another convention than the
    others, of those asked for, with all that fit each, the best first. alike: whether any others are asked for.
    wrong: the errors about these scenes that flags cannot mend, a sentence each. path: of the record. checked: when,
    ISO 8601.
    """

    convention: MotionConvention | None
    fitting: tuple[MotionConvention, ...]
    explained: float
    differing: Mapping[str, tuple[MotionConvention, ...]]
    alike: bool
    wrong: tuple[str, ...]
    path: Path
    checked: str


def record_path(metadata_path: str | Path) -> Path:
    path = Path(metadata_path)
    return path.with_name(path.stem + SUFFIX)


def fingerprint(base_path: str | Path, scene: str) -> str:
    """Of a scene's motion files, the same of a copy; "" if there are none that can be read."""
    try:
        opened, _ = list_scene(base_path, scene)
        paths = sorted(set(opened.files[MOTION].values())) if opened else []
        return sample_digest(paths, sampled(paths)) if paths else ""
    except (OSError, ValueError):
        return ""


def fingerprints(base_path: str | Path, scenes: Iterable[str]) -> dict[str, str]:
    names = list(dict.fromkeys(scenes))
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(names, pool.map(lambda scene: fingerprint(base_path, scene), names), strict=True))


def write_record(
    metadata_path: str | Path,
    prints: Mapping[str, str],
    verdict: Verdict,
    verdicts: Mapping[str, Verdict],
    findings: Sequence[Finding],
) -> Path:
    """Write the record of a check beside the CSV.

    Args:
        prints: from `fingerprints`, taken before the files were read.
        verdict, verdicts: on all scenes together, and on each.
        findings: of the check.
    """
    odd = {name: [its.convention, *its.fitting] for name, its in differing(verdict, verdicts).items()}
    path = record_path(metadata_path)
    content = {
        "version": VERSION,
        "checked": datetime.now(UTC).isoformat(timespec="seconds"),
        "convention": verdict.convention and asdict(verdict.convention),
        "fitting": [asdict(each) for each in verdict.fitting],
        "explained": round(verdict.explained, 4),
        "differing": {name: [asdict(each) for each in fitting] for name, fitting in odd.items()},
        "errors": len(errors(findings)),
        "wrong": [[each.scene, str(each)] for each in errors(findings) if each.code not in BY_FLAGS],
        "scenes": dict(prints),
    }
    write_whole(path, json.dumps(content, indent=1) + "\n")
    return path


def recorded_check(metadata_path: str | Path, base_path: str | Path, scenes: Iterable[str]) -> Record | None:
    """The record beside the CSV that is about these scenes and these very motion files; None if there is none.

    Of several that of this CSV, or of one that it is a part of, comes before those of others, then the newest.
    """
    needed = list(dict.fromkeys(scenes))
    found = []
    for path in sorted(Path(metadata_path).parent.glob(f"*{SUFFIX}")):
        content = _read(path)
        if content is not None and set(needed) <= content["scenes"].keys():
            found.append((_is_of(path, metadata_path), content["checked"], path, content))
    if not found:
        return None
    prints = fingerprints(base_path, needed)
    for *_, path, content in sorted(found, key=lambda each: each[:2], reverse=True):
        if all(prints[scene] and content["scenes"][scene] == prints[scene] for scene in needed):
            return _record(path, content, needed)
    return None


def unused_record(metadata_path: str | Path) -> str | None:
    """A line about the record of this CSV, or of one that it is a part of, for which `recorded_check` has no use."""
    for path in sorted(Path(metadata_path).parent.glob(f"*{SUFFIX}")):
        if _is_of(path, metadata_path):
            return (
                f"{path}: is not used, as it is no record of this version, or not of these scenes with these motion "
                "files; run tools/make_metadata.py --check again"
            )
    return None


def _is_of(path: Path, metadata_path: str | Path) -> bool:
    """Whether a record is named after this CSV, or one that it is a part of (my.csv and my_train.csv)."""
    return Path(metadata_path).stem.startswith(path.name.removesuffix(SUFFIX))


def contradiction(record: Record | None, convention: MotionConvention) -> str | None:
    """Why flags contradict a recorded check, with the flags to pass; None if they do not."""
    if record is None or record.convention is None:
        return None
    given = flags(convention) or "the documented convention (no --motion_... flag)"
    check = f"the check of this dataset ({record.path}, {record.checked}) measured another motion convention"
    if record.alike and convention not in record.fitting:
        measured = flags(record.convention, convention)
        return (
            f"{check} than {given}: {measured} explains {record.explained:.0%} of what changes at moving pixels. "
            f"Pass {measured}"
        )
    odd = {scene: fitting[0] for scene, fitting in record.differing.items() if convention not in fitting}
    if not odd:
        return None
    scene, its = next(iter(odd.items()))
    if record.alike:
        measured = flags(its) or all_flags(its)
        more = f" and in {len(odd) - 1} more" if len(odd) > 1 else ""
        return f"{check} in {scene}{more} than in the others: {measured}. Convert these scenes, or leave them out"
    return f"{check} than {given} in {scene}. Pass {flags(its, convention)}"


def standing_errors(record: Record) -> str | None:
    """A line about what a recorded check found wrong, beside the flags; None if nothing."""
    if not record.wrong:
        return None
    first, *others = record.wrong
    more = f" (and {len(others)} more {'error' if len(others) == 1 else 'errors'})" if others else ""
    return f"the check of this dataset ({record.path}, {record.checked}) found an error: {first}{more}"


def _read(path: Path) -> dict | None:
    """A record's content; None if it is not one of this version."""
    try:
        content = json.loads(expect_file(path).read_text())
        if content["version"] != VERSION or not isinstance(content["scenes"], dict):
            return None
        _record(path, content, ())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content


def _record(path: Path, content: dict, needed: Sequence[str]) -> Record:
    differing = content.get("differing", {})
    return Record(
        convention=MotionConvention(**content["convention"]) if content["convention"] else None,
        fitting=_conventions(content["fitting"]),
        explained=float(content["explained"]),
        differing={scene: _conventions(differing[scene]) for scene in needed if scene in differing},
        alike=any(scene not in differing for scene in needed),
        wrong=tuple(text for scene, text in content.get("wrong", ()) if not scene or scene in needed),
        path=path,
        checked=str(content["checked"]),
    )


def _conventions(content: Sequence[dict]) -> tuple[MotionConvention, ...]:
    return tuple(MotionConvention(**each) for each in content)
