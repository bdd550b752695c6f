"""The backbones that there are. A new one is a file like wan.py, and a line here."""

from __future__ import annotations

from pathlib import Path

from motion_depth.model.backbone import Backbone
from motion_depth.model.wan import Wan

BACKBONES: dict[str, type[Backbone]] = {"wan22_ti2v": Wan}


def backbone_kind(model_base_path: Path | None) -> type[Backbone]:
    """The kind of model in a folder; the first of the table where none is recognised, or no folder is given."""
    kinds = (kind for kind in BACKBONES.values() if model_base_path is not None and kind.recognises(model_base_path))
    return next(kinds, next(iter(BACKBONES.values())))
