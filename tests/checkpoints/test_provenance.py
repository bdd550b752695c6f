"""Runs go on with the weights and data that they were made from, and tools read with them; copies are the same."""

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from motion_depth.checkpoints import checkpoint
from motion_depth.checkpoints.checkpoint import read_checkpoint
from motion_depth.checkpoints.provenance import data_identity, require_same_data
from motion_depth.clips.dataset import MotionDepthDataset
from motion_depth.files import digests as identity
from motion_depth.model.backbone import Backbone
from motion_depth.model.wan import Wan
from motion_depth.settings import PLACES
from motion_depth.training.resuming import RUN_FILE
from tests.support.cache_setup import alter
from tests.support.inprocess import must_train, refused
from tests.support.run_inputs import (
    DIT,
    break_final,
    edit_in,
    other_motion,
    other_weights,
    resume_after,
    with_manifest,
    write,
)
from tests.support.scene_files import make_operator, plain_scene
from tests.support.tool_runs import run_evaluate, run_generate
from tools.model_flags import check_model

VAE, TEXT_ENCODER = "Wan2.2_VAE.safetensors", "models_t5_umt5-xxl-enc-bf16.safetensors"
CASES = {
    "resume with other rows": (
        resume_after(write("my.csv", "video,prompt\na,A ball.\n")),
        "step-2: that run was trained on other data: b missing. Give those it was trained on, or --trust_data",
    ),
    "resume with another prompt": (
        resume_after(write("my.csv", "video,prompt\na,A ball.\nb,A lamp.\n")),
        "trained on other data: other rows, prompts or another order (found 2: ",
    ),
    "resume with other motion": (
        resume_after(other_motion), "trained on other data: other files in b (found "
    ),
    "resume with another dit": (
        resume_after(lambda i: other_weights(i.model / DIT)), "trained on other weights: dit (found "
    ),
    "resume with another vae": (
        resume_after(lambda i: other_weights(i.model / "Wan2.2_VAE.safetensors")), "other weights: vae (found "
    ),
    "heads of another dit": (
        break_final(lambda f: other_weights(f.parents[1] / "model" / DIT)),
        "final: was trained on other weights: dit (found ",
    ),
    "stage 2 on another dit": (
        lambda i: i.flags.update(stage=2) or break_final(lambda f: other_weights(i.model / DIT))(i),
        "Give those it was trained on, or --trust_model to go on with these",
    ),
}  # fmt: skip


# --- whole runs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_other_weights_and_data_are_named_and_nothing_changes(case, inputs):
    change, message = CASES[case]
    change(inputs)
    assert message in refused(*inputs.argv(), unchanged=inputs.root)


def test_other_data_and_weights_are_trusted_on_request_in_a_line(inputs):
    """A new order of rows, and another DiT; from then on they are those of the run."""
    inputs.resume()
    inputs.csv.write_text("video,prompt\nb,A ramp.\na,A ball.\n")
    other_weights(inputs.model / DIT)
    assert "or --trust_model to go on with these" in refused(*inputs.argv(max_steps=4, trust_data=""))
    done = must_train(*inputs.argv(max_steps=4, trust_data="", trust_model=""))
    assert sum(line.startswith("--trust_model: ") for line in done.err.splitlines()) == 1
    assert sum(line.startswith("--trust_data: ") for line in done.err.splitlines()) == 1
    done = must_train(*inputs.argv(max_steps=6))
    assert "--trust" not in done.err


def test_copies_elsewhere_are_the_same(inputs, tmp_path):
    inputs.resume()
    data, model = shutil.copytree(inputs.data, tmp_path / "d"), shutil.copytree(inputs.model, tmp_path / "m")
    shutil.rmtree(inputs.data)
    shutil.rmtree(inputs.model)
    identity = json.loads((inputs.runs / "final/config.json").read_text())["identity"]
    must_train(*inputs.argv(max_steps=4, dataset_base_path=data, model_base_path=model))
    assert json.loads((inputs.runs / "final/config.json").read_text())["identity"] == identity


def test_a_checkpoint_of_an_earlier_version_says_that_it_cannot_be_compared(inputs):
    folders = [inputs.resume(1), inputs.resume(2), inputs.runs / "final"]
    for path in [folder / "config.json" for folder in folders]:
        config = without(json.loads(path.read_text()), "identity")
        with_manifest(path.parent, partial(path.write_text, json.dumps(config)))
    assert "--dataset_base_path was " in refused(*inputs.argv(max_steps=4))  # nothing but its place tells what it is
    places = {name: str(inputs.flags[name]) for name in PLACES & inputs.flags.keys()}
    for folder in folders:
        with_manifest(folder, partial(edit_in, folder / "config.json", "run", **places))
    edit_in(inputs.runs / RUN_FILE, "run", **places)
    other_motion(inputs)
    done = must_train(*inputs.argv(max_steps=4))
    assert sum("step-2: written by an earlier version" in line for line in done.err.splitlines()) == 1


def without(config: dict, name: str) -> dict:
    return {key: value for key, value in config.items() if key != name}


@pytest.mark.parametrize("read", ["final", "step-2"])
def test_a_checkpoint_is_read_and_hashed_once(inputs, monkeypatch, read):
    """That the heads start from, or that a run goes on from."""
    hashed, original = [], checkpoint.file_digest
    monkeypatch.setattr(checkpoint, "file_digest", lambda path, *how: hashed.append(path) or original(path, *how))
    if read == "final":
        inputs.flags |= {"heads_checkpoint": inputs.runs / "final", "head_size": None}
    else:
        inputs.resume()
    must_train(*inputs.argv(max_steps=4))
    assert sorted(hashed) == sorted(path for path in hashed[0].parent.iterdir() if path.name != checkpoint.MANIFEST)
    assert hashed[0].parent == inputs.runs / read


# --- tools ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [DIT, VAE, TEXT_ENCODER, "google/umt5-xxl/tokenizer.json"])
@pytest.mark.parametrize("tool", ["evaluate", "generate"])
def test_tools_refuse_other_weights_before_any_model_is_loaded(inputs, part, tool, monkeypatch):
    monkeypatch.setattr(Backbone, "encode_prompts", lambda *_: pytest.fail("a model was loaded"))
    path = inputs.model / part
    if path.suffix == ".json":
        path.write_bytes(path.read_bytes() + b"\n")
    else:
        other_weights(path)
    flags = ["--checkpoint", inputs.runs / "final", "--model_base_path", inputs.model, "--output", inputs.out,
             "--dataset_base_path", inputs.data, "--device", "cpu"]  # fmt: skip
    name = {DIT: "dit", VAE: "vae", TEXT_ENCODER: "text_encoder"}.get(part, "tokenizer")
    with pytest.raises(ValueError, match=rf"final: was trained on other weights: {name} \(found .+, expected .+\)"):
        if tool == "evaluate":
            run_evaluate(*flags, "--dataset_metadata_path", inputs.csv)
        else:
            run_generate(*flags, "--scene", "a", "--prompt", "A ball.")
    assert not inputs.out.exists()


def test_tools_go_on_with_trusted_weights_and_say_so(inputs, capsys):
    other_weights(inputs.model / DIT)
    checkpoint = read_checkpoint(inputs.runs / "final")
    check_model(SimpleNamespace(trust_model=True), checkpoint, Wan.in_folder(inputs.model))
    said = capsys.readouterr().err
    assert said.startswith(f"--trust_model: {inputs.runs / 'final'}: was trained on other weights: dit (found ")


# --- data -------------------------------------------------------------------------------------------------------------


class Data:
    """One scene in a folder with a CSV and a cache's folder."""

    def __init__(self, root: Path):
        self.root, self.cache = root, root / "cache"
        plain_scene(root / "data/ball")
        (root / "my.csv").write_text("video,prompt\nball,A ball.\n")

    def identity(self, cached: bool = False, read: tuple[str, ...] = ()) -> dict:
        dataset = MotionDepthDataset(self.root / "data", self.root / "my.csv", make_operator(self.root / "data"))
        return data_identity(dataset, self.cache if cached else None, read)

    def file(self, frame: int, kind: str = "motion_vectors") -> Path:
        return sorted((self.root / "data/ball" / kind).iterdir())[frame]


@pytest.fixture
def data(tmp_path) -> Data:
    return Data(tmp_path / "one")


def test_a_scene_is_known_by_few_files_where_nothing_is_remembered(data, monkeypatch):
    """Of 12 frames 2, 6 and 10; every file's name and size."""
    read, original = [], identity.file_digest
    monkeypatch.setattr(identity, "file_digest", lambda path: read.append(path) or original(path))
    before = data.identity()
    assert [path.name for path in read[::3]] == ["step_0002.png", "step_0006.png", "step_0010.png"]
    assert before["scenes"]["ball"]["content"] is None
    for kind in ("rgb", "motion_vectors", "distance_to_camera"):
        path = data.file(6, kind)
        kept = path.read_bytes()
        path.write_bytes(kept[:-1] + b"x")
        assert data.identity() != before
        path.write_bytes(kept)
    assert data.identity() == before
    path = data.file(3, "rgb")
    path.write_bytes(path.read_bytes() + b"x")
    assert data.identity() != before


def test_what_the_cache_remembers_is_compared_in_full_and_not_read(data, monkeypatch):
    before = data.identity(cached=True, read=("ball",))
    assert before["scenes"]["ball"]["content"]
    assert before["scenes"]["ball"]["sample"] == data.identity()["scenes"]["ball"]["sample"]
    with monkeypatch.context() as patch:
        patch.setattr(identity, "file_digest", lambda path: pytest.fail(f"{path} was read"))
        assert data.identity(cached=True) == before
    alter(data.file(3))
    assert data.identity()["scenes"]["ball"]["sample"] == before["scenes"]["ball"]["sample"]  # no sampled frame
    require_same_data(data.root, before, data.identity(), False, print)
    with pytest.raises(ValueError, match=r"other files in ball \(found \w{8}, expected \w{8}\)"):
        require_same_data(data.root, before, data.identity(cached=True, read=("ball",)), False, print)


def test_new_and_missing_scenes_are_named(data):
    one = {"rows": "1: a", "scenes": {name: {"sample": name, "content": None} for name in ("a", "b", "c", "d")}}
    two = {"rows": "1: b", "scenes": {name: {"sample": "x", "content": None} for name in ("a", "e")}}
    said = []
    require_same_data(data.root, one, two, True, said.append)
    assert said == [
        f"--trust_data: --resume {data.root}: that run was trained on other data: b and 2 more missing; e new; "
        "other files in a (found x, expected a)"
    ]


def test_a_file_changed_in_place_is_seen_by_a_run_with_a_cache(inputs):
    """A frame that is not sampled, with its size and time of change put back."""
    inputs.flags |= {"cache_path": inputs.cache, "output_path": inputs.out}
    must_train(*inputs.argv())
    path = inputs.file("motion_vectors", 4)
    before = path.stat()
    alter(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert "that run was trained on other data: other files in a (found " in refused(
        *inputs.argv(resume="auto", max_steps=4)
    )
