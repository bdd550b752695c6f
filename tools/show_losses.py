"""Prints how the losses of one or more runs have changed, from the log.jsonl that training writes.

    python tools/show_losses.py outputs/stage1 outputs/stage2

"first" and "last" are means over the first and the last tenth of the run's iterations.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

LOG_FILE = "log.jsonl"


def read_rows(run: Path) -> list[dict]:
    """All rows of a run's log, in order. Raises ValueError naming the file, or the line, that is wrong."""
    path = run / LOG_FILE
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; give the OUTPUT_PATH of a run that has trained")
    rows = []
    complete, _, _ = path.read_text().rpartition("\n")  # the last line may be half-written while the run goes on
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}: line {number} is not JSON ({error})") from None
    return rows


def read_losses(run: Path) -> list[dict]:
    """Rows of training alone: those of validation and health name their group. Raises ValueError, also without any."""
    rows = [row for row in read_rows(run) if "loss" in row and "group" not in row]
    if not rows:
        raise ValueError(f"{run / LOG_FILE}: holds no losses yet")
    return rows


def first_and_last(rows: list[dict], name: str) -> tuple[float, float]:
    """Means of a loss over the rows of the first and of the last tenth of the iterations."""
    span = max(1, rows[-1]["step"] // 10)
    first = [row[name] for row in rows if row["step"] <= span] or [rows[0][name]]
    last = [row[name] for row in rows if row["step"] > rows[-1]["step"] - span]
    return sum(first) / len(first), sum(last) / len(last)


def print_table(runs: list[Path]) -> None:
    logs = {run: read_losses(run) for run in runs}
    width = max(len("run"), *(len(str(run)) for run in runs))
    print(f"{'run':<{width}}  {'iterations':>10}  {'':<12}  {'first':>8}  {'last':>8}")
    for run, rows in logs.items():
        title = f"{run!s:<{width}}  {rows[-1]['step']:>10}"
        for name in (name for name in rows[0] if name.endswith("loss")):
            first, last = first_and_last(rows, name)
            print(f"{title}  {name.replace('_', ' '):<12}  {first:8.4f}  {last:8.4f}")
            title = " " * len(title)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="OUTPUT_PATH of a run")
    try:
        print_table(parser.parse_args().runs)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
