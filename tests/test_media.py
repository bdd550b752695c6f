"""Files of pictures and videos are what they seem, whole or not there."""

import numpy as np
import pytest
import torch
from PIL import Image

from motion_depth import media
from motion_depth.media import read_frames, read_picture, read_video, write_png, write_video


@pytest.mark.parametrize(("count", "height", "width", "stored"), [(7, 33, 49, (34, 50)), (1, 32, 48, (32, 48))])
def test_video_file_decodes_to_what_was_written(tmp_path, count, height, width, stored):
    colours = np.linspace((250, 20, 20), (20, 60, 240), count).astype(np.uint8)
    frames = np.broadcast_to(colours[:, None, None], (count, height, width, 3))
    write_video(tmp_path / "new" / "clip.mp4", torch.from_numpy(frames.copy()), fps=7.5)
    found = read_video(tmp_path / "new" / "clip.mp4")
    assert found.shape == (count, *stored, 3)
    assert abs(found[:, :height, :width].astype(int) - frames).max() <= 6
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["clip.mp4"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"old")

    def write_half(file, *_, **__):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(media.iio, "imwrite", write_half)
    with pytest.raises(OSError, match="disk full"):
        write_video(path, np.zeros((1, 8, 8, 3), np.uint8), fps=8)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (np.zeros((1, 8, 8, 3), np.float32), 8, "found float32"),
        (np.zeros((8, 8, 3), np.uint8), 8, "expected uint8 frames"),
        (np.zeros((0, 8, 8, 3), np.uint8), 8, "expected uint8 frames"),
        (np.zeros((1, 8, 8, 3), np.uint8), 0, "found 0 frames per second"),
    ],
)
def test_what_is_no_video_is_not_written(tmp_path, frames, fps, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "clip.mp4", frames, fps)
    assert not list(tmp_path.iterdir())


def test_unreadable_videos_are_one_line_errors(tmp_path):
    (tmp_path / "text.mp4").write_text("no video " * 100)
    for name in ("text.mp4", "missing.mp4"):
        with pytest.raises(ValueError, match=f"{name}: found no readable video") as error:
            read_video(tmp_path / name)
        assert "\n" not in str(error.value)


def test_half_a_video_is_an_error_and_not_a_shorter_video(tmp_path):
    noise = torch.randint(0, 255, (12, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_video(tmp_path / "clip.mp4", noise, fps=8)
    content = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"half\.mp4: .* expected 1.50 s: the file is cut off"):
        read_video(tmp_path / "half.mp4")


def test_a_folder_of_pictures_is_read_in_the_order_of_its_numbers(tmp_path):
    for number in (10, 9, 0):
        write_png(tmp_path / f"frame_{number}.png", np.full((4, 6, 3), number, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    frames = read_frames(tmp_path)
    assert frames.shape == (3, 4, 6, 3)
    assert frames[:, 0, 0, 0].tolist() == [0, 9, 10]


def test_pictures_come_in_rgb(tmp_path):
    Image.new("LA", (3, 2), (7, 9)).save(tmp_path / "grey.png")
    picture = read_picture(tmp_path / "grey.png")
    assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (3, 2), (7, 7, 7))


def test_what_is_no_frame_folder_is_a_one_line_error(tmp_path):
    def message(path) -> str:
        with pytest.raises(ValueError, match=path.name) as error:
            read_frames(path)
        assert "\n" not in str(error.value)
        return str(error.value)

    folder = tmp_path / "frames"
    assert "no such file or folder" in message(folder)
    folder.mkdir()
    assert "found no picture" in message(folder)
    write_png(folder / "a_1.png", np.zeros((4, 6, 3), np.uint8))
    write_png(folder / "a_2.png", np.zeros((4, 8, 3), np.uint8))
    assert "a_2.png: found 4x8 (height x width), expected the 4x6 of a_1.png" in message(folder)
    write_png(folder / "b_1.png", np.zeros((4, 6, 3), np.uint8))
    assert "b_1.png: found frame 1 twice, see a_1.png" in message(folder)
    (folder / "b_1.png").rename(folder / "b_3.png")
    (folder / "a_2.png").write_bytes(b"no picture")
    assert "a_2.png: found no readable picture" in message(folder)
    (folder / "a_2.png").rename(folder / "other.png")
    assert "other.png: found no frame number" in message(folder)
    Image.new("I;16", (6, 4)).save(folder / "other.png")
    (folder / "other.png").rename(folder / "a_2.png")
    assert "mode I;16" in message(folder)


def test_png_is_written_as_it_is(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    write_png(tmp_path / "new" / "panel.png", picture)
    assert (media.iio.imread(tmp_path / "new" / "panel.png") == picture).all()
