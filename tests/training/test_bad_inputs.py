"""Whatever is wrong with data, flags, weights, checkpoints, cache or machine: one line says what, and nothing changes.

Each case damages one thing of a complete set of inputs and starts training, in this process; some of them run as real
processes too.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motion_depth.doctor.record import VERSION, fingerprints
from motion_depth.training.resuming import RUN_FILE
from tests.support.inprocess import snapshot, train
from tests.support.run_inputs import (
    DIT,
    HEADS,
    Inputs,
    break_final,
    break_run,
    cut,
    edit_in,
    edit_json,
    expect_refusal,
    flags,
    flip,
    other_tensors,
    pipe,
    save_npy,
    with_manifest,
    write,
)
from tests.support.runs import SCRIPT, run_python


def record(inputs: Inputs) -> None:
    """A recorded check that measured forward motion."""
    forward = {"units": "pixels", "direction": "forward", "y_axis": "down", "frame_offset": 0}
    (inputs.root / "my.check.json").write_text(json.dumps({
        "version": VERSION, "checked": "2026-01-01T00:00:00+00:00", "convention": forward, "fitting": [forward],
        "explained": 0.8, "errors": 0, "warnings": 0, "scenes": fingerprints(inputs.data, ["a", "b"]),
    }))  # fmt: skip


def two_problems(inputs: Inputs) -> None:
    inputs.file("rgb", 3).unlink()
    cut(inputs.file("distance_to_camera", 5, "b"))


def link_out(inputs: Inputs) -> None:
    outside = inputs.root / "outside"
    (inputs.data / "a").rename(outside)
    (inputs.data / "a").symlink_to(outside)


def edit_manifest(folder: Path, without: str) -> None:
    path = folder / "manifest.json"
    path.write_text(
        json.dumps({name: facts for name, facts in json.loads(path.read_text()).items() if name != without})
    )


DATA = {
    "no base folder": (flags(dataset_base_path="nowhere"), "--dataset_base_path nowhere: there is no such folder"),
    "no csv": (flags(dataset_metadata_path="no.csv"), "no.csv: not readable"),
    "empty csv": (write("my.csv", ""), "my.csv: found an empty file"),
    "csv without rows": (write("my.csv", "video,prompt\n"), "my.csv: found no row below the header"),
    "csv without prompt": (write("my.csv", "video\na\n"), "my.csv: found the columns video"),
    "csv with an empty prompt": (write("my.csv", "video,prompt\na,\n"), "my.csv row 1: found an empty prompt"),
    "csv with a comma too many": (write("my.csv", "video,prompt\na,b,c\n"), "my.csv row 1: found 3 fields"),
    "csv with a column twice": (write("my.csv", "video,prompt,prompt\na,b,c\n"), "others, each once"),
    "csv is a pipe": (lambda i: pipe(i.csv), "my.csv: not readable, expected a CSV (it is a named pipe"),
    "csv is a folder": (lambda i: i.csv.unlink() or i.csv.mkdir(), "my.csv: not readable, expected a CSV (it is a fo"),
    "csv of bytes": (lambda i: i.csv.write_bytes(b"video,prompt\na,\xff\n") and None, "text that is not UTF-8"),
    "unknown scene": (write("my.csv", "video,prompt\nc,A ball.\n"), "row 1: {root}/data/c: there is no such scene"),
    "scene above the folder": (write("my.csv", "video,prompt\n../data/a,x\n"), "row 1: scene '../data/a'"),
    "absolute scene": (write("my.csv", "video,prompt\n/etc,x\n"), "row 1: scene '/etc'"),
    "link out of the folder": (link_out, "leads out of"),
    "no depth folder": (lambda i: shutil.rmtree(i.data / "a/distance_to_camera"), "but not distance_to_camera"),
    "no motion files": (
        lambda i: [path.unlink() for path in (i.data / "a/motion_vectors").iterdir()] and None,
        "a/motion_vectors: found no .npy file",
    ),
    "frame missing": (lambda i: i.file("distance_to_camera", 4).unlink(), "frame 4 is missing"),
    "frame missing everywhere": (
        lambda i: [i.file(kind, 4).unlink() for kind in ("rgb", "motion_vectors", "distance_to_camera")] and None,
        "frame 4 is missing between 0 and 11",
    ),
    "frame twice": (
        lambda i: shutil.copy(i.file("rgb", 4), i.data / "a/rgb/again_0004.png") and None,
        "found frame 4 twice",
    ),
    "no frame number": (
        lambda i: i.file("rgb", 4).rename(i.data / "a/rgb/four.png") and None, "four.png: found no frame"
    ),
    "cut picture": (lambda i: cut(i.file("rgb", 0), 9), "step_0000.png: not readable"),
    "cut motion": (lambda i: cut(i.file("motion_vectors", 5)), "motion_vectors_0005.npy: not readable"),
    "empty depth": (lambda i: cut(i.file("distance_to_camera", 5), 0), "0005.npy: not readable"),
    "motion of another size": (
        save_npy("motion_vectors", 5, np.zeros((9, 9, 4), np.float32)), "motion_vectors_0005.npy: found 9 x 9"
    ),
    "motion without channels": (
        save_npy("motion_vectors", 5, np.zeros((64, 96), np.float32)), "vectors_0005.npy: found an array of shape"
    ),
    "depth in integers": (
        save_npy("distance_to_camera", 5, np.zeros((64, 96), np.int32)), "0005.npy: found type int32"
    ),
    "depth is a pipe": (lambda i: pipe(i.file("distance_to_camera", 5)), "0005.npy: not readable, expected an npy"),
    "picture is a pipe": (lambda i: pipe(i.file("rgb", 5)), "step_0005.png: not readable, expected an RGB picture"),
    "first picture leads nowhere": (
        lambda i: i.file("rgb", 0).unlink() or i.file("rgb", 0).symlink_to("gone"), "it is a link to gone, which is not"
    ),
    "pickled depth": (
        lambda i: np.save(i.file("distance_to_camera", 5), np.array([print], object), allow_pickle=True),
        "0005.npy: not readable",
    ),
    "16-bit picture": (
        lambda i: Image.fromarray(np.zeros((64, 96), np.uint16)).save(i.file("rgb", 0)), "a picture of mode I;16"
    ),
    "two problems at once": (two_problems, "my.csv: 2 problems"),
    "scene too short": (flags(num_frames=49), "2 of 2 scenes: found 12 frames, expected at least 49"),
    "stride too long": (flags(frame_stride=9), "2 of 2 scenes: found 12 frames, expected at least 37"),
    "recorded check says otherwise": (record, "Pass --motion_direction forward; or --trust_data"),
    "validation on training scenes": (flags(val_metadata_path="{root}/my.csv"), "a is a training scene too"),
}  # fmt: skip
FLAGS = {
    "no stage": (flags(stage=None), "the following arguments are required: --stage"),
    "unknown flag": (flags(hight=64), "unrecognized arguments: --hight 64"),
    "text for a number": (flags(batch_size="two"), "argument --batch_size: invalid int value: 'two'"),
    "height": (flags(height=100), "--height: found 100, expected a multiple of 32"),
    "frames": (flags(num_frames=6), "--num_frames: found 6"),
    "stride": (flags(frame_stride="x"), "--frame_stride x: expected a whole number or auto"),
    "batch size": (flags(batch_size=0), "--batch_size 0: expected 1 to 1,024"),
    "batch size beyond all": (flags(batch_size=10**22), "--batch_size 10000000000000000000000: expected 1 to 1,024"),
    "loader processes": (flags(dataset_num_workers=10**9), "--dataset_num_workers 1000000000: expected 0 to 1,024"),
    "seed": (flags(seed=-1), "--seed -1: expected 0 to 4,294,967,295"),
    "learning rate": (flags(learning_rate="nan"), "--learning_rate nan: expected"),
    "weight decay": (flags(weight_decay=-1), "--weight_decay -1.0: expected"),
    "time limit": (flags(max_hours=-1), "--max_hours -1.0: expected"),
    "units": (flags(motion_units="metres"), "--motion_units"),
    "mixture": (flags(noise_mixture="1,2"), "--noise_mixture"),
    "taps": (flags(head_taps="0.5,0.51"), "--head_taps"),
    "stage 2 from nothing": (flags(stage=2), "--heads_checkpoint: stage 2 starts from"),
    "two models": (flags(model_paths="[]"), "give one of --model_base_path"),
    "cache without a folder": (flags(cache_only=""), "--cache_only needs --cache_path"),
    "output is a file": (write("out", "x"), "--output_path {root}/out: {root}/out is not a folder"),
    "output holds results": (flags(output_path="{root}/runs"), "already holds final, step-1"),
    "cache is a file": (flags(cache_path="{root}/my.csv"), "--cache_path {root}/my.csv: found a file"),
}  # fmt: skip
WEIGHTS = {
    "no model folder": (flags(model_base_path="nowhere"), "--model_base_path nowhere: no such folder"),
    "no text encoder": (
        lambda i: next(i.model.glob("models_t5*")).unlink(), "missing models_t5_umt5-xxl-enc-bf16.safetensors"
    ),
    "no tokenizer": (lambda i: shutil.rmtree(i.model / "google"), "umt5-xxl/ (the tokenizer)"),
    "cut weights": (
        lambda i: cut(i.model / DIT), f"{DIT} cannot be read as weights",
    ),
    "vae in the place of the dit": (
        lambda i: shutil.copy(i.model / "Wan2.2_VAE.safetensors", i.model / DIT) and None,
        "holds the vae, expected the dit",
    ),
    "model paths that are no JSON": (flags(model_base_path=None, model_paths="x"), "--model_paths x: expected a JSON"),
    "lora on nothing": (
        lambda i: i.flags.update(stage=2, head_size=None, heads_checkpoint=i.runs / "final", lora_target_modules="xyz"),
        "--lora_target_modules xyz",
    ),
}  # fmt: skip
CHECKPOINTS = {
    "resume from nowhere": (flags(resume="nowhere"), "nowhere: no such checkpoint folder"),
    "resume from final": (
        lambda i: i.flags.update(resume=i.runs / "final"), "final: has no training_state.safetensors; give a step-N"
    ),
    "resume with other settings": (
        lambda i: i.resume() and i.flags.update(seed=3), "--seed was 0, is 3"
    ),
    "resume an older one": (
        lambda i: i.flags.update(output_path=i.runs, resume=i.runs / "step-1"), "holds later ones (step-2)"
    ),
    "all step folders cut": (break_run(lambda f: cut(f / "training_state.safetensors")), "none of the 2 step folders"),
    "all manifests gone": (break_run(lambda f: (f / "manifest.json").unlink()), "none of the 2 step folders"),
    "manifest is a list": (break_run(lambda f: (f / "manifest.json").write_text("[1]")), "none of the 2 step folders"),
    "step folder of no run": (
        break_run(lambda f: with_manifest(f, lambda: edit_json(f / "config.json", training=None)), everywhere=False),
        "step-2/config.json: training: found None, expected an object",
    ),
    "resume of a step folder with an edited size": (
        break_run(lambda f: with_manifest(f, lambda: edit_in(f / "config.json", "run", height=-1)), everywhere=False),
        "step-2/config.json: run.height: found -1, expected a whole number from 32 to 4,096",
    ),
    "results of another run and no step folder": (
        lambda i: [shutil.rmtree(i.resume(step)) for step in (1, 2)] and None, "holds final, log.jsonl of another run"
    ),
    "heads from nowhere": (flags(heads_checkpoint="nowhere"), "nowhere: no such checkpoint folder"),
    "heads cut": (break_final(lambda f: cut(f / HEADS)), f"{HEADS}: 40 bytes, the manifest says"),
    "heads with a flipped bit": (break_final(lambda f: flip(f / HEADS)), f"{HEADS}: its checksum is not"),
    "heads gone": (break_final(lambda f: (f / HEADS).unlink()), f"{HEADS}: missing from the checkpoint"),
    "heads of another format": (
        break_final(lambda f: with_manifest(f, lambda: edit_json(f / "config.json", format=99))), "format 99, expected"
    ),
    "heads that nobody describes": (
        break_final(lambda f: with_manifest(f, lambda: edit_json(f / "config.json", heads={"x": 1}))),
        "final/config.json: heads.dit_dim: missing",
    ),
    "heads of another shape": (
        break_final(lambda f: with_manifest(f, lambda: other_tensors(f / HEADS))), f"{HEADS}: does not fit config.json"
    ),
    "manifest of nothing over a flipped bit": (
        break_final(lambda f: (flip(f / HEADS), (f / "manifest.json").write_text("{}"))),
        "manifest.json: does not name config.json",
    ),
    "manifest without the heads": (
        break_final(lambda f: edit_manifest(f, HEADS)), f"config.json: promises {HEADS}, which the manifest does not"
    ),
    "heads and flags disagree": (
        lambda i: i.flags.update(heads_checkpoint=i.runs / "final", head_size=None, head="linear"),
        "its heads differ from the --head flags in kind",
    ),
    "manifest that leaves the folder": (
        break_final(lambda f: edit_json(f / "manifest.json", **{"../x": {"bytes": 1, "sha256": ""}})), "names '../x'"
    ),
}  # fmt: skip
CASES = DATA | FLAGS | WEIGHTS | CHECKPOINTS


def filled(text: object, inputs: Inputs) -> object:
    return text.replace("{root}", str(inputs.root)) if isinstance(text, str) else text


@pytest.mark.parametrize("case", CASES)
def test_a_bad_input_is_named_and_nothing_changes(case, inputs):
    change, message = CASES[case]
    change(inputs)
    inputs.flags = {name: filled(value, inputs) for name, value in inputs.flags.items()}
    before = snapshot(inputs.root)
    done = train(*inputs.argv())
    expect_refusal(done.code, done.err, filled(message, inputs))
    assert snapshot(inputs.root) == before


def test_there_are_enough_cases():
    assert len(CASES) >= 60


def test_a_damaged_cache_entry_stops_training_with_its_name(inputs):
    """Its header is whole, so that it is found where it is read; no checkpoint is written."""
    inputs.flags |= {"cache_path": inputs.cache}
    assert train(*inputs.argv(cache_only="")).code == 0
    for path in inputs.cache.rglob("window-*.safetensors"):
        flip(path)
    before = snapshot(inputs.cache)
    done = train(*inputs.argv())
    expect_refusal(done.code, done.err, "damaged (its bytes or its header have changed)")
    assert snapshot(inputs.cache) == before
    assert sorted(path.name for path in inputs.out.iterdir()) == ["log.jsonl", RUN_FILE]


def test_one_damaged_step_folder_is_passed_over_with_a_message(whole, inputs):
    cut(inputs.runs / "step-2/training_state.safetensors")
    shutil.rmtree(inputs.runs / "final")
    done = train(*whole.argv(output_path=inputs.runs, resume="auto"))
    assert done.code == 0, done.err
    assert "step-2/training_state.safetensors: 40 bytes" in done.err
    assert "trying the one before" in done.err
    assert (inputs.runs / "final").is_dir()


def test_data_that_contradict_the_check_are_trusted_on_request(inputs):
    record(inputs)
    done = train(*inputs.argv(trust_data=""))
    assert done.code == 0, done.err
    assert "--trust_data" in done.err


@pytest.mark.parametrize("case", ["frame missing", "unknown flag", "heads with a flipped bit"])
def test_a_real_process_says_the_same(case, inputs):
    change, message = CASES[case]
    change(inputs)
    before = snapshot(inputs.root)
    done = run_python(SCRIPT, *inputs.argv())
    expect_refusal(done.returncode, done.stderr, message)
    assert snapshot(inputs.root) == before
