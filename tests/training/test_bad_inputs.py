"""Whatever is wrong with data, flags, weights, checkpoints, cache or machine: one line says what, and nothing changes.

Each case damages one thing of a complete set of inputs and starts training, in this process; some of them run as real
processes too.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from motion_depth.training.resuming import RUN_FILE
from tests.support.inprocess import expect_refusal, must_train, refused, snapshot
from tests.support.run_inputs import (
    DIT,
    HEADS,
    Inputs,
    break_final,
    break_run,
    cut,
    edit_json,
    flags,
    flip,
    pipe,
    with_manifest,
    write,
)
from tests.support.runs import SCRIPT, run_python


def two_problems(inputs: Inputs) -> None:
    inputs.file("rgb", 3).unlink()
    cut(inputs.file("distance_to_camera", 5, "b"))


def link_out(inputs: Inputs) -> None:
    outside = inputs.root / "outside"
    (inputs.data / "a").rename(outside)
    (inputs.data / "a").symlink_to(outside)


DATA = {
    "no base folder": (flags(dataset_base_path="nowhere"), "--dataset_base_path nowhere: there is no such folder"),
    "no csv": (flags(dataset_metadata_path="no.csv"), "no.csv: not readable"),
    "csv with a comma too many": (write("my.csv", "video,prompt\na,b,c\n"), "my.csv row 1: found 3 fields"),
    "csv is a pipe": (lambda i: pipe(i.csv), "my.csv: not readable, expected a CSV (it is a named pipe"),
    "unknown scene": (write("my.csv", "video,prompt\nc,A ball.\n"), "row 1: {root}/data/c: there is no such scene"),
    "link out of the folder": (link_out, "leads out of"),
    "no depth folder": (lambda i: shutil.rmtree(i.data / "a/distance_to_camera"), "but not distance_to_camera"),
    "frame missing": (lambda i: i.file("distance_to_camera", 4).unlink(), "frame 4 is missing"),
    "cut motion": (lambda i: cut(i.file("motion_vectors", 5)), "motion_vectors_0005.npy: not readable"),
    "depth is a pipe": (lambda i: pipe(i.file("distance_to_camera", 5)), "0005.npy: not readable, expected an npy"),
    "first picture leads nowhere": (
        lambda i: i.file("rgb", 0).unlink() or i.file("rgb", 0).symlink_to("gone"), "it is a link to gone, which is not"
    ),
    "16-bit picture": (
        lambda i: Image.fromarray(np.zeros((64, 96), np.uint16)).save(i.file("rgb", 0)), "a picture of mode I;16"
    ),
    "two problems at once": (two_problems, "my.csv: 2 problems"),
    "scene too short": (flags(num_frames=49), "2 of 2 scenes: found 12 frames, expected at least 49"),
    "validation on training scenes": (flags(val_metadata_path="{root}/my.csv"), "a is a training scene too"),
}  # fmt: skip
FLAGS = {
    "no stage": (flags(stage=None), "the following arguments are required: --stage"),
    "unknown flag": (flags(hight=64), "unrecognized arguments: --hight 64"),
    "text for a number": (flags(batch_size="two"), "argument --batch_size: invalid int value: 'two'"),
    "height": (flags(height=100), "--height: found 100, expected a multiple of 32"),
    "frames": (flags(num_frames=6), "--num_frames: found 6"),
    "batch size beyond all": (flags(batch_size=10**22), "--batch_size 10000000000000000000000: expected 1 to 1,024"),
    "taps": (flags(head_taps="0.5,0.51"), "--head_taps"),
    "stage 2 from nothing": (flags(stage=2), "--heads_checkpoint: stage 2 starts from"),
    "two models": (flags(model_paths="[]"), "give one of --model_base_path"),
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
    "step folder of no run": (
        break_run(lambda f: with_manifest(f, lambda: edit_json(f / "config.json", training=None)), everywhere=False),
        "step-2/config.json: training: found None, expected an object",
    ),
    "results of another run and no step folder": (
        lambda i: [shutil.rmtree(i.resume(step)) for step in (1, 2)] and None, "holds final, log.jsonl of another run"
    ),
    "heads from nowhere": (flags(heads_checkpoint="nowhere"), "nowhere: no such checkpoint folder"),
    "heads with a flipped bit": (break_final(lambda f: flip(f / HEADS)), f"{HEADS}: its checksum is not"),
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
    assert filled(message, inputs) in refused(*inputs.argv(), unchanged=inputs.root)


def test_a_damaged_cache_entry_stops_training_with_its_name(inputs):
    """Its header is whole, so that it is found where it is read; no checkpoint is written."""
    inputs.flags |= {"cache_path": inputs.cache}
    must_train(*inputs.argv(cache_only=""))
    assert not inputs.out.exists()
    for path in inputs.cache.rglob("window-*.safetensors"):
        flip(path)
    assert "damaged (its bytes or its header have changed)" in refused(*inputs.argv(), unchanged=inputs.cache)
    assert sorted(path.name for path in inputs.out.iterdir()) == ["log.jsonl", RUN_FILE]


def test_one_damaged_step_folder_is_passed_over_with_a_message(whole, inputs):
    cut(inputs.runs / "step-2/training_state.safetensors")
    shutil.rmtree(inputs.runs / "final")
    done = must_train(*whole.argv(output_path=inputs.runs, resume="auto"))
    assert "step-2/training_state.safetensors: 40 bytes" in done.err
    assert "trying the one before" in done.err
    assert (inputs.runs / "final").is_dir()


@pytest.mark.parametrize("case", ["frame missing", "unknown flag", "heads with a flipped bit"])
def test_a_real_process_says_the_same(case, inputs):
    change, message = CASES[case]
    change(inputs)
    before = snapshot(inputs.root)
    done = run_python(SCRIPT, *inputs.argv())
    expect_refusal(done.returncode, done.stderr)
    assert message in done.stderr
    assert snapshot(inputs.root) == before
