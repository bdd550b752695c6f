"""A check as report.html, one page that needs nothing else, and report.json, for scripts."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from motion_depth.data.findings import SEVERITIES, Finding
from motion_depth.doctor import plots
from motion_depth.doctor.check import DatasetCheck
from motion_depth.doctor.convention import flags
from motion_depth.doctor.summary import convention_sentence, summarise_scenes, summarise_strides
from motion_depth.doctor.text import headline, metres, number, percent, relative
from motion_depth.files.atomic import write_whole

VERSION = 1
SHOWN_TOGETHER = 5  # findings of one kind beyond this many are folded away in the page


def write_report(check: DatasetCheck, folder: Path) -> tuple[Path, Path]:
    """Write report.html and report.json."""
    page, data = folder / "report.html", folder / "report.json"
    write_whole(page, html(check))
    write_whole(data, json.dumps(_plain(as_dict(check)), indent=1) + "\n")
    return page, data


def as_dict(check: DatasetCheck) -> dict[str, Any]:
    """The content of report.json; a number that is not known is null there."""
    verdict = check.verdict
    return {
        "version": VERSION,
        "checked": _now(),
        "base_path": str(check.base_path),
        "metadata_path": check.metadata_path and str(check.metadata_path),
        "settings": asdict(check.settings),
        "convention": {
            "measured": verdict.convention and asdict(verdict.convention),
            "flags": verdict.convention and flags(verdict.convention),
            "unknown": verdict.unknown,
            "explained": verdict.explained,
            "next_best": verdict.next_best,
            "scenes": verdict.scenes,
            "frames": verdict.frames,
        },
        "counts": {name: check.count(name) for name in SEVERITIES},
        "findings": [asdict(finding) for finding in check.findings],
        "scenes": [asdict(each) for each in summarise_scenes(check)],
        "strides": [asdict(each) for each in summarise_strides(check)],
        "read_bytes": check.read_bytes,
        "seconds": round(check.seconds, 3),
        "workers": check.workers,
    }


def html(check: DatasetCheck) -> str:
    """The page. All text is escaped; plots and pictures stand in it; it asks for nothing else."""
    convention = check.verdict.convention or check.settings.convention
    strides = summarise_strides(check)
    measures = {measure.scene: measure for measure in check.measures}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "metres": metres, "number": number}
    return environment.get_template("report.html").render(
        check=check,
        name=check.base_path.resolve().name,
        checked=_now(),
        headline=headline(check),
        state=next((name for name in ("error", "warning") if check.count(name)), "ok"),
        sentence=convention_sentence(check.verdict),
        flags=check.verdict.convention and flags(check.verdict.convention),
        groups=_groups(check),
        shown_together=SHOWN_TOGETHER,
        strides=strides,
        scenes=summarise_scenes(check),
        prompts=check.prompts,
        # Drawn here, from numbers alone: safe to stand in the page as they are.
        convention_plot=Markup(plots.convention_plot(check)),
        speed_plot=Markup(plots.speed_plot(check, strides)),
        spark={name: Markup(plots.sparkline(each, convention)) for name, each in measures.items()},
        thumbnails={name: plots.thumbnail(each, convention) for name, each in measures.items()},
    )


def _groups(check: DatasetCheck) -> list[tuple[str, str, list[tuple[Finding, str]]]]:
    """Findings by severity and code: (severity, code, [(finding, message without the dataset's folder)])."""
    groups: dict[tuple[str, str], list[tuple[Finding, str]]] = {}
    for finding in check.findings:
        groups.setdefault((finding.severity, finding.code), []).append((finding, relative(check, finding.message)))
    return [(severity, code, members) for (severity, code), members in groups.items()]


def _plain(value: Any) -> Any:
    """JSON knows no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
