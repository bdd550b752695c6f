"""What a check has to say about data: one object, whoever checks and whoever shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: `error`: training stops there or learns something wrong; `warning`: have a look; `note`: good to know.
        code: what kind of finding, such as "frame_missing"; stays the same for scripts that read reports.
        message: a sentence that names the file, row or scene, what was found and what was expected.
        scene: the scene's folder as the CSV or `find_scenes` names it; "" for the whole dataset.
        path: the file or folder; "" if there is not one.
        row: the CSV's row below the header, from 1; None if there is not one.
        advice: what to do about it, such as flags to pass; "" if the message says all.
    """

    severity: Severity
    code: str
    message: str
    scene: str = ""
    path: str = ""
    row: int | None = None
    advice: str = ""

    def __str__(self) -> str:
        where = "" if self.row is None else f"row {self.row}: "
        return f"{where}{self.message}{f'. {self.advice}' if self.advice else ''}"


def errors(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then warnings, then notes; otherwise in the order given."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and a sign that there are more."""
    listed = list(names)
    return ", ".join([*listed[:most], *["..."] * (len(listed) > most)])


def raise_errors(findings: Iterable[Finding], title: str) -> None:
    """One ValueError that lists every error, a line each; nothing if there is none."""
    found = errors(findings)
    if found:
        lines = "\n  ".join(str(finding) for finding in found)
        raise ValueError(f"{title}: {len(found)} {'problem' if len(found) == 1 else 'problems'}\n  {lines}")
