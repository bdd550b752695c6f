"""A check as lines for the terminal, as report.html, one page that needs nothing else, and as report.json."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from motion_depth.doctor import plots
from motion_depth.doctor.check import DatasetCheck
from motion_depth.doctor.summary import assumed_convention, convention_sentence, headline, summarise
from motion_depth.files.atomic import write_json, write_whole

SHOWN_TOGETHER = 5  # findings of one kind beyond this many are folded away in the page


def write_report(check: DatasetCheck, folder: Path) -> Path:
    """Write report.html and report.json. Returns the page's path."""
    write_json(folder / "report.json", summarise(check) | {"checked": _now()})
    write_whole(folder / "report.html", html(check))
    return folder / "report.html"


def text(check: DatasetCheck) -> str:
    """What is printed: a line per scene, the convention, motion per stride, and every finding."""
    return _render(check, "report.txt")


def html(check: DatasetCheck) -> str:
    """The page. All text is escaped; plots and pictures stand in it; it asks for nothing else."""
    return _render(check, "report.html")


def _render(check: DatasetCheck, template: str) -> str:
    groups = defaultdict(list)
    for finding in check.findings:
        groups[finding.severity, finding.code].append(finding)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = {"percent": percent, "metres": "{:.3g}".format, "number": "{:.1f}".format}
    environment.filters |= {name: _or_dash(how) for name, how in formats.items()}
    environment.filters["relative"] = lambda message: _relative(check, message)
    return environment.get_template(template).render(
        summarise(check),
        check=check,
        checked=_now(),
        headline=headline(check),
        state=next((name for name in ("error", "warning") if check.count(name)), "ok"),
        sentence=convention_sentence(check.verdict),
        groups=groups,
        shown_together=SHOWN_TOGETHER,
        plots=plots,
        read_as=assumed_convention(check),
    )


def percent(value: float) -> str:
    return f"{value:.1%}" if value < 0.1 else f"{value:.0%}"


def _or_dash(how: Callable[[float], str]) -> Callable[[float], str]:
    return lambda value: "–" if math.isnan(value) else how(value)


def _relative(check: DatasetCheck, message: str) -> str:
    """A message with the dataset's own folder left out of its paths."""
    for base in (check.base_path.resolve(), check.base_path):
        message = message.replace(f"{base}{os.sep}", "")
    return message


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
