"""tools/generate.py: files are whole, numbers are those of the evaluation, mistakes are told before models load."""

import json

import numpy as np
import pytest
from diffsynth.core import load_state_dict
from PIL import Image

from motion_depth.checkpoints.checkpoint import read_checkpoint, write_checkpoint
from motion_depth.model.backbone import Backbone
from motion_depth.pictures.media import read_picture, read_video, write_png, write_video
from tests.support.runs import ROOT
from tests.support.tool_runs import FRAMES, SIZE, run_evaluate, run_generate

GENERATE = ROOT / "tools/generate.py"
FILES = {"video.mp4", "motion.mp4", "depth.mp4", "panel.mp4", "panel.png", "motion.npz", "depth.npz", "run.json"}


@pytest.fixture
def flags(lora_checkpoint, tiny_wan, tmp_path) -> list:
    return ["--checkpoint", lora_checkpoint, "--model_base_path", tiny_wan, "--output", tmp_path / "output"]


def test_an_image_becomes_a_folder_with_everything(flags, first_frame, tmp_path):
    first_frame.resize((100, 80)).save(tmp_path / "ball.png")
    run_generate(*flags, "--image", tmp_path / "ball.png", "--prompt", "A ball.", "--num_inference_steps", 3,
             "--read_steps", 2, "--export", "ply", "png16", "--export_frames", 0, 8, "--fov", 60)  # fmt: skip
    folder = tmp_path / "output"
    assert {path.name for path in folder.iterdir()} == FILES | {"ply", "depth_millimetres"}
    assert read_video(folder / "video.mp4").shape == (FRAMES, SIZE, SIZE, 3)
    panel = read_video(folder / "panel.mp4")
    assert len(panel) == len(read_video(folder / "motion.mp4")) == len(read_video(folder / "depth.mp4")) == FRAMES
    assert read_picture(folder / "panel.png").width > 1000
    with np.load(folder / "motion.npz") as motion, np.load(folder / "depth.npz") as depth:
        assert motion["motion"].shape == (FRAMES, 2, SIZE, SIZE)
        assert depth["depth"].shape == depth["valid"].shape == (FRAMES, SIZE, SIZE)
        assert (depth["depth"] > 0).all()
    assert sorted(path.name for path in (folder / "ply").iterdir()) == ["0000.ply", "0008.ply"]
    assert Image.open(folder / "depth_millimetres/0008.png").size == (SIZE, SIZE)
    record = json.loads((folder / "run.json").read_text())
    assert list(record["readings"]) == ["step 0 of 3", "step 2 of 3", "finished video"]
    assert record["result"] == "finished video"
    assert record["readings"]["finished video"]["from_result"]["motion_px"] == 0
    assert record["readings"]["finished video"]["from_result"]["depth_rel"] == 0
    assert record["know_show_gap"]["motion_px"] > 0
    assert record["self_consistency"] == record["readings"]["finished video"]["self_consistency"]
    assert record["settings"]["seed"] == 0


def test_the_last_step_can_be_read_instead(flags, first_frame, tmp_path):
    first_frame.save(tmp_path / "ball.png")
    run_generate(*flags, "--image", tmp_path / "ball.png", "--prompt", "A ball.", "--num_inference_steps", 3,
             "--read_steps", 2, "--read", "last_step", "--cfg_scale", 1)  # fmt: skip
    record = json.loads((tmp_path / "output/run.json").read_text())
    assert record["result"] == "step 2 of 3"
    assert record["readings"]["step 2 of 3"]["from_result"]["motion_px"] == 0
    assert record["readings"]["finished video"]["from_result"]["motion_px"] > 0


def test_reread_scenes_have_the_numbers_of_the_evaluation(flags, demo_scenes, demo_csv, tmp_path):
    data = ["--dataset_base_path", demo_scenes]
    run_generate(*flags, *data, "--csv", demo_csv, "--reread", "--read_noise", 0.25)
    expected = run_evaluate(*flags[:4], *data, "--dataset_metadata_path", demo_csv, "--output", tmp_path / "evaluation",
                            "--noise_levels", 0.25, 1.0, "--pictures", 0)["per_scene"]  # fmt: skip
    folders = sorted((tmp_path / "output").iterdir())
    assert len(folders) == len(expected) == 3
    for folder in folders:
        record = json.loads((folder / "run.json").read_text())
        readings = record["readings"]
        assert list(readings) == ["first frame only", "finished video"]
        assert record["true_consistency"]["moving_explained"] > 0.5
        assert readings["first frame only"]["metrics"] == expected[record["source"]]["1.0"]
        assert readings["finished video"]["metrics"] == expected[record["source"]]["0.25"]


def test_a_video_file_and_its_frames_are_read_alike(flags, demo_scenes, tmp_path):
    """A folder of the same frames; the file is compressed, so it is near and not equal."""
    rgb = sorted(demo_scenes.rglob("rgb"))[0]
    frames = np.stack([np.asarray(read_picture(path)) for path in sorted(rgb.iterdir())[:12]])
    write_video(tmp_path / "clip.mp4", frames, fps=8)
    found = []
    for name, source in (("a", rgb), ("b", tmp_path / "clip.mp4")):
        run_generate(*flags[:4], "--output", tmp_path / name, "--reread", source, "--prompt", "Balls.")
        assert {path.name for path in (tmp_path / name).iterdir()} == FILES
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert record["source"].startswith(f"{source} (frames 0 to 8 of ")
        with np.load(tmp_path / name / "depth.npz") as file:
            found.append(file["depth"])
    assert abs(np.log(found[0] / found[1])).mean() < 0.02


def test_a_csv_of_images_makes_a_folder_each(flags, first_frame, tmp_path):
    first_frame.save(tmp_path / "ball.png")
    (tmp_path / "jobs.csv").write_text('image,prompt\nball.png,"A ball, rolling."\nball.png,It falls.\n')
    run_generate(
        *flags, "--csv", tmp_path / "jobs.csv", "--num_inference_steps", 2, "--read_steps", 2, "--cfg_scale", 1
    )
    assert [path.name for path in sorted((tmp_path / "output").iterdir())] == ["0000_ball", "0001_ball"]
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "output").rglob("run.json"))]
    assert [record["prompt"] for record in records] == ["A ball, rolling.", "It falls."]


def test_a_scene_is_generated_and_compared(flags, demo_scenes, tmp_path):
    run_generate(*flags, "--dataset_base_path", demo_scenes, "--scene", "test_ball_collide/env_0/0/0", "--prompt",
                 "Balls.", "--num_inference_steps", 2, "--read_steps", 2, "--cfg_scale", 1, "--height", 96)  # fmt: skip
    record = json.loads((tmp_path / "output/run.json").read_text())
    for reading in record["readings"].values():
        assert {"abs_rel", "abs_rel_baseline", "moving_epe", "delta1"} <= reading["metrics"].keys()
    assert read_video(tmp_path / "output/video.mp4").shape == (FRAMES, 96, SIZE, 3)


# ---------------------------------------------------------------------------------------------- errors


def test_mistakes_are_told_before_any_model_is_loaded(
    flags, first_frame, lora_checkpoint, demo_scenes, tmp_path, monkeypatch
):
    monkeypatch.setattr(Backbone, "encode_prompts", lambda *_: pytest.fail("a model was loaded"))
    first_frame.save(tmp_path / "ball.png")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "text.png").write_text("no picture")
    write_png(tmp_path / "short/frame_0.png", np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "jobs.csv").write_text("image,prompt\nball.png,A ball.\nnone.png,None.\n")
    (tmp_path / "worse.csv").write_text("image,prompt\nno.png,No.\nball.png,A ball.\nnone.png,None.\n")
    (tmp_path / "columns.csv").write_text("picture,prompt\nball.png,A ball.\n")
    other = tmp_path / "other"
    found = read_checkpoint(lora_checkpoint)
    tensors = {path.name: load_state_dict(str(path)) for path in lora_checkpoint.glob("*.safetensors")}
    write_checkpoint(other, tensors, {**found.config, "heads": {**found.config["heads"], "dit_dim": 3072}})
    ball = ["--image", tmp_path / "ball.png", "--prompt", "A ball."]
    cases = [
        ([], "expected one of --image, --scene, --csv and --reread FILE"),
        (["--image", tmp_path / "ball.png"], "--prompt"),
        (["--image", tmp_path / "none.png", "--prompt", ""], "none.png: not readable, expected an RGB picture"),
        (["--image", tmp_path / "text.png", "--prompt", ""], "text.png: not readable, expected an RGB picture"),
        ([*ball, "--reread"], "a picture has no motion"),
        ([*ball, "--device", "gpu"], "--device gpu: expected cuda"),
        ([*ball, "--device", "cuda:99"], "--device cuda:99: found"),
        ([*ball, "--motion_units", "ndc"], "--motion_units: found no scene"),
        ([*ball, "--height", 100], "--height: found 100, expected a multiple of 32"),
        ([*ball, "--num_frames", 10], "--num_frames: found 10, expected 4k+1"),
        ([*ball, "--num_inference_steps", 1], "--num_inference_steps 1: expected at least 2"),
        ([*ball, "--read_noise", 2], "--read_noise 2.0"),
        ([*ball, "--export", "ply"], "found --fov None"),
        ([*ball, "--export", "png16", "--export_frames", 9], "--export_frames 9: expected numbers from 0 to 8"),
        ([*ball, "--output", tmp_path], "is not an empty folder"),
        ([*ball, "--checkpoint", other], "heads of a DiT of width 3072"),
        ([*ball, "--checkpoint", tmp_path], str(tmp_path)),
        ([*ball, "--model_base_path", tmp_path], "missing"),
        (["--reread", tmp_path / "text.mp4", "--prompt", ""], "text.mp4: found no readable video"),
        (["--reread", tmp_path / "none.mp4", "--prompt", ""], "none.mp4: there is no such file or folder"),
        (["--reread", tmp_path / "short", "--prompt", ""], "found 1 frames, expected at least 9"),
        (["--scene", "a", "--prompt", ""], "--dataset_base_path"),
        (["--scene", "a", "--prompt", "", "--dataset_base_path", demo_scenes], "there is no such scene folder"),
        (["--csv", tmp_path / "none.csv"], "none.csv: not readable"),
        (["--csv", tmp_path / "jobs.csv"], "row 2: "),
        (["--csv", tmp_path / "columns.csv"], "expected the columns prompt and either image or video"),
    ]
    for given, message in cases:
        with pytest.raises(ValueError) as error:
            run_generate(*flags, *given)
        assert message in str(error.value), given
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"(?s)row 1: .*no\.png.*\n.*row 3: .*none\.png"):
        run_generate(*flags, "--csv", tmp_path / "worse.csv")
    assert not (tmp_path / "output").exists()
