"""What the training set looks like, where it holds numbers that no loss can be divided by or no logarithm taken of."""

import json
import math

import numpy as np
import pytest
import torch

from motion_depth.readouts.statistics import measure
from motion_depth.readouts.targets import Targets
from tests.support.inprocess import train
from tests.support.quantities import motion_and_depth
from tests.support.scene_files import plain_scene
from tools import make_metadata

NEAR = (1e-10, 2.0**-15, 1e-38)  # metres; a renderer's background, and what loses its digits in float16


@pytest.mark.parametrize("value", NEAR)
def test_depths_next_to_zero_are_nothing_from_the_check_to_the_losses(tiny_wan, tmp_path, value, capsys):
    """A third of every picture: the check counts it, statistics and losses are finite, no update is skipped."""
    plain_scene(tmp_path / "data/a")
    for path in (tmp_path / "data/a/distance_to_camera").iterdir():
        depth = np.load(path)
        depth[:, :32] = value
        np.save(path, depth)
    csv = tmp_path / "my.csv"
    listed = ["--dataset_base_path", str(tmp_path / "data"), "--output", str(csv)]
    make_metadata.main([*listed, "--check", "--num_frames", "5", "--workers", "1"])
    said = capsys.readouterr()
    assert "nothing  33%" in said.out, said.out + said.err
    done = train(
        *("--stage", 1, "--dataset_base_path", tmp_path / "data", "--dataset_metadata_path", csv),
        *("--model_base_path", tiny_wan, "--height", 64, "--width", 96, "--num_frames", 5, "--head_size", "small"),
        *("--mixed_precision", "no", "--dataset_num_workers", 0, "--max_steps", 2, "--gradient_accumulation_steps", 1),
        *("--output_path", tmp_path / "out"),
    )
    assert done.code == 0, done.err
    assert "skipped" not in done.out + done.err
    rows = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    losses = [value for row in rows for name, value in row.items() if name.endswith("_loss")]
    assert len(losses) >= 4
    assert all(map(math.isfinite, losses))
    statistics = json.loads((tmp_path / "out/final/config.json").read_text())["statistics"]
    assert all(map(math.isfinite, (statistics["log_depth"], *statistics["scales"].values())))
    assert statistics["background_share"] == pytest.approx(1 / 3)


def targets(**changes: float) -> Targets:
    """Three frames of 4 x 4 that move; the first number of a map is another one."""
    maps = {"motion": torch.full((3, 2, 4, 4), 2.0), "depth": torch.full((3, 4, 4), 3.0)}
    for name, value in changes.items():
        maps[name].view(-1)[0] = value
    valid = torch.ones(3, 4, 4, dtype=torch.bool)
    return motion_and_depth(maps["motion"], valid, maps["depth"], valid.clone())


@pytest.mark.parametrize("changes", [{"depth": 0.0}, {"depth": math.inf}, {"depth": math.nan}, {"motion": math.inf},
                                     {"motion": math.nan}])  # fmt: skip
def test_a_scale_that_is_not_finite_is_an_error(changes):
    assert measure([targets()]).numbers["log_depth"] == pytest.approx(math.log(3))
    with pytest.raises(ValueError, match=r"^statistics of the training clips: \w[\w ]* is (inf|-inf|nan), and no loss"):
        measure([targets(), targets(**changes)])
