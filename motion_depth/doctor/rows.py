"""What is wrong with a CSV of scenes: rows that cannot be read, and prompts that teach the wrong thing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from motion_depth.data.findings import Finding, Severity, some
from motion_depth.data.prompts import MADE_UP
from motion_depth.files.tables import NO_ROWS, Row, empty, scan_csv
from motion_depth.latents import WAN22

MAX_TOKENS = WAN22.text_tokens  # the text encoder cuts what is longer, without a word
CHARACTERS_PER_TOKEN = 4  # of English, about


def check_rows(path: Path) -> tuple[list[Row], list[Finding]]:
    """Rows that can be read, each with `video` and `prompt`, and findings. Raises ValueError without such a file."""
    _, numbered, problems = scan_csv(path)
    rows = [(number, {name: field.strip() for name, field in row.items()}) for number, row in numbered]

    def finding(severity: Severity, code: str, message: str, row: int | None = None, scene: str = "") -> Finding:
        return Finding(severity, code, f"{path.name}: {message}", scene, str(path), row)

    found = [finding("error", *problem) for problem in problems]
    for number, row in rows:
        found += [finding(*its, number, row["video"]) for its in _row_problems(row["video"], row["prompt"])]
    found.sort(key=lambda each: each.row or 0)
    if not rows and not problems:
        found.append(finding("error", "csv_empty", NO_ROWS))
    return [row for _, row in rows], found + [finding(*problem) for problem in _compare(rows)]


def _row_problems(video: str, prompt: str) -> Iterator[tuple[Severity, str, str]]:
    for name, text in (("video", video), ("prompt", prompt)):
        if not text:
            yield "error", f"{name}_empty", empty(name)
    folders = (part for part in (video, *PurePosixPath(video).parts) if re.search(r"[_/]|[a-z][A-Z]", part))
    if name := next((part for part in folders if part.lower() in prompt.lower()), None):
        yield "warning", "prompt_folder", f"the prompt still holds the folder's name {name!r}; describe what is seen"
    elif prompt.startswith(MADE_UP):
        yield "note", "prompt_made_up", f"the prompt was made of the folder's name ({prompt!r}); describe what is seen"
    rest = f"the text encoder takes {MAX_TOKENS} and would cut the rest"
    words, about = len(prompt.split()), len(prompt.encode()) // CHARACTERS_PER_TOKEN
    if words >= MAX_TOKENS:  # the end takes one token, each word at least one
        yield "error", "prompt_long", f"the prompt has {words} words, at least as many tokens; {rest}"
    elif about > MAX_TOKENS:
        yield "warning", "prompt_long", f"the prompt has about {about} tokens; {rest}"


def _compare(rows: list[tuple[int, Row]]) -> Iterator[tuple[Severity, str, str, int | None, str]]:
    same, shared = defaultdict(list), defaultdict(set)
    for number, row in rows:
        video = str(PurePosixPath(row["video"]))
        same[row["video"] and video, row["prompt"]].append(number)
        shared[row["prompt"]].add(video)
    for (video, _), places in same.items():
        if video and len(places) > 1:
            message = f"the same scene with the same prompt as in row {places[0]}; it counts double in training"
            yield "warning", "row_twice", message, places[1], video
    for prompt, videos in shared.items():
        if prompt and len(videos) > 1:
            message = f"{len(videos)} scenes share the prompt {prompt[:60]!r}: {some(sorted(videos))}"
            yield "note", "prompt_shared", message, None, ""
