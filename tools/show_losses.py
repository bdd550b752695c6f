"""Prints how the losses of one or more runs have changed, from the log.jsonl that training writes.

    python tools/show_losses.py outputs/stage1 outputs/stage2

"first" and "last" are means over the first and the last tenth of the run's iterations.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import pandas as pd

LOG_FILE = "log.jsonl"


def first_and_last(run: Path) -> pd.DataFrame:
    """Means of each loss over the rows of the first and of the last tenth of the iterations, a row for each loss.

    Rows of validation and health, which name their group, do not count. Raises ValueError without a log, or losses.
    """
    path = run / LOG_FILE
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; give the OUTPUT_PATH of a run that has trained")
    complete, _, _ = path.read_text().rpartition("\n")  # the last line may be half-written while the run goes on
    try:
        rows = pd.read_json(io.StringIO(complete), lines=True)
    except ValueError as error:
        raise ValueError(f"{path}: a line is not JSON ({error})") from None
    if "group" in rows:
        rows = rows[rows["group"].isna()]
    if "loss" not in rows or rows["loss"].isna().all():
        raise ValueError(f"{path}: holds no losses yet")
    rows = rows[rows["loss"].notna()]
    losses, step, end = rows.filter(regex="loss$"), rows["step"], rows["step"].iloc[-1]
    span = max(1, end // 10, step.iloc[0])
    means = {"first": losses[step <= span].mean(), "last": losses[step > end - max(1, end // 10)].mean()}
    return pd.DataFrame({"iterations": end} | means).rename(index=lambda name: name.replace("_", " "))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="OUTPUT_PATH of a run")
    try:
        tables = {str(run): first_and_last(run) for run in parser.parse_args().runs}
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(pd.concat(tables, names=["run", ""]).to_string(float_format="{:.4f}".format))
    return 0


if __name__ == "__main__":
    sys.exit(main())
