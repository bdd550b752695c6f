"""Rows of a panel: the video, and every quantity as true, predicted, error. Truth gives the scales of colours."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from motion_depth.pictures.panels import PanelRow
from motion_depth.readouts import READOUTS
from motion_depth.readouts.readout import Predictions
from motion_depth.readouts.targets import Targets


def reading_rows(pictures: Mapping[str, Tensor], readings: Mapping[str, Targets]) -> list[PanelRow]:
    """Videos, then the motion of every reading, then the depth of every one, and so on, all on the scales of the first.

    Args:
        pictures: label -> (t, h, w, 3) uint8.
        readings: what comes before "motion", "depth" ... in the label -> maps of one clip; the truth comes first where
            there is one.
    """
    first = next(iter(readings.values()))
    rows = [PanelRow(label, frames.cpu().numpy()) for label, frames in pictures.items()]
    for line, (name, readout) in enumerate(READOUTS.items()):
        scale = readout.scale(first[name])
        for label, maps in readings.items():
            colours = scale.colour(maps[name].map, readout.has_value(maps[name]))
            rows.append(PanelRow(f"{label} {name}", colours, scale, line))
    return rows


def truth_and_prediction_rows(frames: Tensor, truth: Targets, predictions: Predictions) -> list[PanelRow]:
    """Video, then every quantity as true, predicted, error; the truth's scales serve the prediction too.

    Errors are shown where the truth is valid and the prediction finite: a prediction's own mask hides none.

    Args:
        frames: (t, h, w, 3) uint8.
        truth, predictions: of one clip, (t, ...).
    """
    rows = [PanelRow("Video", frames.cpu().numpy())]
    for line, (name, readout) in enumerate(READOUTS.items()):
        true, predicted = truth[name], readout.view(predictions).map
        scale, has_value = readout.scale(true), readout.has_value(true)
        shown = readout.has_value(true._replace(map=predicted, valid=None))
        error, error_scale = readout.error(predicted, true, scale)
        rows += [
            PanelRow(f"True {name}", scale.colour(true.map, has_value), scale, line),
            PanelRow(f"Predicted {name}", scale.colour(predicted, shown), scale, line),
            PanelRow(f"{name.capitalize()} error", error_scale.colour(error, has_value), error_scale, line),
        ]
    return rows


def predicted_maps(predictions: Predictions) -> Targets:
    """What the heads say, as maps; masks are where they say that there is something."""
    return Targets({name: readout.view(predictions) for name, readout in READOUTS.items()})
