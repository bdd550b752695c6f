"""How a CSV is read, whoever reads it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from motion_depth.files.atomic import expect_file

COLUMNS = ("video", "prompt")  # of every list of scenes; it may have others
UNDECODABLE = "[\udc80-\udcff]"  # bytes that are no UTF-8 travel so, and the row that they stand in can be named
NO_ROWS = "found no row below the header, expected one for each scene"

Row = dict[str, str]


class Problem(NamedTuple):
    """What is wrong with a CSV. code: the kind. row: from 1 below the header; None: the header, or all of the file."""

    code: str
    message: str
    row: int | None


def scan_csv(
    path: str | Path, needed: Sequence[str] = COLUMNS
) -> tuple[list[str], list[tuple[int, Row]], list[Problem]]:
    """Columns, the rows that can be read with their numbers, from 1 below the header, and what is wrong.

    In UTF-8, with or without a byte order mark. Fields are text as it stands there, lines without any are passed over.

    Raises:
        ValueError: there is no such file.
    """
    try:
        text = expect_file(path).read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise ValueError(f"{path}: not readable, expected a CSV ({error.strerror})") from None
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except csv.Error as error:
        return [], [], [Problem("csv_broken", f"not readable, expected a CSV ({error})", None)]
    problems, rows = [], []
    for number, line in enumerate(lines):
        if any(re.search(UNDECODABLE, field) for field in line):
            message = "found text that is not UTF-8; save the file as UTF-8"
            problems.append(Problem("csv_not_utf8", message, number or None))
            lines[number] = [re.sub(UNDECODABLE, "\ufffd", field) for field in line]
    columns = [name.strip() for name in lines[0]] if lines else []
    if not set(needed) <= set(columns) or len(set(columns)) < len(columns):
        found = f"the columns {', '.join(columns)}" if columns else "an empty file"
        message = f"found {found}, expected {', '.join(needed)} and, if you like, others, each once"
        return columns, [], [*problems, Problem("csv_columns" if columns else "csv_empty", message, None)]
    for number, line in enumerate(lines[1:], start=1):
        if len(line) == len(columns):
            rows.append((number, dict(zip(columns, line, strict=True))))
        else:
            message = f"found {len(line)} fields, expected {len(columns)}"
            comma = "a prompt that contains a comma must stand in double quotes"
            problems.append(Problem("csv_fields", f"{message}; {comma}", number))
    return columns, rows, problems


def read_csv(path: str | Path, needed: Sequence[str] = COLUMNS) -> tuple[list[str], list[Row]]:
    """Columns and rows of a CSV.

    Raises:
        ValueError: the first problem of `scan_csv`; names the file and, from 1, the row below the header.
    """
    columns, rows, problems = scan_csv(path, needed)
    for _, message, row in problems:
        raise ValueError(f"{path}{f' row {row}' if row else ''}: {message}")
    return columns, [row for _, row in rows]


def read_metadata(path: str | Path) -> list[Row]:
    """Rows of a CSV with the columns `video` (a scene's folder) and `prompt`, both filled in; others are kept as text.

    Raises:
        ValueError: names the file and, from 1, the row below the header.
    """
    _, rows = read_csv(path)
    if not rows:
        raise ValueError(f"{path}: {NO_ROWS}")
    for number, row in enumerate(rows, start=1):
        for name in COLUMNS:
            row[name] = row[name].strip()
            if not row[name]:
                raise ValueError(f"{path} row {number}: {empty(name)}")
    return rows


def empty(name: str) -> str:
    return f"found an empty {name}, expected a text"
