"""tools/demo/train_vae.py and pack_frames.py: that training helps, goes on where it stopped, and says what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange

from motion_depth.tiny.vae import fit_vae, load_vae
from tests.support.moving_squares import FRAMES, HEIGHT, SCENES, WIDTH, render, windows
from tests.support.scene_files import write_scene
from tools.demo import pack_frames, train_vae
from tools.demo.vae.frames import draw_clips, open_frames, open_scenes, read_heldout
from tools.demo.vae.steps import Optimizers, psnr

SMALL = ("--crop", 32, "--num_frames", 9, "--batch_size", 4, "--device", "cpu")
SIZES = ("--decoder", 16, 12, 8, "--depths", 1, 1, 1)


@pytest.fixture(autouse=True)
def few_windows(monkeypatch):
    """What a fit and statistics look at, for scenes that are small and alike."""
    monkeypatch.setattr(train_vae, "FIT_WINDOWS", 24)
    monkeypatch.setattr(train_vae, "STATISTICS_WINDOWS", 8)


def run(tool, monkeypatch, capsys, *flags: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of a tool's `main`."""
    monkeypatch.setattr("sys.argv", ["tool", *map(str, flags)])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two wait for each other where others compute
    code = tool.main()
    torch.set_num_threads(threads)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def write_scenes(base: Path, mirrored: bool) -> Path:
    """Moving squares with their true motion; the first frame's is an empty array, as Replicator may leave it."""
    for seed in range(SCENES):
        motion = np.zeros((FRAMES, HEIGHT, WIDTH, 4), np.float32)
        for t in range(1, FRAMES):
            motion[t, 5:25, 4 + 3 * t : 24 + 3 * t, 0] = -3
            motion[t, 38:58, 60 - 4 * t : 80 - 4 * t, 0] = 4
        rgb, depth = render(seed), np.ones((FRAMES, HEIGHT, WIDTH), np.float32)
        if mirrored:
            rgb, motion = rgb[:, :, ::-1], motion[:, :, ::-1] * (-1, 1, 1, 1)
        folder = write_scene(base / f"scene_{seed}", rgb, motion.astype(np.float32), depth)
        np.save(folder / "motion_vectors/motion_vectors_0000.npy", np.zeros((0,), np.float32))
    return base


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), mirrored=False)


@pytest.fixture(scope="module")
def packed(scenes, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "frames.npy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["pack_frames.py", "--scenes", str(scenes), "--output", str(path)])
        assert pack_frames.main() == 0
    return path


@pytest.fixture
def inputs(packed, scenes) -> tuple[object, ...]:
    return "--frames", packed, "--heldout", scenes, *SMALL


def scores_of(folder: Path) -> list[dict]:
    return json.loads((folder / train_vae.SCORES).read_text())["scores"]


def test_packed_frames_are_the_scenes_pictures(packed):
    frames = np.load(packed)
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, np.stack([render(seed) for seed in range(SCENES)]))


def test_training_improves_over_the_fit(packed, tmp_path, monkeypatch, capsys):
    """On scenes that the linear code was not fitted to."""
    output, heldout = tmp_path / "vae", write_scenes(tmp_path / "mirrored", mirrored=True)
    flags = ("--frames", packed, "--heldout", heldout, *SMALL, "--crop", 64, *SIZES)
    code, out, err = run(train_vae, monkeypatch, capsys, *flags, "--output", output, "--steps", 80,
                         "--save_steps", 40, "--learning_rate", 5e-3)  # fmt: skip
    assert code == 0, err
    rows = scores_of(output)
    assert [row["step"] for row in rows] == [0, 40, 80]
    assert out.count("held-out PSNR") == 3
    assert rows[2]["loss"] < rows[1]["loss"]
    for name in ("first", "moving", "still"):
        assert rows[2][name] > rows[0][name] + 0.2, (name, rows)


def test_a_run_that_was_killed_goes_on_to_the_same_weights(inputs, tmp_path, monkeypatch, capsys):
    flags = (*inputs, *SIZES, "--steps", 6, "--save_steps", 3)
    assert run(train_vae, monkeypatch, capsys, *flags, "--output", tmp_path / "whole")[0] == 0
    draw, drawn = train_vae.draw_clips, []

    def killed(*arguments: object) -> torch.Tensor:
        drawn.append(arguments)
        if len(drawn) == 6:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(train_vae, "draw_clips", killed)
    with pytest.raises(KeyboardInterrupt):
        run(train_vae, monkeypatch, capsys, *flags, "--output", tmp_path / "killed")
    monkeypatch.setattr(train_vae, "draw_clips", draw)
    assert run(train_vae, monkeypatch, capsys, *flags, "--output", tmp_path / "killed")[0] == 0
    files = [(tmp_path / name / train_vae.WEIGHTS).read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]
    assert [row["step"] for row in scores_of(tmp_path / "killed")] == [0, 3, 6]
    code, out, _ = run(train_vae, monkeypatch, capsys, *flags, "--output", tmp_path / "killed")
    assert (code, "6 steps are done" in out) == (0, True)


def test_latents_stay_and_what_decodes_is_trained(inputs, tmp_path, monkeypatch, capsys):
    """So that clips can be encoded before the decoder's training is over."""
    vaes = []
    for steps in (1, 3):
        flags = (*inputs, *SIZES, "--steps", steps, "--output", tmp_path / "out")
        assert run(train_vae, monkeypatch, capsys, *flags)[0] == 0
        vaes.append(load_vae(tmp_path / "out" / train_vae.WEIGHTS).state_dict())
    before, after = vaes
    decodes = {name for name in before if "decoder" in name or "back" in name}
    assert {name for name in before if not torch.equal(before[name], after[name])} <= decodes
    assert not torch.equal(before["model.decoder.out.weight"], after["model.decoder.out.weight"])


def test_latents_of_whole_pictures_have_mean_0_and_variance_1(inputs, packed, tmp_path, monkeypatch, capsys):
    assert run(train_vae, monkeypatch, capsys, *inputs, *SIZES, "--steps", 3, "--output", tmp_path / "out")[0] == 0
    vae = load_vae(tmp_path / "out" / train_vae.WEIGHTS)
    files = open_frames([packed], 9, 32)
    clips = torch.stack([torch.from_numpy(np.array(scene[:9])) for scene in files[0]])
    latents = vae.model.encode(rearrange(clips, "b t h w c -> b c t h w") * (2 / 255) - 1)
    for part in latents.tensor_split([1], dim=2):
        assert part.mean(dim=(0, 2, 3, 4)).abs().mean() < 0.1
        assert (part.std(dim=(0, 2, 3, 4)) - 1).abs().mean() < 0.1


def test_muon_trains_the_networks_matrices_in_place():
    model = fit_vae(windows(), decoder=(16, 12, 8)).model
    optimizers = Optimizers(model, 1e-3)
    assert optimizers.all[1].__class__ is torch.optim.Muon
    trained = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"first_code", "rest_code", "decoder"}
    before = {name: tensor.clone() for name, tensor in trained.items()}
    for parameter in trained.values():
        parameter.grad = torch.ones_like(parameter)
    optimizers.step(50, 100)
    assert all(not torch.equal(before[name], tensor) for name, tensor in trained.items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_scores_tell_first_moving_and_still_pixels_apart(scenes):
    heldout = read_heldout(open_scenes([scenes], "--heldout"), 9, windows=2)
    assert heldout.clips.shape == (2 * SCENES, 3, 9, HEIGHT, WIDTH)
    share = heldout.moving[:, 1:].float().mean()
    assert abs(share - 2 * 400 / (HEIGHT * WIDTH)) < 0.01

    class Off(torch.nn.Module):
        """Decodes what it was given, but for one step of the first frame, two of what rests, four of what moves."""

        def encode(self, video: torch.Tensor) -> torch.Tensor:
            return video

        def decode(self, video: torch.Tensor) -> torch.Tensor:
            number = next(i for i, clip in enumerate(heldout.clips) if torch.allclose(pixels(clip), video[0]))
            steps = torch.where(heldout.moving[number], 4.0, 2.0)
            steps[0] = 1.0
            return video - steps * (2 / 255) * video.sign()

    def pixels(clip: torch.Tensor) -> torch.Tensor:
        return clip.float() * (2 / 255) - 1

    found = psnr(Off(), heldout, "cpu")
    for name, steps in (("first", 1), ("moving", 4), ("still", 2)):
        assert abs(found[name] - 20 * np.log10(255 / steps)) < 0.2, name


def test_clips_are_a_function_of_the_seed(packed):
    files = open_frames([packed, packed], 9, 32)
    one, same, other = (draw_clips(files, 4, 9, 32, seed) for seed in ((0, 1), (0, 1), (0, 2)))
    assert one.shape == (4, 3, 9, 32, 32)
    assert one.dtype == torch.uint8
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_run_with_other_settings_is_not_gone_on_with(inputs, tmp_path, monkeypatch, capsys):
    output = ("--output", tmp_path / "vae")
    assert run(train_vae, monkeypatch, capsys, *inputs, *SIZES, *output, "--steps", 1)[0] == 0
    before = (tmp_path / "vae" / train_vae.WEIGHTS).read_bytes()
    for flags, message in (
        (("--latent_noise", 0.1), "--latent_noise 0.2 (now 0.1)"),
        (("--depths", 2, 1, 1), "--depths [1, 1, 1] (now [2, 1, 1])"),
    ):
        code, _, err = run(train_vae, monkeypatch, capsys, *inputs, *SIZES, *output, *flags, "--steps", 2)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
    assert (tmp_path / "vae" / train_vae.WEIGHTS).read_bytes() == before


BAD = {
    "steps": (("--steps", 0), "--steps 0: expected a number above 0"),
    "noise": (("--latent_noise", -1), "--latent_noise -1.0: expected 0 or more"),
    "decoder": (("--decoder", 8, 0, 8), "--decoder [8, 0, 8]: expected numbers above 0"),
    "frames of a clip": (("--num_frames", 8), "--num_frames 8, --crop 32: expected 1 + 4k frames"),
    "crop": (("--crop", 40), "a multiple of 16 pixels"),
    "large crop": (("--crop", 80), "scenes have 13 frames of 64x96; expected at least --num_frames 9 of --crop 80x80"),
    "no held-out scenes": (("--heldout", "nowhere"), "nowhere"),
    "no frames": (("--frames", "nothing.npy"), "nothing.npy: cannot be read as packed frames"),
    "device": (("--device", "cuda:99"), "--device cuda:99: found"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_a_one_line_error_before_any_work(case, inputs, tmp_path, monkeypatch, capsys):
    flags, message = BAD[case]
    code, _, err = run(train_vae, monkeypatch, capsys, *inputs, "--output", tmp_path / "vae", *flags)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: ")
    assert message in err
    assert not (tmp_path / "vae").exists()


def test_a_folder_of_something_else_and_a_broken_checkpoint_stay(inputs, tmp_path, monkeypatch, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    code, _, err = run(train_vae, monkeypatch, capsys, *inputs, "--output", tmp_path)
    assert code == 2
    assert "neither a new folder nor one of a run" in err
    code, _, err = run(train_vae, monkeypatch, capsys, *inputs, "--output", tmp_path / "notes.txt")
    assert code == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / train_vae.CHECKPOINT).write_bytes(b"broken")
    code, _, err = run(train_vae, monkeypatch, capsys, *inputs, "--output", tmp_path / "vae")
    assert code == 2
    assert "cannot be read as a checkpoint" in err


def test_a_run_that_was_killed_at_its_first_save_starts_again(inputs, tmp_path, monkeypatch, capsys):
    output = tmp_path / "vae"
    output.mkdir()
    for name in (train_vae.WEIGHTS, ".checkpoint.0123abcd.pt", train_vae.LOCK_FILE):
        (output / name).write_bytes(b"")
    assert run(train_vae, monkeypatch, capsys, *inputs, *SIZES, "--output", output, "--steps", 1)[0] == 0
    assert [row["step"] for row in scores_of(output)] == [0, 1]


def test_frames_are_not_packed_over_a_file_nor_from_nothing(scenes, packed, tmp_path, monkeypatch, capsys):
    for flags, message in (
        (("--scenes", scenes, "--output", packed), "expected the name of a new file"),
        (("--scenes", scenes, "--output", tmp_path / "frames"), "ends in .npy"),
        (("--scenes", tmp_path, "--output", tmp_path / "frames.npy"), "no scenes found there"),
    ):
        code, _, err = run(pack_frames, monkeypatch, capsys, *flags)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err


def test_scenes_of_different_sizes_are_an_error(scenes, tmp_path):
    rgb, rest = np.zeros((FRAMES, 32, 32, 3), np.uint8), np.zeros((FRAMES, 32, 32, 4), np.float32)
    write_scene(tmp_path / "other", rgb, rest, rest[..., 0])
    with pytest.raises(ValueError, match="scene scene_0 has 13 frames of 64x96, other has 13 of 32x32"):
        open_scenes([tmp_path, scenes], "--scenes")
