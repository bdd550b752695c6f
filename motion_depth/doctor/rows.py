"""What is wrong with a CSV of scenes: rows that cannot be read, and prompts that teach the wrong thing."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from motion_depth.data.findings import Finding, Severity, some
from motion_depth.data.prompts import MADE_UP
from motion_depth.files.atomic import expect_file
from motion_depth.files.tables import column_names, column_problem, field_problem, parse_csv
from motion_depth.latents import WAN22

MAX_TOKENS = WAN22.text_tokens  # the text encoder cuts what is longer, without a word
CHARACTERS_PER_TOKEN = 4  # of English, about
UNDECODABLE = "[\udc80-\udcff]"  # bytes that are no UTF-8 travel so, and the row that they stand in can be named

CountTokens = Callable[[str], int]
Problem = tuple[Severity, str, str, int | None, str]  # severity, code, message, row from 1 below the header, scene


def check_rows(path: Path, count_tokens: CountTokens | None = None) -> tuple[list[dict[str, str]], list[Finding]]:
    """Rows that can be read, each with `video` and `prompt`, and findings.

    count_tokens: the tokenizer's count for a prompt; without it, only what is surely or probably too long is found.
    Raises ValueError if there is no such file.
    """
    try:
        data = expect_file(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: not readable, expected a CSV ({error.strerror})") from None
    rows: list[dict[str, str]] = []
    problems = list(_read(data, rows, count_tokens))
    findings = [
        Finding(severity, code, f"{path.name}: {message}", scene, str(path), row)
        for severity, code, message, row, scene in problems
    ]
    return rows, findings


def _read(data: bytes, rows: list[dict[str, str]], count_tokens: CountTokens | None) -> Iterator[Problem]:
    """Fills in `rows`."""
    try:
        lines = parse_csv(data, errors="surrogateescape")
    except csv.Error as error:
        yield "error", "csv_broken", f"not readable, expected a CSV ({error})", None, ""
        return
    for number, line in enumerate(lines):
        if any(re.search(UNDECODABLE, field) for field in line):
            yield "error", "csv_not_utf8", "found text that is not UTF-8; save the file as UTF-8", number or None, ""
            lines[number] = [re.sub(UNDECODABLE, "\ufffd", field) for field in line]
    if not lines:
        yield "error", "csv_empty", "found an empty file, expected the columns video and prompt", None, ""
        return
    columns, numbers = column_names(lines), []
    if problem := column_problem(columns):
        yield "error", "csv_columns", problem, None, ""
        return
    for number, line in enumerate(lines[1:], start=1):
        if len(line) != len(columns):
            yield "error", "csv_fields", field_problem(line, columns), number, ""
            continue
        numbers.append(number)
        rows.append({name: field.strip() for name, field in zip(columns, line, strict=True)})
        for severity, code, message in _row_problems(rows[-1]["video"], rows[-1]["prompt"], count_tokens):
            yield severity, code, message, number, rows[-1]["video"]
    if len(lines) == 1:
        yield "error", "csv_empty", "found no row below the header, expected one for each scene", None, ""
    yield from _compare(numbers, rows)


def _row_problems(video: str, prompt: str, count_tokens: CountTokens | None) -> Iterator[tuple[Severity, str, str]]:
    for name, text in (("video", video), ("prompt", prompt)):
        if not text:
            yield "error", f"{name}_empty", f"found an empty {name}, expected a text"
    folders = (part for part in (video, *PurePosixPath(video).parts) if re.search(r"[_/]|[a-z][A-Z]", part))
    if name := next((part for part in folders if part.lower() in prompt.lower()), None):
        yield "warning", "prompt_folder", f"the prompt still holds the folder's name {name!r}; describe what is seen"
    elif prompt.startswith(MADE_UP):
        yield "note", "prompt_made_up", f"the prompt was made of the folder's name ({prompt!r}); describe what is seen"
    rest = f"the text encoder takes {MAX_TOKENS} and would cut the rest"
    words, about = len(prompt.split()), len(prompt.encode()) // CHARACTERS_PER_TOKEN
    if count_tokens is not None:
        if (tokens := count_tokens(prompt)) > MAX_TOKENS:
            yield "error", "prompt_long", f"the prompt has {tokens} tokens; {rest}"
    elif words >= MAX_TOKENS:  # the end takes one token, each word at least one
        yield "error", "prompt_long", f"the prompt has {words} words, at least as many tokens; {rest}"
    elif about > MAX_TOKENS:
        yield "warning", "prompt_long", f"the prompt has about {about} tokens; {rest}. --tokenizer_path counts exactly"


def _compare(numbers: list[int], rows: list[dict[str, str]]) -> Iterator[Problem]:
    same, shared = defaultdict(list), defaultdict(set)
    for number, row in zip(numbers, rows, strict=True):
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
