"""Generating and re-reading: the heads only read, files are whole, numbers are those of the evaluation."""

import json

import numpy as np
import pytest
import torch
from diffsynth.core import load_state_dict
from diffsynth.pipelines.wan_video import model_fn_wan_video
from PIL import Image

from motion_depth.assemble import LORA_FILE, LoraConfig, load_model, model_config, model_tensors
from motion_depth.checkpoint import read_checkpoint, write_checkpoint
from motion_depth.generation import TapRecorder, generate, load_fused, read_latents
from motion_depth.heads import HEAD_SIZES, HeadConfig, MotionDepthHeads, tap_blocks
from motion_depth.lora import add_lora
from motion_depth.losses import LossScales
from motion_depth.media import read_picture, read_video, write_png, write_video
from motion_depth.statistics import Statistics
from motion_depth.wan import MotionDepthModel, dit_forward, load_pipeline, pad_contexts
from motion_depth.weights import WanFiles, check_weights, quiet
from tests.runs import ROOT, run_python
from tools import evaluate as evaluate_tool
from tools import generate as generate_tool

GENERATE = ROOT / "tools/generate.py"
SIZE, FRAMES = 64, 9
LORA = LoraConfig(4, ("q", "v"))
CALL = {"prompt": "Balls collide.", "height": SIZE, "width": SIZE, "num_frames": FRAMES, "num_inference_steps": 4}
FILES = {"video.mp4", "motion.mp4", "depth.mp4", "panel.mp4", "panel.png", "motion.npz", "depth.npz", "run.json"}


@pytest.fixture(scope="module")
def files(tiny_wan) -> WanFiles:
    found = WanFiles.in_folder(tiny_wan)
    check_weights(found)  # makes the tiny model known to the library
    return found


def load(files: WanFiles, *parts: str):
    return load_pipeline(files, parts or ("dit", "text_encoder", "vae"), torch.float32, "cpu")


@pytest.fixture(scope="module")
def checkpoint(files, tmp_path_factory):
    """A checkpoint with LoRA for clips of 64 x 64 x 9; every weight that starts at zero is given a value."""
    folder = tmp_path_factory.mktemp("checkpoints") / "final"
    torch.manual_seed(0)
    arguments = check_weights(files)["dit"]
    config = HeadConfig(arguments["dim"], tap_blocks(arguments["num_layers"], (0.3, 0.6)), **HEAD_SIZES["small"])
    heads = MotionDepthHeads(config, motion_scale=2.0, log_depth=1.0, log_depth_scale=0.3)
    pipe = load(files, "dit")
    dit = add_lora(pipe.dit, LORA.rank, LORA.target_modules)
    for name, parameter in [*heads.named_parameters(), *dit.named_parameters()]:
        if ".out." in name or ".lora_B." in name:
            torch.nn.init.normal_(parameter.data, std=0.05)
    statistics = Statistics(1.0, LossScales(2.0, 0.3, 0.1), 0.05, 0.0, torch.full((SIZE, SIZE), 3.0))
    run = {"stage": 2, "height": SIZE, "width": SIZE, "num_frames": FRAMES, "frame_stride": "auto",
           "motion_units": "pixels", "motion_direction": "backward", "motion_y_axis": "down", "motion_frame_offset": 0,
           "mixed_precision": "no"}  # fmt: skip
    model = MotionDepthModel(dit, heads, train_dit=False)
    write_checkpoint(folder, model_tensors(model, statistics), model_config(config, statistics, LORA, run))
    return folder


@pytest.fixture(scope="module")
def image(demo_scenes):
    return read_picture(sorted(demo_scenes.rglob("rgb/*.png"))[0]).resize((SIZE, SIZE))


@pytest.fixture
def flags(checkpoint, tiny_wan, tmp_path) -> list:
    return ["--checkpoint", checkpoint, "--model_base_path", tiny_wan, "--output", tmp_path / "output"]


def run_tool(*flags) -> None:
    generate_tool.run(generate_tool.parse_args([str(flag) for flag in flags]))


# ---------------------------------------------------------------------------------------------- the heads only read


def test_recorded_features_are_those_of_our_own_forward(small_dit):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 48, 3, 4, 6, generator=generator)
    context = torch.randn(1, 512, 16, generator=generator)
    library = {"latents": latents, "context": context, "fuse_vae_embedding_in_latents": True}
    with torch.no_grad():
        plain = model_fn_wan_video(small_dit, timestep=torch.tensor([384.0]), **library)
        with TapRecorder(small_dit, (1, 4), [1]) as recorder:
            model_fn_wan_video(small_dit, timestep=torch.tensor([700.0]), **library)
            recorded = model_fn_wan_video(small_dit, timestep=torch.tensor([384.0]), **library)
        model_fn_wan_video(small_dit, timestep=torch.tensor([100.0]), **library)
        _, expected = dit_forward(small_dit, latents, torch.tensor([384.0]), context, taps=(1, 4))
    assert torch.equal(plain, recorded)
    assert list(recorder.features) == [1]
    found = recorder.features[1]
    assert found.grid == expected.grid == (3, 2, 3)
    assert torch.equal(found.latents, latents)
    torch.testing.assert_close(found.time_embedding, expected.time_embedding)
    for ours, theirs in zip(found.taps, expected.taps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
def test_the_video_is_the_stock_pipelines_bit_for_bit(checkpoint, image, files, cfg_scale):
    stock = load(files)
    plain = stock(input_image=image, seed=3, cfg_scale=cfg_scale, progress_bar_cmd=list, **CALL)
    with quiet():
        stock.load_lora(stock.dit, str(checkpoint / LORA_FILE))
    expected = stock(input_image=image, seed=3, cfg_scale=cfg_scale, progress_bar_cmd=list, **CALL)
    assert any(np.asarray(a).tobytes() != np.asarray(b).tobytes() for a, b in zip(plain, expected, strict=True))

    own = load(files)
    model = load_fused(read_checkpoint(checkpoint), own)
    units = list(own.post_units)
    made = generate(own, model.heads, image, (0, 3), list, cfg_scale, seed=3, **CALL)
    assert torch.equal(made.frames, torch.from_numpy(np.stack([np.asarray(frame) for frame in expected])))
    assert own.post_units == units
    assert not any(module._forward_hooks for module in own.dit.modules())
    assert list(made.readings) == [0, 3]
    assert made.readings[0].sigma == 1.0
    assert made.readings[0].motion.shape == (FRAMES, 2, SIZE, SIZE)
    # Decoded as they were kept; the library quantises frames by cutting off.
    decoded = own.vae.decode(made.latents, device="cpu", tiled=True)[0].movedim(0, -1)
    levels = ((decoded + 1) * 127.5).clip(0, 255)
    assert (levels - made.frames).abs().max() < 1.01

    # The heads read the forward with the prompt, whatever guidance does: the first step knows no other.
    ids, mask = own.tokenizer(CALL["prompt"], return_mask=True, add_special_tokens=True)
    context = pad_contexts([own.text_encoder(ids, mask)[0, : int(mask.sum())]])
    noise = own.generate_noise(tuple(made.latents.shape), seed=3)
    noise[:, :, :1] = made.latents[:, :, :1]
    with torch.no_grad():
        _, features = dit_forward(own.dit, noise, torch.tensor([1000.0]), context, model.heads.config.taps)
        expected_motion = model.heads(features)["motion"][0]
    torch.testing.assert_close(made.readings[0].motion, expected_motion, rtol=1e-3, atol=1e-4)


def test_fused_lora_reads_as_adapters_do(checkpoint, files):
    found = read_checkpoint(checkpoint)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 48, 3, 4, 4, generator=generator)
    inputs = (latents, latents[:, :, :1], torch.randn(1, 512, check_weights(files)["dit"]["text_dim"],
              generator=generator), torch.randn(latents.shape, generator=generator), torch.tensor([0.5]))  # fmt: skip
    predictions = []
    for apply in (lambda p: load_fused(found, p), lambda p: load_model(found, p.dit, "cpu")):
        fresh = load(files, "dit")
        predictions.append(apply(fresh)(*inputs))
    for name in ("motion", "log_depth"):
        torch.testing.assert_close(predictions[0][name], predictions[1][name], rtol=1e-3, atol=1e-4)


def test_lora_of_another_dit_is_an_error(checkpoint, files, tmp_path):
    found = read_checkpoint(checkpoint)
    tensors = {path.name: load_state_dict(str(path)) for path in checkpoint.glob("*.safetensors")}
    tensors[LORA_FILE] = {name.replace("blocks.0", "blocks.77"): value for name, value in tensors[LORA_FILE].items()}
    write_checkpoint(tmp_path / "other", tensors, found.config)
    with pytest.raises(ValueError, match=r"blocks\.77.* does not fit the DiT"):
        load_fused(read_checkpoint(tmp_path / "other"), load(files, "dit"))


# ---------------------------------------------------------------------------------------------- the tool


def test_an_image_becomes_a_folder_with_everything(flags, image, tmp_path):
    image.resize((100, 80)).save(tmp_path / "ball.png")
    run_tool(*flags, "--image", tmp_path / "ball.png", "--prompt", "A ball.", "--num_inference_steps", 3,
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


def test_the_last_step_can_be_read_instead(flags, image, tmp_path):
    image.save(tmp_path / "ball.png")
    run_tool(*flags, "--image", tmp_path / "ball.png", "--prompt", "A ball.", "--num_inference_steps", 3,
             "--read_steps", 2, "--read", "last_step", "--cfg_scale", 1)  # fmt: skip
    record = json.loads((tmp_path / "output/run.json").read_text())
    assert record["result"] == "step 2 of 3"
    assert record["readings"]["step 2 of 3"]["from_result"]["motion_px"] == 0
    assert record["readings"]["finished video"]["from_result"]["motion_px"] > 0


def test_bfloat16_gives_the_stock_pipelines_video_too(checkpoint, files, image):
    videos = []
    for read in (False, True):
        pipe = load_pipeline(files, ("dit", "text_encoder", "vae"), torch.bfloat16, "cpu")
        model = load_fused(read_checkpoint(checkpoint), pipe)
        if read:
            made = generate(pipe, model.heads, image, (0, 3), list, 3.0, seed=1, **CALL)
            videos.append(made.frames)
        else:
            video = pipe(input_image=image, seed=1, cfg_scale=3.0, progress_bar_cmd=list, **CALL)
            videos.append(torch.from_numpy(np.stack([np.asarray(frame) for frame in video])))
    assert torch.equal(*videos)
    last = read_latents(model, made.latents, made.latents[:, :, :1], torch.zeros(1, 512, check_weights(files)["dit"]
                        ["text_dim"], dtype=torch.bfloat16), 0.02, 0)  # fmt: skip
    for reading in (*made.readings.values(), last):
        assert reading.motion.dtype == torch.float32
        assert reading.motion.isfinite().all()
        assert (reading.depth > 0).all()


def test_reread_scenes_have_the_numbers_of_the_evaluation(flags, demo_scenes, demo_csv, tmp_path):
    data = ["--dataset_base_path", demo_scenes]
    run_tool(*flags, *data, "--csv", demo_csv, "--reread", "--read_noise", 0.25)
    evaluate_tool.evaluate(evaluate_tool.parse_args([str(flag) for flag in (
        *flags[:4], *data, "--dataset_metadata_path", demo_csv, "--output", tmp_path / "evaluation",
        "--noise_levels", 0.25, 1.0, "--pictures", 0)]))  # fmt: skip
    expected = json.loads((tmp_path / "evaluation/metrics.json").read_text())["per_scene"]
    folders = sorted((tmp_path / "output").iterdir())
    assert len(folders) == len(expected) == 3
    for folder in folders:
        record = json.loads((folder / "run.json").read_text())
        readings = record["readings"]
        assert list(readings) == ["first frame only", "finished video"]
        assert record["true_consistency"]["moving_explained"] > 0.5
        assert readings["first frame only"]["metrics"] == expected[record["source"]]["1.0"]
        assert readings["finished video"]["metrics"] == expected[record["source"]]["0.25"]


def test_a_video_file_and_its_frames_are_read_alike(flags, checkpoint, demo_scenes, tmp_path):
    """A folder of the same frames; the file is compressed, so it is near and not equal."""
    rgb = sorted(demo_scenes.rglob("rgb"))[0]
    frames = np.stack([np.asarray(read_picture(path)) for path in sorted(rgb.iterdir())[:12]])
    write_video(tmp_path / "clip.mp4", frames, fps=8)
    found = []
    for name, source in (("a", rgb), ("b", tmp_path / "clip.mp4")):
        run_tool(*flags[:4], "--output", tmp_path / name, "--reread", source, "--prompt", "Balls.")
        assert {path.name for path in (tmp_path / name).iterdir()} == FILES
        record = json.loads((tmp_path / name / "run.json").read_text())
        assert record["source"].startswith(f"{source} (frames 0 to 8 of ")
        with np.load(tmp_path / name / "depth.npz") as file:
            found.append(file["depth"])
    assert abs(np.log(found[0] / found[1])).mean() < 0.02


def test_a_csv_of_images_makes_a_folder_each(flags, image, tmp_path):
    image.save(tmp_path / "ball.png")
    (tmp_path / "jobs.csv").write_text('image,prompt\nball.png,"A ball, rolling."\nball.png,It falls.\n')
    run_tool(*flags, "--csv", tmp_path / "jobs.csv", "--num_inference_steps", 2, "--read_steps", 2, "--cfg_scale", 1)
    assert [path.name for path in sorted((tmp_path / "output").iterdir())] == ["0000_ball", "0001_ball"]
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "output").rglob("run.json"))]
    assert [record["prompt"] for record in records] == ["A ball, rolling.", "It falls."]


def test_a_scene_is_generated_and_compared(flags, demo_scenes, tmp_path):
    run_tool(*flags, "--dataset_base_path", demo_scenes, "--scene", "test_ball_collide/env_0/0/0", "--prompt", "Balls.",
             "--num_inference_steps", 2, "--read_steps", 2, "--cfg_scale", 1, "--height", 96)  # fmt: skip
    record = json.loads((tmp_path / "output/run.json").read_text())
    for reading in record["readings"].values():
        assert {"abs_rel", "abs_rel_baseline", "moving_epe", "delta1"} <= reading["metrics"].keys()
    assert read_video(tmp_path / "output/video.mp4").shape == (FRAMES, 96, SIZE, 3)


# ---------------------------------------------------------------------------------------------- errors


def test_mistakes_are_told_before_any_model_is_loaded(flags, image, checkpoint, demo_scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(generate_tool, "load_pipeline", lambda *_: pytest.fail("a model was loaded"))
    image.save(tmp_path / "ball.png")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "text.png").write_text("no picture")
    write_png(tmp_path / "short/frame_0.png", np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "jobs.csv").write_text("image,prompt\nball.png,A ball.\nnone.png,None.\n")
    (tmp_path / "columns.csv").write_text("picture,prompt\nball.png,A ball.\n")
    other = tmp_path / "other"
    found = read_checkpoint(checkpoint)
    tensors = {path.name: load_state_dict(str(path)) for path in checkpoint.glob("*.safetensors")}
    write_checkpoint(other, tensors, {**found.config, "heads": {**found.config["heads"], "dit_dim": 3072}})
    ball = ["--image", tmp_path / "ball.png", "--prompt", "A ball."]
    cases = [
        ([], "expected one of --image, --scene, --csv and --reread FILE"),
        (["--image", tmp_path / "ball.png"], "--prompt"),
        (["--image", tmp_path / "none.png", "--prompt", ""], "none.png: found no readable picture"),
        (["--image", tmp_path / "text.png", "--prompt", ""], "text.png: found no readable picture"),
        ([*ball, "--reread"], "a picture has no motion"),
        ([*ball, "--height", 100], "--height 100: expected a multiple of 32"),
        ([*ball, "--num_frames", 10], "--num_frames 10: expected 4k+1"),
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
            run_tool(*flags, *given)
        assert message in str(error.value), given
        assert "\n" not in str(error.value)
    assert not (tmp_path / "output").exists()


def test_the_command_line_says_it_in_one_line(tmp_path):
    done = run_python(GENERATE, "--checkpoint", tmp_path / "none", "--output", tmp_path / "o", "--image", "x.png",
                      "--prompt", "")  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
