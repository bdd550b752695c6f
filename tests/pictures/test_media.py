"""Files of pictures and videos are what they seem, whole or not there."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from motion_depth.pictures import media
from motion_depth.pictures.media import read_frames, read_picture, read_video, write_png, write_video


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


def timed_video(path: Path, times: str, *options: str) -> np.ndarray:
    """Writes 20 frames, brighter by 10 each, that are shown at the milliseconds that an expression of N says."""
    frames = np.broadcast_to(10 * np.arange(20, dtype=np.uint8)[:, None, None, None], (20, 32, 48, 3))
    noise = np.random.default_rng(0).integers(0, 10, (20, 32, 48, 1), dtype=np.uint8)
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "48x32", "-r", "30", "-i", "-"]
    timing = ["-vf", f"settb=1/1000,setpts={times!r}", *media._each_frame_once(), "-enc_time_base", "1/1000"]
    command = [get_ffmpeg_exe(), "-v", "error", *source, *timing, *options, "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, input=(frames + noise).tobytes(), check=True)
    return frames


FAST_THEN_SLOW, WITH_A_PAUSE = "if(lt(N,10),N*33,330+(N-10)*200)", "if(lt(N,10),N*33,5000+N*33)"
CUT_OFF = r"found \d+ frames and then an error: the file is cut off|found no readable video"
FAST_START = ("-c:v", "libx264", "-movflags", "+faststart")


@pytest.mark.parametrize("times", [FAST_THEN_SLOW, WITH_A_PAUSE, "N*125", "3000+N*40"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_come_once_each_whenever_they_are_shown(tmp_path, suffix, times):
    path = tmp_path / f"clip{suffix}"
    frames = timed_video(path, times, *FAST_START[: 4 if suffix == ".mp4" else 2])
    found = read_video(path)
    assert len(found) == len(frames)
    assert (np.diff(found.astype(float).mean(axis=(1, 2, 3))) > 5).all()


@pytest.mark.parametrize("times", [FAST_THEN_SLOW, WITH_A_PAUSE, "N*125"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_cut_video_is_an_error_whenever_its_frames_are_shown(tmp_path, suffix, times, share):
    path = tmp_path / f"clip{suffix}"
    timed_video(path, times, *(FAST_START if suffix == ".mp4" else ()))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=CUT_OFF) as error:
        read_video(path)
    assert "\n" not in str(error.value)


def test_a_video_with_longer_sound_is_whole(tmp_path):
    timed_video(tmp_path / "silent.mp4", "N*125", *FAST_START)
    sound = ["-f", "lavfi", "-i", "sine=duration=4", "-c:v", "copy", "-c:a", "aac", str(tmp_path / "loud.mp4")]
    subprocess.run([get_ffmpeg_exe(), "-v", "error", "-i", str(tmp_path / "silent.mp4"), *sound], check=True)
    assert len(read_video(tmp_path / "loud.mp4")) == 20


@pytest.mark.parametrize(
    ("version", "option"),
    [
        ("4.2.2-static", "-vsync"),
        ("5.0", "-vsync"),
        ("5.1.4", "-fps_mode"),
        ("n9.0.2-17-g2a5", "-fps_mode"),
        ("N-1", "-fps_mode"),
    ],
)
def test_the_option_is_one_that_the_ffmpeg_knows(monkeypatch, version, option):
    monkeypatch.setattr(media, "get_ffmpeg_version", lambda: version)
    assert media._each_frame_once() == [option, "passthrough"]


def test_a_folder_of_pictures_is_read_in_the_order_of_its_numbers(tmp_path):
    for number in (10, 9, 0):
        write_png(tmp_path / f"frame_{number}.png", np.full((4, 6, 3), number, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    shutil.copy(tmp_path / "frame_0.png", tmp_path / ".frame_1.png")
    frames, numbers = read_frames(tmp_path)
    assert numbers == [0, 9, 10]
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
    assert "found no .png or .jpg" in message(folder)
    write_png(folder / "a_1.png", np.zeros((4, 6, 3), np.uint8))
    write_png(folder / "a_2.png", np.zeros((4, 8, 3), np.uint8))
    assert "a_2.png: found 4x8 (height x width), expected the 4x6 of a_1.png" in message(folder)
    write_png(folder / "b_1.png", np.zeros((4, 6, 3), np.uint8))
    assert "b_1.png: found frame 1 twice, see a_1.png" in message(folder)
    (folder / "b_1.png").rename(folder / "b_3.png")
    (folder / "a_2.png").write_bytes(b"no picture")
    assert "a_2.png: not readable, expected an RGB picture" in message(folder)
    (folder / "a_2.png").rename(folder / "other.png")
    assert "other.png: found no frame number" in message(folder)
    Image.new("I;16", (6, 4)).save(folder / "other.png")
    (folder / "other.png").rename(folder / "a_2.png")
    assert "mode I;16" in message(folder)


def test_png_is_written_as_it_is(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    write_png(tmp_path / "new" / "panel.png", picture)
    assert (media.iio.imread(tmp_path / "new" / "panel.png") == picture).all()
