"""The evaluation's report: one self-contained HTML page with the knowledge curves, tables and pictures."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from motion_depth.files.atomic import write_whole
from motion_depth.readouts import READOUTS, Readout

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title><style>
body { font: 15px/1.5 system-ui, sans-serif; color: #28282e; max-width: 1400px; margin: 2rem auto; padding: 0 1.5rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; font-size: 13px }
td, th { padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left } th { vertical-align: bottom; white-space: normal; max-width: 8rem }
img { max-width: 100%; margin: .5rem 0 } h2 { margin-top: 2.5rem } .scroll { overflow-x: auto }
</style></head><body>
<h1>Evaluation</h1><p>{{ title }}</p>
<p>{{ data }}</p>
<p>Noise 0.02: the model sees the video. Noise 1.0: it sees the first frame and the prompt only, so what the heads
say is a forecast. Depth errors are in metres without alignment, motion in pixels of the clip, all at full
resolution.</p>
<h2>What the model knows</h2>
{% for image in plots %}<img alt="" src="data:image/png;base64,{{ image }}">{% endfor %}
<h2>All scenes, by noise level</h2>{{ table(overall) }}
{% for sigma, rows in scenes.items() %}<h2>Scenes at noise {{ sigma }}</h2>{{ table(rows) }}{% endfor %}
{% if pictures %}<h2>Pictures</h2>{% endif %}
{% for image in pictures %}<p><img alt="" src="data:image/png;base64,{{ image }}"></p>{% endfor %}
</body></html>
"""
TABLE = """<div class="scroll"><table><tr><th></th>{% for c in columns %}<th>{{ c }}</th>{% endfor %}</tr>
{% for name, row in rows.items() %}<tr><td>{{ name }}</td>
{% for c in columns %}<td>{{ cell(row.get(c)) }}</td>{% endfor %}</tr>
{% endfor %}</table></div>"""


def write_report(path: Path, results: dict, pictures: list[Path], title: str, data: str) -> None:
    """Writes the page.

    Args:
        results: of `scores.summarise`.
        pictures: PNG files that are put into the page.
        title: which checkpoint on which data; escaped, as all names are.
        data: what the clips are like and how their files were read.
    """
    environment = Environment(autoescape=True)
    table = environment.from_string(TABLE)
    levels = list(results["overall"])
    columns = [name for readout in READOUTS.values() for name in readout.columns]
    page = environment.from_string(PAGE).render(
        title=title,
        data=data,
        plots=[_by_noise(results), _by_frame(results)],
        overall=results["overall"],
        scenes={
            sigma: {scene: found[sigma] for scene, found in results["per_scene"].items()}
            for sigma in dict.fromkeys((levels[0], levels[-1]))
        },
        pictures=[base64.b64encode(picture.read_bytes()).decode() for picture in pictures],
        table=lambda rows: Markup(table.render(rows=rows, columns=columns, cell=_cell)),  # escaped by its own template
    )
    write_whole(path, page)


def _by_noise(results: dict) -> str:
    """Error over noise level, a panel for each quantity."""
    levels = {float(sigma): metrics for sigma, metrics in results["overall"].items()}

    def draw(axes: Axes, readout: Readout) -> None:
        curves = {"model": readout.scored, **_baselines(readout)}
        for label, metric in curves.items():
            values = [_number(metrics.get(metric)) for metrics in levels.values()]
            axes.plot(list(levels), values, "o-" if label == "model" else "--", label=label)

    return _panels(draw, "noise level (1: only the first frame is known)")


def _by_frame(results: dict) -> str:
    """Error over frames ahead of the known first one, a line per noise level."""

    def draw(axes: Axes, readout: Readout) -> None:
        for sigma, frames in results["per_frame"].items():
            axes.plot(range(len(frames)), [_number(each[readout.scored]) for each in frames], label=f"noise {sigma}")
        frames = next(iter(results["per_frame"].values()))
        label, metric = next(iter(_baselines(readout).items()))
        axes.plot(range(len(frames)), [_number(each.get(metric)) for each in frames], "k--", label=label)

    return _panels(draw, "frames ahead of the first one")


def _baselines(readout: Readout) -> dict[str, str]:
    """What a trivial prediction says -> the metric that stands for the quantity, of that prediction."""
    return {label: f"{readout.scored}_{name}" for name, label in readout.baselines.items()}


def _panels(draw: Callable[[Axes, Readout], None], xlabel: str) -> str:
    """A PNG, in base64, of a plot for each quantity side by side."""
    figure = Figure(figsize=(6.5 * len(READOUTS), 4.2), layout="constrained")
    for axes, readout in zip(figure.subplots(1, len(READOUTS), squeeze=False)[0], READOUTS.values(), strict=True):
        draw(axes, readout)
        axes.set(title=readout.plot, xlabel=xlabel, ylim=(0, None))
        axes.legend()
        axes.grid(alpha=0.3)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return base64.b64encode(data.getvalue()).decode()


def _cell(value: float | None) -> str:
    """A metric in a table; None has no pixel."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.4g}" if math.isfinite(value) else "not finite"


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
