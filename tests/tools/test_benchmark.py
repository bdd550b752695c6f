"""The benchmark as it is started, very short: it runs every way of both stages and reports what it promises."""

import json
import re

import pytest
import torch

from motion_depth.model.backbone import CHECKPOINTING as POLICIES
from tests.support.runs import ROOT, must_run
from tools.benchmark import check, parse_arguments
from tools.benchmarks.memory import count_step
from tools.benchmarks.models import PRESETS, build_heads, build_parts, count_parts, resized

TOOL = ROOT / "tools/benchmark.py"


def test_every_way_of_both_stages_is_measured_and_shown(tmp_path):
    path = tmp_path / "results.json"
    done = must_run(
        TOOL, "--preset", "tiny", "--layers", 2, "--height", 32, "--width", 32, "--num_frames", 5, "--steps", 1,
        "--warmup", 0, "--workers", 0, "--json", path, "--device", "cpu",
    )  # fmt: skip
    results = json.loads(path.read_text())
    for stage in ("stage1", "stage2"):
        assert list(results[stage]) == ["stock", "ours", "cached", "batched"]
        for way, row in results[stage].items():
            assert row["batch_size"] == (4 if way == "batched" else 1)
            assert row["clips_per_s"] > 0
            assert row["peak_memory_gib"] > 0
            assert row["utilisation"] is None
            assert 0 < row["data_wait"] < 1
    assert "`python tools/benchmark.py --preset tiny --layers 2" in done.stdout
    assert done.stdout.count("| not measured |") == 8
    assert "Matrix product on the GPU, bf16: not measured (no GPU)." in done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in rows}) == 1


def test_the_tiny_presets_heads_cost_as_many_times_the_dit_as_the_5bs():
    big, small = (count_parts(PRESETS[name]) for name in ("5b", "tiny"))
    assert big["dit"] == pytest.approx(29.7e12, rel=0.01)
    for part in ("heads", "dit_to_last_tap"):
        assert small[part] / small["dit"] == pytest.approx(big[part] / big["dit"], rel=0.2), part


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ways", "stock,mine"], "--ways stock,mine: mine is not one of"),
        (["--stages", "3"], "--stages 3"),
        (["--steps", "0"], "--steps: found 0"),
    ],
)
def test_mistakes_name_the_flag(flags, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check(parse_arguments(flags))


def test_what_is_kept_for_the_gradient_follows_checkpointing_and_batch():
    preset = resized(PRESETS["tiny"], 6, 32, 32, 5)
    dit = build_parts(preset, "meta", torch.bfloat16, ("dit",))["dit"]
    heads = sum(parameter.numel() for parameter in build_heads(preset).parameters())
    weights = sum(parameter.numel() * 2 for parameter in dit.parameters()) + heads * 4 * 4  # gradient, two moments
    stage1, *stage2 = (count_step(preset, 1, 1, "none", 8), *(count_step(preset, 2, 1, how, 8) for how in POLICIES))
    assert weights < stage1 < 1.2 * weights
    assert stage1 < stage2[0] < stage2[1] < stage2[2]
    assert count_step(preset, 2, 3, "none", 8) > stage2[2]
