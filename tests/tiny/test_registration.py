"""Models that the library does not know are registered from a file, which is checked first."""

import json
import math
import os
from pathlib import Path

import pytest
from diffsynth.configs import MODEL_CONFIGS

from motion_depth.tiny import model as tiny
from tests.tiny.test_model import load


def test_registering_twice_changes_nothing(folder):
    before = len(MODEL_CONFIGS)
    tiny.register_model_configs(folder)
    assert len(MODEL_CONFIGS) == before + 3
    tiny.register_model_configs(str(folder))
    assert len(MODEL_CONFIGS) == before + 3


def test_a_class_is_known_by_its_name_in_whatever_module_an_older_file_has_it(folder, tmp_path):
    tiny.register_model_configs(edited(folder, tmp_path, 2, model_class="motion_depth.tiny_vae.SmallVideoVAE"))
    assert MODEL_CONFIGS[-1]["model_class"] == "motion_depth.tiny.vae.SmallVideoVAE"


def test_folder_without_the_file_registers_nothing(tmp_path):
    before = list(MODEL_CONFIGS)
    tiny.register_model_configs(tmp_path)
    assert before == MODEL_CONFIGS


def edited(folder: Path, target: Path, number: int, **changes: object) -> Path:
    """A copy of the folder's entries in `target`, one of them changed."""
    entries = json.loads((folder / tiny.CONFIG_FILE).read_text())
    entries[number] |= changes
    (target / tiny.CONFIG_FILE).write_text(json.dumps(entries))
    return target


def test_last_of_two_models_with_equal_shapes_counts(folder, tmp_path):
    """The number of heads is in no tensor's shape: both entries would match, and the library load two DiTs."""
    tiny.register_model_configs(folder)
    kwargs = tiny.dit_arguments(num_heads=1)
    tiny.register_model_configs(edited(folder, tmp_path, 0, extra_kwargs=kwargs))
    digest = json.loads((folder / tiny.CONFIG_FILE).read_text())[0]["model_hash"]
    assert [entry["extra_kwargs"]["num_heads"] for entry in MODEL_CONFIGS if entry["model_hash"] == digest] == [1]
    tiny.register_model_configs(folder)
    pipe = load(folder)
    assert pipe.dit2 is None
    assert pipe.dit.blocks[0].num_heads == 4


def test_library_models_are_never_replaced(folder, tmp_path):
    digest = next(entry["model_hash"] for entry in MODEL_CONFIGS if entry["model_name"] == "wan_video_dit")
    with pytest.raises(ValueError, match="belongs to one of the library's own models"):
        tiny.register_model_configs(edited(folder, tmp_path, 0, model_hash=digest))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_class": "os.system"}, "model_class 'os.system' is not one of"),
        ({"model_class": ["x"]}, "is not one of"),
        (
            {"model_class": "motion_depth.tiny.vae.LinearVideoVAE"},
            r"is of an earlier version; make the tiny model again \(tools/demo/make_tiny_wan.py --overwrite\)",
        ),
        ({"model_name": "wan_video_vae"}, "model_name 'wan_video_vae' does not go with"),
        ({"model_hash": "no"}, "is not 32 hexadecimal digits"),
        ({"extra_kwargs": {"width": 3}}, "extra_kwargs do not fit WanModel"),
        ({"extra_kwargs": None}, "extra_kwargs do not fit WanModel"),
        ({"state_dict_converter": "os.system"}, "expected the keys"),
        *(
            (
                {"extra_kwargs": tiny.dit_arguments() | {name: value}},
                f"extra_kwargs: found {name} .*, expected a number of at most",
            )
            for name, value in [
                ("num_layers", 10**9),
                ("num_layers", 10**400),
                ("num_layers", "10"),
                ("num_layers", [10**9]),
                ("num_layers", -1),
                ("num_heads", 0),
                ("num_layers", math.inf),
                ("num_layers", math.nan),
                ("dim", 10**9),
                ("ffn_dim", 10**12),
                ("freq_dim", 10**9),
                ("in_dim", 10**9),
                ("text_dim", 10**9),
                ("patch_size", [1, 2, 10**9]),
                ("patch_size", [1] * 10**6),
                ("eps", None),
                ("dim", {"a": 1}),
            ]
        ),
        *(
            (
                {
                    "model_class": "SmallVideoVAE",
                    "model_name": "wan_video_vae",
                    "extra_kwargs": {"decoder": [16, 12, 8], "depths": [1, 1, 1]} | {name: value},
                },
                f"extra_kwargs: {message}",
            )
            for name, value, message in [
                ("decoder", 16, "found decoder 16, expected"),
                ("decoder", [16, 16], "found decoder .*, expected"),
                ("decoder", [16, 16, 10**9], "found decoder .*, expected"),
                ("depths", [1, 1, 1000], "found depths .*, expected a number of at most 256"),
                ("depths", [], "found depths .*, expected"),
                ("decoder", [2**16, 2**16, 2**16], ".* parameters, expected at most"),
            ]
        ),
        ({"extra_kwargs": tiny.dit_arguments() | {"dim": 2**16, "ffn_dim": 2**16}}, "parameters, expected at most 5e"),
    ],
)
def test_bad_entry_is_a_one_line_error_and_registers_nothing(folder, tmp_path, changes, message):
    before = list(MODEL_CONFIGS)
    with pytest.raises(ValueError, match=message) as error:
        tiny.register_model_configs(edited(folder, tmp_path, 0, **changes))
    assert str(error.value).startswith(f"{tmp_path / tiny.CONFIG_FILE}: entry 0")
    assert "\n" not in str(error.value)
    assert before == MODEL_CONFIGS


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / tiny.CONFIG_FILE)
    with pytest.raises(ValueError, match="it is a named pipe, expected a file"):
        tiny.register_model_configs(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"), [("[{", "cannot be read as JSON"), ("{}", "expected a list"), ("[3]", "expected the keys")]
)
def test_broken_file_is_a_one_line_error(tmp_path, text, message):
    (tmp_path / tiny.CONFIG_FILE).write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        tiny.register_model_configs(tmp_path)
    assert "\n" not in str(error.value)
