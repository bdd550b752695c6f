"""How a CSV is read, whoever reads it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from motion_depth.files.atomic import expect_file

COLUMNS = ("video", "prompt")  # of every list of scenes; it may have others


def read_csv(path: str | Path, needed: Sequence[str] = COLUMNS) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a CSV; fields are text as it stands there, lines without any are passed over.

    Raises:
        ValueError: names the file and, from 1, the row below the header.
    """
    try:
        lines = parse_csv(expect_file(path).read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: not readable, expected a CSV ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: found text that is not UTF-8 ({error.reason} at byte {error.start})") from None
    except csv.Error as error:
        raise ValueError(f"{path}: not readable, expected a CSV ({error})") from None
    columns = column_names(lines)
    if problem := column_problem(columns, needed):
        raise ValueError(f"{path}: {problem}")
    for number, line in enumerate(lines[1:], start=1):
        if len(line) != len(columns):
            raise ValueError(f"{path} row {number}: {field_problem(line, columns)}")
    return columns, [dict(zip(columns, line, strict=True)) for line in lines[1:]]


def read_metadata(path: str | Path) -> list[dict[str, str]]:
    """Rows of a CSV with the columns `video` (a scene's folder) and `prompt`, both filled in; others are kept as text.

    Raises:
        ValueError: names the file and, from 1, the row below the header.
    """
    _, rows = read_csv(path)
    if not rows:
        raise ValueError(f"{path}: found no row below the header, expected one for each scene")
    for number, row in enumerate(rows, start=1):
        for name in COLUMNS:
            row[name] = row[name].strip()
            if not row[name]:
                raise ValueError(f"{path} row {number}: found an empty {name}, expected a text")
    return rows


def parse_csv(data: bytes, errors: str = "strict") -> list[list[str]]:
    """The lines that are not empty, the header first, of a CSV in UTF-8, with or without a byte order mark.

    Raises:
        UnicodeDecodeError: unless `errors` says otherwise, see `bytes.decode`.
        csv.Error: such as a quote that is not closed.
    """
    text = io.StringIO(data.decode("utf-8-sig", errors), newline="")
    return [line for line in csv.reader(text, strict=True) if line]


def column_names(lines: list[list[str]]) -> list[str]:
    return [name.strip() for name in lines[0]] if lines else []


def column_problem(columns: list[str], needed: Sequence[str] = COLUMNS) -> str | None:
    """What is wrong with a header, if anything is."""
    if set(needed) <= set(columns) and len(set(columns)) == len(columns):
        return None
    found = f"the columns {', '.join(columns)}" if columns else "an empty file"
    return f"found {found}, expected {', '.join(needed)} and, if you like, others, each once"


def field_problem(line: list[str], columns: list[str]) -> str:
    """What is wrong with a row that has more fields than columns, or fewer."""
    return (
        f"found {len(line)} fields, expected {len(columns)}; a prompt that contains a comma must stand in double quotes"
    )
