"""The CSV, row by row: what `read_metadata` would stop at, and prompts that teach the wrong thing."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from motion_depth.data.findings import Finding, Severity
from motion_depth.files.atomic import expect_file
from motion_depth.files.tables import column_names, column_problem, field_problem, parse_csv
from motion_depth.latents import WAN22

MAX_TOKENS = WAN22.text_tokens  # the text encoder cuts what is longer, without a word
CHARACTERS_PER_TOKEN = 4  # of English, about
MADE_UP = "A physics scene"  # how make_prompt begins where it cannot read a folder's name


def check_rows(
    path: Path, count_tokens: Callable[[str], int] | None = None
) -> tuple[list[dict[str, str]], list[Finding]]:
    """Rows that can be read, each with `video` and `prompt`, and findings; rows are counted from 1 below the header.

    count_tokens: the tokenizer's count for a prompt; without it, only what is surely or probably too long is found.
    Raises ValueError if there is no such file.
    """
    try:
        data = expect_file(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: not readable, expected a CSV ({error.strerror})") from None
    found = _Findings(path)
    lines = _read_lines(data, found)
    if not lines:
        return [], found.findings
    columns = column_names(lines)
    if problem := column_problem(columns):
        found("csv_columns", problem)
        return [], found.findings
    rows = []
    for number, line in enumerate(lines[1:], start=1):
        if len(line) != len(columns):
            found("csv_fields", field_problem(line, columns), number)
            continue
        row = {name: field.strip() for name, field in zip(columns, line, strict=True)}
        rows.append(row)
        for problem in _row_problems(row, count_tokens):
            found(*problem[:2], number, row["video"], problem[2])
    if len(lines) == 1:
        found("csv_empty", "found no row below the header, expected one for each scene")
    _compare_rows(rows, found)
    return rows, found.findings


class _Findings:
    def __init__(self, path: Path):
        self.path, self.findings = path, []

    def __call__(
        self, code: str, message: str, row: int | None = None, scene: str = "", severity: Severity = "error"
    ) -> None:
        self.findings.append(Finding(severity, code, f"{self.path.name}: {message}", scene, str(self.path), row))


def _read_lines(data: bytes, found: _Findings) -> list[list[str]]:
    """The CSV's lines that are not empty, the header first; text that is not UTF-8 is replaced, and found."""
    try:
        # Undecodable bytes travel as lone surrogates, so that the row that they stand in can be named.
        lines = parse_csv(data, errors="surrogateescape")
    except csv.Error as error:
        found("csv_broken", f"not readable, expected a CSV ({error})")
        return []
    if not lines:
        found("csv_empty", "found an empty file, expected the columns video and prompt")
    for number, line in enumerate(lines):
        if any("\udc80" <= letter <= "\udcff" for field in line for letter in field):
            found("csv_not_utf8", "found text that is not UTF-8; save the file as UTF-8", number or None)
            lines[number] = [re.sub("[\udc80-\udcff]", "\ufffd", field) for field in line]
    return lines


def _row_problems(
    row: dict[str, str], count_tokens: Callable[[str], int] | None
) -> Iterator[tuple[str, str, Severity]]:
    video, prompt = row["video"], row["prompt"]
    for name in ("video", "prompt"):
        if not row[name]:
            yield f"{name}_empty", f"found an empty {name}, expected a text", "error"
    if name := _folder_name_in(prompt, video):
        yield "prompt_folder", f"the prompt still holds the folder's name {name!r}; describe what is seen", "warning"
    elif prompt.startswith(MADE_UP):
        yield "prompt_made_up", f"the prompt was made of the folder's name ({prompt!r}); describe what is seen", "note"
    yield from _length_problems(prompt, count_tokens)


def _folder_name_in(prompt: str, video: str) -> str:
    """The part of the scene's folder that stands in the prompt as it is, if it is not an ordinary word."""
    for part in (video, *PurePosixPath(video).parts):
        if re.search(r"[_/]|[a-z][A-Z]", part) and part.lower() in prompt.lower():
            return part
    return ""


def _length_problems(prompt: str, count_tokens: Callable[[str], int] | None) -> Iterator[tuple[str, str, Severity]]:
    rest = f"the text encoder takes {MAX_TOKENS} and would cut the rest"
    if count_tokens is not None:
        if (tokens := count_tokens(prompt)) > MAX_TOKENS:
            yield "prompt_long", f"the prompt has {tokens} tokens; {rest}", "error"
    elif (words := len(prompt.split())) >= MAX_TOKENS:  # the end takes one token, each word at least one
        yield "prompt_long", f"the prompt has {words} words, at least as many tokens; {rest}", "error"
    elif (tokens := len(prompt.encode()) // CHARACTERS_PER_TOKEN) > MAX_TOKENS:
        yield "prompt_long", f"the prompt has about {tokens} tokens; {rest}. --tokenizer_path counts exactly", "warning"


def _compare_rows(rows: list[dict[str, str]], found: _Findings) -> None:
    same, shared = defaultdict(list), defaultdict(set)
    for number, row in enumerate(rows, start=1):
        same[str(PurePosixPath(row["video"])), row["prompt"]].append(number)
        if row["prompt"]:
            shared[row["prompt"]].add(str(PurePosixPath(row["video"])))
    for (video, _), numbers in same.items():
        if video and len(numbers) > 1:
            message = f"the same scene with the same prompt as in row {numbers[0]}; it counts double in training"
            found("row_twice", message, numbers[1], video, "warning")
    for prompt, videos in shared.items():
        if len(videos) > 1:
            names = f"{', '.join(sorted(videos)[:3])}{', ...' if len(videos) > 3 else ''}"
            found("prompt_shared", f"{len(videos)} scenes share the prompt {prompt[:60]!r}: {names}", severity="note")
