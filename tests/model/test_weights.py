"""Weights: told by names and shapes without being loaded, loaded once, and by whom."""

import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from motion_depth.clips.batch import reduce_item
from motion_depth.clips.dataset import MotionDepthDataset
from motion_depth.model.lora import check_lora_targets
from motion_depth.model.wan import Wan
from motion_depth.model.weights import WanFiles, check_weights, read_shapes
from motion_depth.tiny.model import TEXT_ENCODER_FILE, VAE_FILE
from motion_depth.training import samples as source
from motion_depth.training.start import Start
from tests.support.processes import in_processes
from tests.support.scene_files import make_operator
from tests.support.settings import make_settings

T5 = Path(TEXT_ENCODER_FILE).with_suffix(".pth").name
VAE = Path(VAE_FILE).with_suffix(".pth").name


@pytest.fixture
def pickled(tiny_wan, tmp_path) -> Path:
    """The tiny model with text encoder and VAE as the 5B release has them."""
    for path in tiny_wan.iterdir():
        if path.name not in (TEXT_ENCODER_FILE, VAE_FILE):
            (tmp_path / path.name).symlink_to(path)
    torch.save(load_file(tiny_wan / TEXT_ENCODER_FILE), tmp_path / T5)
    torch.save({"state_dict": load_file(tiny_wan / VAE_FILE)}, tmp_path / VAE)
    return tmp_path


@pytest.fixture
def loads(monkeypatch) -> list[tuple[str, str]]:
    """(file, device) of everything that torch.load is asked for."""
    seen, original = [], torch.load

    def load(path, *args, **kwargs):
        seen.append((Path(path).name, str(kwargs["map_location"])))
        return original(path, *args, **kwargs)

    monkeypatch.setattr(torch, "load", load)
    return seen


def test_archives_are_told_by_their_index(tiny_wan, pickled, loads):
    expected = check_weights(WanFiles.in_folder(tiny_wan))
    assert check_weights(WanFiles.in_folder(pickled)) == expected
    assert loads
    assert {device for _, device in loads} == {"meta"}


def test_shapes_of_an_archive_cost_no_memory(tmp_path):
    """The archive says that it holds 8 TB; its storage is one number that is repeated."""
    torch.save({"weight": torch.zeros(1).expand(2_000_000, 1_000_000)}, tmp_path / "huge.pth")
    assert read_shapes([tmp_path / "huge.pth"])["weight"].shape == (2_000_000, 1_000_000)


def save_old(folder: Path) -> None:
    torch.save(torch.load(folder / T5, map_location="cpu"), folder / T5, _use_new_zipfile_serialization=False)


def test_files_of_old_torch_are_told_too(pickled, tiny_wan):
    save_old(pickled)
    assert check_weights(WanFiles.in_folder(pickled)) == check_weights(WanFiles.in_folder(tiny_wan))


BROKEN = {
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "text": lambda path: path.write_text("<html>not found</html>"),
    "a list": lambda path: torch.save([torch.zeros(3)], path),
    "code": lambda path: torch.save({"a": print}, path),
    "another model": lambda path: torch.save({"a": torch.zeros(3)}, path),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("file", [T5, VAE])
def test_a_broken_archive_is_an_error_before_anything_is_loaded(pickled, file, name):
    BROKEN[name](pickled / file)
    said = rf"^model files: {pickled / file} (cannot be read as weights \(.+\)|is no WAN model .*)$"
    with pytest.raises(ValueError, match=said):
        check_weights(WanFiles.in_folder(pickled))


def test_files_of_each_others_parts_are_told(pickled):
    (pickled / T5).rename(pickled / "swap")
    (pickled / VAE).rename(pickled / T5)
    (pickled / "swap").rename(pickled / VAE)
    with pytest.raises(ValueError, match="holds the vae, expected the text_encoder"):
        check_weights(WanFiles.in_folder(pickled))


def test_lora_targets_are_looked_for_among_linear_layers(tiny_wan):
    layers = Wan.in_folder(tiny_wan).linear_layers()
    check_lora_targets(layers, ("q", "ffn.0"))
    with pytest.raises(ValueError, match="--lora_target_modules norm_q,bias: no linear layer"):
        check_lora_targets(layers, ("q", "norm_q", "bias"))


def test_an_archive_is_loaded_once(tiny_wan, pickled, loads):
    prompts = ["A ball rolls.", "A duck."]
    found = Wan.in_folder(pickled).encode_prompts(prompts, torch.float32, "cpu")
    assert [name for name, device in loads if device != "meta"] == [T5]
    expected = Wan.in_folder(tiny_wan).encode_prompts(prompts, torch.float32, "cpu")
    assert all(torch.equal(found[prompt], expected[prompt]) for prompt in prompts)


# --- who loads the text encoder ---------------------------------------------------------------------------------------


def prepare(accelerator, scenes, csv, backbone, cache_path) -> tuple:
    """What `prepare_samples` returns, and the parts that it loaded; nothing keeps a text encoder when it is done."""
    dataset = MotionDepthDataset(scenes, csv, make_operator(scenes, 96, 96, num_frames=5), reduce=reduce_item)
    loaded, text_encoders, original = [], [], Wan.load_pipeline

    def load(self, parts, *arguments):
        assert not any(each() for each in text_encoders), "the text encoder is still there"
        pipe = original(self, parts, *arguments)
        loaded.extend(parts)
        if "text_encoder" in parts:
            text_encoders.append(weakref.ref(pipe.text_encoder))
        return pipe

    Wan.load_pipeline = load  # of a process that ends with this
    settings = make_settings(mixed_precision="no", val_clips=1, cache_path=cache_path, dataset_num_workers=0)
    found = source.prepare_samples(accelerator, settings, dataset, dataset, backbone, Start(total=4))
    assert not any(each() for each in text_encoders)
    return found, loaded


@pytest.mark.parametrize("cached", [True, False])
def test_one_process_loads_the_text_encoder_and_all_have_its_contexts(
    tiny_wan, demo_scenes, demo_csv, tmp_path, cached
):
    backbone = Wan.in_folder(tiny_wan)

    def job(accelerator):
        (samples, encoder, held_out), loaded = prepare(
            accelerator, demo_scenes, demo_csv, backbone, tmp_path / "cache" if cached else None
        )
        sample = samples[0]
        context = sample.context if cached else encoder.prompt(sample.prompt)
        return sorted(loaded), sample.prompt, context.numpy(), held_out.samples[0].context.numpy()

    first, second = in_processes(job, [2])
    assert first[0] == ["text_encoder", "vae"]
    assert second[0] == ["vae"]
    expected = backbone.encode_prompts([first[1]], torch.float32, "cpu")[first[1]].numpy()
    assert first[1] == second[1]
    for found in (first, second):
        assert (found[2] == expected).all()
        assert (found[3] == first[3]).all()
