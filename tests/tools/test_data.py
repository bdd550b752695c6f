"""Which data tools/evaluate.py and tools/generate.py take for what, and what lies in memory while they work."""

import gc
import json
import weakref

import numpy as np
import pytest
import torch
from diffsynth.pipelines.wan_video import WanVideoPipeline

from motion_depth.doctor.record import VERSION, fingerprints
from motion_depth.generation import outputs as presentation
from motion_depth.model.backbone import Backbone
from tests.support.scene_files import gliding, write_scene
from tests.support.tool_runs import FRAMES, SIZE, run_evaluate, run_generate
from tools import evaluate as evaluate_tool

FIRST = 100  # number of the scenes' first frame
GENERATE_FAST = ("--num_inference_steps", 2, "--read_steps", 2)


@pytest.fixture
def data(tmp_path):
    """Scenes a and b that glide, of 18 frames, and their CSV; returns a function that adds copies of forward motion."""

    def make(name: str, sign: int):
        for scene, step in (("a", 2), ("b", 3)):
            rgb, motion, depth = gliding(18, SIZE, SIZE, step)
            write_scene(tmp_path / name / scene, rgb, sign * motion, depth, first=FIRST)
        csv = tmp_path / f"{name}.csv"
        csv.write_text("video,prompt\na,A picture glides.\nb,It glides along.\n")
        return tmp_path / name, csv

    return make


def record_forward(path, base, csv) -> None:
    """A recorded check that measured forward motion in these very files."""
    forward = {"units": "pixels", "direction": "forward", "y_axis": "down", "frame_offset": 0}
    (path / f"{csv.stem}.check.json").write_text(json.dumps({
        "version": VERSION, "checked": "2026-01-01T00:00:00+00:00", "convention": forward, "fitting": [forward],
        "explained": 0.8, "errors": 0, "warnings": 0, "scenes": fingerprints(base, ["a", "b"]),
    }))  # fmt: skip


@pytest.fixture
def flags(lora_checkpoint, tiny_wan) -> list:
    return ["--checkpoint", lora_checkpoint, "--model_base_path", tiny_wan]


@pytest.fixture
def evaluated(flags, tmp_path):
    """tools/evaluate.py on a folder and its CSV, at one noise level."""

    def run(base, csv, output: str, *more: object) -> dict:
        return run_evaluate(*flags, "--dataset_base_path", base, "--dataset_metadata_path", csv, "--output",
                            tmp_path / output, "--noise_levels", 0.02, "--pictures", 0, *more)  # fmt: skip

    return run


# ---------------------------------------------------------------------------------------------- conventions and sizes


def test_files_in_another_convention_give_the_same_metrics_with_its_flag(data, evaluated, tmp_path):
    own = evaluated(*data("backward", 1), "own")
    base, csv = data("forward", -1)
    wrong = evaluated(base, csv, "wrong")  # nobody has checked these files
    assert wrong["data"]["check"] is None
    assert wrong["data"]["settings"]["motion_direction"] == {"value": "backward", "from": "checkpoint"}
    assert wrong["overall"]["0.02"]["moving_epe"] != own["overall"]["0.02"]["moving_epe"]

    record_forward(tmp_path, base, csv)
    found = evaluated(base, csv, "found", "--motion_direction", "forward")
    assert found["overall"]["0.02"]["moving_epe"] == pytest.approx(own["overall"]["0.02"]["moving_epe"], rel=1e-6)
    assert found["data"]["settings"]["motion_direction"] == {"value": "forward", "from": "flag"}
    assert found["data"]["check"]["differs"] is None
    assert json.loads((tmp_path / "found/metrics.json").read_text()) == found
    page = (tmp_path / "found/report.html").read_text()
    assert "As in training, but for --motion_direction." in page
    assert "forward.check.json" in page


def test_a_recorded_check_that_contradicts_the_checkpoint_names_the_flag(data, evaluated, flags, tmp_path, monkeypatch):
    base, csv = data("scenes", -1)
    record_forward(tmp_path, base, csv)
    reread = [*flags, "--dataset_base_path", base, "--output", tmp_path / "o", "--reread"]
    one = ["--scene", "b", "--prompt", "It glides."]
    expected = r"Pass --motion_direction forward; or --trust_data .*as in training"
    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "encode_prompts", lambda *_: pytest.fail("a model was loaded"))
        with pytest.raises(ValueError, match=expected):
            evaluated(base, csv, "o")
        with pytest.raises(ValueError, match=expected):
            run_generate(*reread, "--csv", csv)
        with pytest.raises(ValueError, match=expected):  # without a CSV: the record beside the scenes' folder
            run_generate(*reread, *one)
    assert not (tmp_path / "o").exists()
    run_generate(*reread, *one, "--trust_data")
    kept = json.loads((tmp_path / "o/run.json").read_text())["data"]
    assert "Pass --motion_direction forward" in kept["check"]["differs"]
    assert kept["settings"]["motion_direction"] == {"value": "backward", "from": "checkpoint"}
    assert "Pass --motion" in evaluated(base, csv, "trusted", "--trust_data")["data"]["check"]["differs"]


def test_a_record_beside_the_training_csv_serves_a_single_scene(data, flags, lora_checkpoint, tmp_path):
    base, csv = data("scenes", -1)
    (tmp_path / "far").mkdir()
    elsewhere = base.rename(tmp_path / "far/scenes")
    record_forward(lora_checkpoint.parent, elsewhere, csv)
    try:
        with pytest.raises(ValueError, match=r"--scene b: .*Pass --motion_direction forward"):
            run_generate(*flags, "--dataset_base_path", elsewhere, "--scene", "b", "--prompt", "", "--reread",
                         "--output", tmp_path / "o")  # fmt: skip
    finally:
        (lora_checkpoint.parent / "scenes.check.json").unlink()


def test_scenes_are_checked_before_models_load_and_all_problems_are_told(data, evaluated, flags, tmp_path, monkeypatch):
    base, csv = data("scenes", 1)
    (base / f"a/rgb/step_{FIRST + 3:04d}.png").unlink()
    np.save(base / f"b/distance_to_camera/{FIRST + 5:04d}.npy", np.zeros((3, 3), np.float32))
    monkeypatch.setattr(Backbone, "encode_prompts", lambda *_: pytest.fail("a model was loaded"))
    expected = r"(?s)scenes\.csv: 2 problems\n  row 1: .*a/rgb.*\n  row 2: .*0105\.npy"
    with pytest.raises(ValueError, match=expected):
        evaluated(base, csv, "o")
    generate = [*flags, "--dataset_base_path", base, "--output", tmp_path / "o"]
    with pytest.raises(ValueError, match=expected):
        run_generate(*generate, "--csv", csv)
    with pytest.raises(ValueError, match=r"^--scene b: .*0105\.npy[^\n]*$"):
        run_generate(*generate, "--scene", "b", "--prompt", "")


def test_the_size_of_an_evaluation_can_be_another(data, evaluated):
    base, csv = data("scenes", 1)
    found = evaluated(base, csv, "o", "--height", 96, "--width", 32, "--num_frames", 5, "--frame_stride", "3")
    values = {name: each["value"] for name, each in found["data"]["settings"].items() if each["from"] == "flag"}
    assert values == {"height": 96, "width": 32, "num_frames": 5, "frame_stride": "3"}
    assert found["overall"]["0.02"]["abs_rel_baseline"] > 0
    too_long = "scenes.csv: 2 of 2 scenes: found 18 frames"
    for wrong, text in (("x", "--frame_stride x: expected a whole number or auto"), (9, too_long)):
        with pytest.raises(ValueError, match=text):
            evaluated(base, csv, "p", "--frame_stride", wrong)


# ---------------------------------------------------------------------------------------------- memory


@pytest.fixture
def in_memory(monkeypatch) -> list[set[str]]:
    """Filled with the names of the models that are in memory, each time that some have been loaded."""
    loaded, found = [], []
    own = WanVideoPipeline.from_pretrained

    def load(*arguments, **settings):
        pipe = own(*arguments, **settings)
        parts = {name: getattr(pipe, name) for name in ("dit", "text_encoder", "vae")}
        loaded.extend((name, weakref.ref(part)) for name, part in parts.items() if part is not None)
        found.append({name for name, part in loaded if part() is not None})
        return pipe

    gc.collect()
    monkeypatch.setattr(WanVideoPipeline, "from_pretrained", load)
    return found


def test_the_text_encoder_is_gone_before_the_other_models_come(
    data, evaluated, flags, first_frame, in_memory, tmp_path
):
    base, csv = data("scenes", 1)
    first_frame.save(tmp_path / "ball.png")
    evaluated(base, csv, "evaluation")
    run_generate(*flags, "--image", tmp_path / "ball.png", "--prompt", "A ball.", "--output", tmp_path / "made",
                 *GENERATE_FAST)  # fmt: skip
    run_generate(*flags, "--dataset_base_path", base, "--csv", csv, "--reread", "--output", tmp_path / "read")
    assert not [parts for parts in in_memory if "text_encoder" in parts and len(parts) > 1]
    assert (in_memory.count({"text_encoder"}), in_memory.count({"dit", "vae"})) == (3, 3)


def test_guidance_leads_away_from_the_negative_prompt(flags, first_frame, tmp_path):
    first_frame.save(tmp_path / "ball.png")
    motions = []
    for name, text in (("none", ""), ("blur", "Blur.")):
        run_generate(*flags, "--image", tmp_path / "ball.png", "--prompt", "A ball.", "--negative_prompt", text,
                     "--output", tmp_path / name, *GENERATE_FAST)  # fmt: skip
        with np.load(tmp_path / name / "motion.npz") as file:
            motions.append(torch.from_numpy(file["motion"]))
    assert not torch.equal(*motions)


# ---------------------------------------------------------------------------------------------- pictures and words


def test_pictures_of_both_tools_call_frames_by_the_numbers_of_the_files(data, evaluated, flags, tmp_path, monkeypatch):
    called = {}

    def note(module, name):
        own = getattr(module, name)

        def spy(rows, *arguments):
            called.setdefault((module.__name__, name), []).append(list(arguments[1 if name == "strip" else 0]))
            return own(rows, *arguments)

        monkeypatch.setattr(module, name, spy)

    for module, name in ((evaluate_tool, "strip"), (presentation, "strip"), (presentation, "video")):
        note(module, name)
    base, csv = data("scenes", 1)
    evaluated(base, csv, "evaluation", "--pictures", 1)
    scene = [*flags, "--dataset_base_path", base, "--scene", "a", "--prompt", ""]
    run_generate(*scene, "--reread", "--output", tmp_path / "read")
    run_generate(*scene, "--output", tmp_path / "made", *GENERATE_FAST)
    numbers = list(range(FIRST, FIRST + 2 * FRAMES, 2))
    assert len(called) == 3
    assert all(found == numbers for each in called.values() for found in each)
    assert json.loads((tmp_path / "made/run.json").read_text())["frames"] == numbers

    called.clear()
    run_generate(*flags, "--reread", base / "a/rgb", "--prompt", "", "--output", tmp_path / "folder")
    numbers = list(range(FIRST, FIRST + FRAMES))
    assert all(found == numbers for each in called.values() for found in each)
    record = json.loads((tmp_path / "folder/run.json").read_text())
    assert record["source"].endswith("rgb (frames 100 to 108 of 18)")

    called.clear()
    run_generate(*flags, "--image", base / "a/rgb/step_0107.png", "--prompt", "", "--output", tmp_path / "image",
                 *GENERATE_FAST)  # fmt: skip
    assert all(found == list(range(FRAMES)) for each in called.values() for found in each)


NOTHING = dict.fromkeys(("explained", "moving_explained", "moving_warp_error", "moving_still_error", "depth_steady",
                         "depth_change", "depth_change_still"))  # fmt: skip
RESTING = NOTHING | {"explained": 0.0, "moving_share": 0.0}
MOVING = NOTHING | {"explained": 0.4, "moving_share": 0.25, "moving_explained": 0.75, "moving_warp_error": 5.0,
                    "moving_still_error": 20.0}  # fmt: skip


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (RESTING, "no pixel moves by more than 0.5 px from a frame to the next"),
        (MOVING, "25.0 % of the pixels move; there 75.0 % is explained: colours differ by 5 of 255 along the motion, "
                 "by 20 at the same pixel"),
        (MOVING | {"moving_explained": None}, "25.0 % of the pixels move, but no colour changes there"),
        (MOVING | {"moving_share": 1e-5}, "under 0.1 % of the pixels move"),
    ],
)  # fmt: skip
def test_the_summary_says_what_moves_or_that_nothing_does(own, expected):
    gap = {"motion_px": 0.1, "depth_rel": 0.01, "forecast_explained": 0.0}
    metrics = {"abs_rel": 0.1, "abs_rel_baseline": 0.2, "moving_epe": None, "moving_epe_baseline": None}
    readings = {"finished video": {"sigma": 0.02, "metrics": metrics}}
    measured = {"self_consistency": own, "know_show_gap": gap, "true_consistency": own, "readings": readings}
    lines = presentation.summary(measured).splitlines()
    assert lines[0] == f"motion  explains {100 * own['explained']:.1f} % of what changes from frame to frame"
    assert lines[1].strip().startswith(expected)
    assert lines[5].strip().startswith(expected)
    assert lines[-1] == "truth   finished video, noise 0.02: moving EPE: nothing moves; AbsRel 0.1 (mean depth 0.2)"


def test_the_summary_says_that_nothing_changes():
    gap = {"motion_px": 0.1, "depth_rel": 0.01, "forecast_explained": None}
    measured = {"self_consistency": RESTING | {"explained": None}, "know_show_gap": gap, "readings": {}}
    assert presentation.summary(measured).startswith("motion  nothing changes from frame to frame\n")
