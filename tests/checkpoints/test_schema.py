"""A checkpoint's config.json, field by field, and the files that it promises: what is wrong is refused on reading."""

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch

from motion_depth.checkpoints import models
from motion_depth.checkpoints.checkpoint import CONFIG, MANIFEST, read_checkpoint, write_checkpoint
from motion_depth.checkpoints.models import load_heads
from motion_depth.checkpoints.schema import STATISTICS_FILE
from tests.support.small_checkpoint import MOTION_FILE, PROMISED, small_checkpoint


@pytest.fixture
def folder(tmp_path) -> Path:
    return small_checkpoint(tmp_path / "final")


def vouch(folder: Path, without: str = "") -> None:
    """A manifest of what lies there, as one who edits a checkpoint by hand would write it."""
    manifest = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in folder.iterdir()
        if path.name not in (MANIFEST, without)
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))


def edit(folder: Path, field: str, value: object) -> None:
    """Another value of one field, None: the field is gone; and a manifest that agrees."""
    config = json.loads((folder / CONFIG).read_text())
    *parts, name = field.split(".")
    inner = config
    for part in parts:
        inner = inner[part]
    if value is GONE:
        del inner[name]
    else:
        inner[name] = value
    (folder / CONFIG).write_text(json.dumps(config))
    vouch(folder)


GONE = object()
COUNTS = ("heads.dit_dim", "heads.width", "heads.mixer_blocks", "heads.latent_channels", "lora.rank", "run.height",
          "run.num_frames", "run.batch_size", "training.step", "training.clips", "training.processes",
          "training.health.skipped", "training.scheduler.last_epoch")  # fmt: skip
DEFAULTS = ("heads.width", "heads.mixer_blocks", "heads.latent_channels", "heads.kind")
NUMBERS = ("statistics.log_depth", "statistics.scales.motion", "statistics.scales.log_depth_gradient",
           "statistics.moving_share", "statistics.background_share")  # fmt: skip
EDITS = [
    *((field, value) for field in COUNTS for value in (10**22, -1, True, math.nan, 1.5, "8", None, [8])),
    *((field, GONE) for field in COUNTS if field not in DEFAULTS),
    *((field, value) for field in NUMBERS for value in (math.nan, math.inf, -math.inf, True, "1", None, 1e300, GONE)),
    *(("statistics.scales." + name, 0) for name in ("motion", "motion_all", "log_depth", "log_depth_gradient")),
    *(("heads.taps", value) for value in ([], [10**9], [1.0], [True], [2, 1], 3, list(range(1000)), None, GONE)),
    *(("heads.decoder_widths", value) for value in ([8, 8], [8, 8, 10**9], [8, 8, 0], "8,8,8", [8, 8, True])),
    ("heads.mixer_blocks", 10**9), ("heads.width", 10**9), ("heads.latent_skip", 1), ("heads.kind", "sparse"),
    ("heads.kind", 1), ("heads.upsampling", "cubic"), ("heads.depth", 3), ("heads", None), ("heads", GONE),
    *(("lora", value) for value in (None, GONE, [], {"rank": 4})),
    *(("lora.target_modules", value) for value in ([], "q", [1], None)),
    ("run.stage", 3), ("run.stage", "2"), ("run.stage", 1), ("run", []), ("run.mixed_precision", None),
    ("run.dataset_metadata_path", 3), ("run.frame_stride", 2), ("run.motion_frame_offset", 7), ("run.height", 8192),
    ("run.learning_rate", math.nan), ("run.seed", -1), ("run.max_hours", "1"),
    ("training", GONE), ("training.best_score", math.nan), ("training.best_score", "1"),
    ("training.health.norms", [math.nan]), ("training.health.norms", None), ("training.scheduler._last_lr", [math.inf]),
    ("training.scheduler", None), ("training.wandb_run_id", 3), ("versions", None), ("versions.torch", 2),
    ("format", 3), ("format", None), ("statistics", GONE), ("identity.weights.dit", "00"),
    ("identity.data.scenes.ball", None), ("identity.data.scenes.ball", {"sample": "00"}),
    ("identity.data.scenes.ball", {"sample": None, "content": "00"}), ("identity.data.rows", GONE),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), EDITS, ids=lambda each: "gone" if each is GONE else repr(each)[:40])
def test_an_edited_field_is_named_on_reading(folder, field, value):
    edit(folder, field, value)
    with pytest.raises(ValueError, match=r"final/config\.json: ") as error:
        read_checkpoint(folder)
    message = str(error.value)
    named = {field, field.rpartition(".")[0] or field, "lora" if field == "run.stage" else field}
    assert any(f"config.json: {name}" in message for name in named), message
    assert len(message.replace(str(folder), "")) < 250


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_has_a_default_may_be_missing(folder, name):
    edit(folder, name, GONE)
    read_checkpoint(folder)


def test_a_whole_one_is_read_with_or_without_identity_and_with_what_later_versions_add(folder):
    edit(folder, "identity", GONE)
    edit(folder, "run.a_new_flag", {"x": 1})
    edit(folder, "news", [1])
    found = read_checkpoint(folder)
    assert found.files == {*PROMISED, CONFIG}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("heads.width", 2**14), ("heads.mixer_blocks", 100), ("heads.kind", "linear"), ("heads.latent_skip", False)),
        ("heads.taps", list(range(64))),
    ],
)
def test_sizes_that_the_files_do_not_have_are_refused_before_anything_is_built(folder, monkeypatch, field, value):
    edit(folder, field, value)
    built, original = [], models.MotionDepthHeads
    monkeypatch.setattr(
        models, "MotionDepthHeads", lambda *given: built.append(torch.empty(0).device.type) or original(*given)
    )
    with pytest.raises(ValueError, match=rf"{MOTION_FILE}: does not fit config.json \(\d+ tensors, the first is"):
        load_heads(read_checkpoint(folder), 16, 64)
    assert built == ["meta"]


def test_whole_heads_are_built_and_filled(folder):
    heads = load_heads(read_checkpoint(folder), 16, 30)
    assert heads.motion.tap_mix.projections[0].weight.shape == (8, 16)
    assert all(parameter.device.type == "cpu" for parameter in heads.parameters())


@pytest.mark.parametrize("content", ["{}", '{"config.json": {}}', '{"config.json": 3}', "[]", "null", "[" * 10**5])
def test_a_manifest_that_vouches_for_nothing_hides_no_damage(folder, content):
    path = folder / MOTION_FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (folder / MANIFEST).write_text(content)
    with pytest.raises(ValueError, match=r"final"):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", PROMISED)
@pytest.mark.parametrize("there", [True, False])
def test_what_the_config_promises_must_be_vouched_for(folder, name, there):
    if not there:
        (folder / name).unlink()
    vouch(folder, without=name)
    with pytest.raises(ValueError, match=rf"config\.json: promises {name}, which the manifest does not name"):
        read_checkpoint(folder)


def test_config_must_be_vouched_for_too(folder):
    vouch(folder, without=CONFIG)
    with pytest.raises(ValueError, match=r"manifest\.json: does not name config\.json"):
        read_checkpoint(folder)


def test_a_file_that_nobody_vouches_for_is_not_part_of_it(folder):
    (folder / "training_state.safetensors").write_bytes(b"x")
    found = read_checkpoint(folder)
    assert not found.has("training_state.safetensors")


@pytest.mark.parametrize("map_", [torch.zeros(3), torch.full((2, 2), math.nan), torch.zeros(0, 3)])
def test_a_mean_depth_that_is_no_map_is_an_error(folder, map_):
    found = read_checkpoint(folder)
    tensors = {name: found.tensors(name) for name in PROMISED} | {STATISTICS_FILE: {"mean_depth": map_}}
    write_checkpoint(folder, tensors, found.config)
    with pytest.raises(ValueError, match=r"statistics\.safetensors: mean_depth: found shape"):
        load_heads(read_checkpoint(folder), 16, 30)
