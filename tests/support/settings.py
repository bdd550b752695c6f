"""Settings of a run, for tests of its parts."""

from pathlib import Path

from motion_depth.settings import Settings


def make_settings(**changes: object) -> Settings:
    """Of stage 1, everything by default; nobody has to read the files."""
    needed = {"dataset_base_path": "data", "dataset_metadata_path": "data.csv", "output_path": "out"}
    paths = {name: Path(path) for name, path in (needed | {"model_base_path": "model"}).items()}
    return Settings.of({"stage": 1, **paths, **changes})
