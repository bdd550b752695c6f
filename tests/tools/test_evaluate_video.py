"""tools/evaluate_video.py: what it writes, with a checkpoint and without, and mistakes told before models load."""

import json

import pytest
import torch

from motion_depth.model.backbone import Backbone
from motion_depth.pictures.media import read_picture, read_video
from tests.support.runs import ROOT, run_python
from tests.support.tool_runs import FRAMES, SIZE, make_tuned_checkpoint
from tools.evaluate_video import main, parse_args, run

SCENES = ("test_ball_collide/env_0/0/0", "test_ball_ramp/env_0/0/0", "test_duck_and_domino/env_0/0/0")
KINDS = [scene.split("/")[0] for scene in SCENES]
CHEAP = ("--num_inference_steps", 2, "--cfg_scale", 1, "--noise_levels", 1, 0.25, "--mixed_precision", "no")
CLIPS = ("--height", SIZE, "--width", SIZE, "--num_frames", FRAMES)


def evaluate(*flags: object) -> dict:
    return run(parse_args([str(flag) for flag in flags]))


@pytest.fixture
def flags(data_flags, tmp_path) -> list:
    return [*data_flags, *CHEAP, "--output", tmp_path / "output"]


def test_a_model_folder_is_measured_beside_its_baselines(flags, demo_scenes, demo_csv, tmp_path, monkeypatch, capsys):
    train = ["--train_base_path", demo_scenes, "--train_metadata_path", demo_csv]
    given = [*flags, *CLIPS, *train, "--panel", *SCENES[1:]]
    monkeypatch.setattr("sys.argv", ["evaluate_video.py", *map(str, given)])
    main()
    output = tmp_path / "output"
    found = json.loads((output / "metrics.json").read_text())
    assert found.keys() == {"flags", "data", "training_scenes", "flow", "still_changed", "psnr", "moving_psnr",
                            "overlap", "mean_overlap", "better", "per_scene"}  # fmt: skip
    assert found["data"]["settings"]["num_frames"] == {"value": FRAMES, "from": "flag"}
    assert found["data"]["settings"]["motion_units"] == {"value": "pixels", "from": "default"}
    assert found["training_scenes"] == dict.fromkeys(KINDS, 1)
    assert list(found["flow"]["share"]) == ["1.0", "0.25"]
    for shares in found["flow"]["share"].values():
        assert shares.keys() == {"model", "other_prompt", "trivial", "random"}
        assert len({*shares.values()}) == 4
        assert all(share > shares["trivial"] for name, share in shares.items() if name != "trivial")  # none has learned
    videos = ["generated", "other_prompt", "frozen", "reconstruction"]
    assert list(found["psnr"]) == list(found["moving_psnr"]) == videos
    assert all(len(scores["frames"]) == FRAMES - 1 for scores in found["psnr"].values())
    assert found["psnr"]["reconstruction"]["all"] > found["psnr"]["generated"]["all"]
    assert list(found["per_scene"]) == list(SCENES)
    assert list(found["overlap"]) == KINDS
    for scores in found["overlap"].values():
        assert scores.keys() == {*videos, "training_mean"}
        assert scores["frozen"] == 0
        assert scores["training_mean"] == 1  # the training scenes are the very same
    assert found["better"] == []
    assert capsys.readouterr().out.startswith((output / "tables.md").read_text().strip())
    assert sorted(path.name for path in (output / "videos").iterdir()) == [
        f"{place:04d}_{scene.replace('/', '_')}.mp4" for place, scene in enumerate(SCENES)
    ]
    assert len(read_video(output / "videos/0000_test_ball_collide_env_0_0_0.mp4")) == FRAMES
    panel = read_picture(output / "panel.png")
    assert panel.height > 4 * 2 * SIZE  # two scenes, true and generated, each picture twice its size
    assert panel.width > FRAMES * 2 * SIZE


def test_a_checkpoint_changes_what_the_model_does_and_says_what_clips_are_like(flags, lora_checkpoint, tmp_path):
    with_lora = evaluate(*flags, "--checkpoint", lora_checkpoint)
    assert with_lora["data"]["settings"]["num_frames"] == {"value": FRAMES, "from": "checkpoint"}
    plain = evaluate(*flags, *CLIPS, "--output", tmp_path / "plain")
    for level, shares in with_lora["flow"]["share"].items():
        assert shares["model"] != plain["flow"]["share"][level]["model"]
        assert shares["random"] == plain["flow"]["share"][level]["random"]
    assert with_lora["psnr"]["reconstruction"] == plain["psnr"]["reconstruction"]
    assert with_lora["psnr"]["generated"] != plain["psnr"]["generated"]
    assert "training_mean" not in plain["mean_overlap"]


def test_a_wholly_trained_dit_without_heads_takes_the_models_place(flags, tiny_backbone, tmp_path):
    """Trained it is not: it is the DiT of random weights itself, rounded."""
    tuned = make_tuned_checkpoint(tmp_path / "tuned", tiny_backbone.random_dit(torch.float32, "cpu", seed=0))
    found = evaluate(*flags, "--checkpoint", tuned)
    for shares in found["flow"]["share"].values():
        assert shares["model"] == pytest.approx(shares["random"], rel=1e-2)


def test_random_weights_are_the_seeds(tiny_backbone):
    one, same, other = (tiny_backbone.random_dit(torch.float32, "cpu", seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["blocks.0.ffn.0.weight"], other["blocks.0.ffn.0.weight"])


def test_mistakes_are_told_before_any_model_is_loaded(flags, demo_csv, demo_scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(Backbone, "encode_prompts", lambda *_: pytest.fail("a model was loaded"))
    header, first, *_ = demo_csv.read_text().splitlines()
    one = tmp_path / "one.csv"
    one.write_text(f"{header}\n{first}\n")
    cases = [
        (["--height", 100], "--height: found 100, expected a multiple of 32"),
        (["--noise_levels", 2], "--noise_levels 2.0: expected numbers from 0 to 1"),
        (["--num_inference_steps", 1], "--num_inference_steps 1: expected at least 2"),
        (["--output", tmp_path], "is not an empty folder"),
        (["--panel", "none"], "--panel none: there is no such scene in"),
        (["--dataset_metadata_path", one], "found no scene of another kind than test_ball_collide"),
        (["--train_base_path", demo_scenes], "expected --train_metadata_path beside it"),
        (["--train_metadata_path", one], "found no scene of test_ball_ramp, test_duck_and_domino"),
        (["--checkpoint", tmp_path / "none"], "no such checkpoint folder"),
        (["--num_frames", 33], "found 18 frames"),
        (["--model_base_path", tmp_path], "missing"),
    ]
    for given, message in cases:
        with pytest.raises(ValueError) as error:
            evaluate(*flags, *CLIPS, *given)
        assert message in str(error.value), given
    assert not (tmp_path / "output").exists()


def test_the_command_line_says_it_in_one_line(flags):
    done = run_python(ROOT / "tools/evaluate_video.py", *flags, "--fps", 0)
    assert done.returncode == 2
    assert done.stderr == "error: --fps 0.0: expected at least 0.001\n"
