"""Panels: everything is labelled, maps are never smoothed."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from motion_depth.pictures import panels
from motion_depth.pictures.colours import NO_VALUE, ErrorScale
from motion_depth.pictures.panels import PanelRow, spread_frames, strip, video
from motion_depth.readouts.depth import DepthScale
from motion_depth.readouts.motion import MotionScale
from tests.support.quantities import FRAMES, HEIGHT, WIDTH, vectors


@pytest.mark.parametrize(("total", "expected"), [(49, [0, 12, 24, 36, 48]), (3, [0, 1, 2]), (1, [0])])
def test_frames_are_spread_from_first_to_last(total, expected):
    assert spread_frames(total) == expected


def grid_row(label: str = "Video", size: tuple[int, int] = (HEIGHT, WIDTH), **options) -> PanelRow:
    """A row whose frames are all of one colour, which no other part of a page has."""
    return PanelRow(label, np.full((FRAMES, *size, 3), (10, 200, 10), np.uint8), **options)


def span(picture: np.ndarray, colour: tuple[int, int, int]) -> tuple[slice, slice]:
    """Rows and columns of the smallest box around all pixels of this colour."""
    rows, columns = (np.flatnonzero((picture == colour).all(axis=-1).any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


@pytest.mark.parametrize(
    ("size", "tile"),
    [((128, 128), (256, 256)), ((480, 480), (240, 240)), ((32, 48), (160, 240)), ((480, 832), (120, 208))],
)
def test_frames_are_scaled_by_whole_numbers_to_a_readable_size(size, tile):
    picture = strip([grid_row(size=size)], [0])
    rows, columns = span(picture, (10, 200, 10))
    assert (rows.stop - rows.start, columns.stop - columns.start) == tile


@pytest.mark.parametrize(("size", "tile"), [((128, 128), (128, 128)), ((480, 480), (120, 120))])
def test_frames_can_be_smaller(size, tile):
    rows, columns = span(strip([grid_row(size=size)], [0], largest=128), (10, 200, 10))
    assert (rows.stop - rows.start, columns.stop - columns.start) == tile


def test_strip_has_a_column_per_frame_and_a_line_per_row():
    one = strip([grid_row()], [0]).shape
    more = strip([grid_row(), grid_row(), grid_row()], [0, 2, 4]).shape
    tile_height, tile_width = 160 + panels.GAP, 240 + panels.GAP
    assert more == (one[0] + 2 * tile_height, one[1] + 2 * tile_width, 3)
    titled = strip([grid_row()], [0], title="scene").shape
    assert titled == (one[0] + panels.LINE, one[1], 3)


def test_strip_of_five_columns_fits_a_report():
    for height, width in ((128, 128), (480, 480), (480, 832), (64, 64)):
        rows = [grid_row("Predicted motion", (height, width), scale=MotionScale(4.0))]
        assert 1000 <= strip(rows, range(FRAMES)).shape[1] <= 1600


def test_strip_is_labelled():
    picture = strip([grid_row("Predicted depth", scale=DepthScale(2.0, 8.0))], [0, 4], [10, 11, 12, 13, 14], "a scene")
    rows, columns = span(picture, (10, 200, 10))

    def has_ink(area: np.ndarray) -> bool:
        return (area < 120).all(axis=-1).sum() > 20

    assert has_ink(picture[rows, : columns.start]), "row label"
    assert has_ink(picture[rows, columns.stop + 30 :]), "legend"
    assert has_ink(picture[panels.MARGIN : panels.MARGIN + 16]), "title"
    middle = (columns.start + columns.stop) // 2
    assert has_ink(picture[rows.start - 20 : rows.start - 2, columns.start : middle]), "number of the first column"
    assert has_ink(picture[rows.start - 20 : rows.start - 2, middle : columns.stop]), "number of the second column"
    assert (picture[rows.stop :] == NO_VALUE).all(axis=-1).sum() > 100, "what grey means"


def test_columns_are_named_by_the_clips_frame_numbers():
    row = grid_row()
    assert (strip([row], [1], [0, 2, 4, 6, 8]) == strip([row], [2], range(5))).all()
    assert (strip([row], [1], [0, 2, 4, 6, 8]) != strip([row], [1])).any()


def test_neighbours_of_equal_scale_share_one_legend():
    same = strip([grid_row(scale=DepthScale(1.0, 9.0)), grid_row(scale=DepthScale(1.0, 9.0))], [0])
    other = strip([grid_row(scale=DepthScale(1.0, 9.0)), grid_row(scale=DepthScale(2.0, 9.0))], [0])
    nearest, farthest = DepthScale(1.0, 9.0).colour(torch.tensor([[[1.0, 9.0]]]))[0, 0]
    bars = [span(picture, tuple(colour))[0] for picture in (same, other) for colour in (nearest, farthest)]
    assert same.shape == other.shape
    assert bars[0].stop - bars[1].start > 160, "one bar as long as two tiles"
    gap = other[:, -panels.LEGEND - panels.MARGIN + panels.GAP + 4][bars[3].start : bars[2].stop]
    assert (gap == panels.PAGE).all(axis=-1).sum() > 10, "two bars with paper between them"


def test_the_middle_of_the_depth_bar_is_the_geometric_mean():
    picture = strip([grid_row(scale=DepthScale(1.0, 16.0))], [0])
    rows, columns = span(picture, (10, 200, 10))
    middle = picture[(rows.start + rows.stop) // 2, columns.stop + 3 * panels.GAP + 4].astype(int)
    assert abs(middle - DepthScale(1.0, 16.0).colour(torch.tensor([[[4.0]]]))[0, 0, 0]).max() < 12


@pytest.mark.parametrize("size", [(32, 48), (300, 400)])
def test_maps_are_never_smoothed(size):
    checks = np.indices((FRAMES, *size)).sum(axis=0) // 3 % 2
    noise = np.where(checks[..., None], np.uint8((10, 200, 10)), np.uint8((200, 10, 200)))
    picture = strip([PanelRow("m", noise, ErrorScale(1.0, "px"))], [1])
    rows, columns = span(picture, (10, 200, 10))
    tile = picture[rows, columns].reshape(-1, 3)
    assert {tuple(colour) for colour in np.unique(tile, axis=0).tolist()} == {(10, 200, 10), (200, 10, 200)}


def test_wheel_shows_where_things_go():
    picture = strip([grid_row(scale=MotionScale(3.0))], [0])
    rows, columns = span(picture, (10, 200, 10))
    legend = picture[rows, columns.stop + 2 * panels.GAP : -panels.MARGIN]
    y, x = legend.shape[0] // 2, legend.shape[1] // 2
    to_the_right = MotionScale(3.0).colour(vectors((-2.0, 0.0)))[0, 0, 0]  # backward flow points to where it came from
    radius = (panels.LEGEND - 16) // 2
    assert abs(legend[y, x + radius * 2 // 3].astype(int) - to_the_right).max() < 12
    assert (legend[y, x] > 240).all()


def moving_rows() -> list[PanelRow]:
    """A picture and two maps on scales of their own, all other in every frame."""
    random = np.random.default_rng(0)
    scales = [None, MotionScale(4.0), DepthScale(2.0, 8.0)]
    return [
        PanelRow(f"Row {line}", random.integers(0, 255, (FRAMES, HEIGHT, WIDTH, 3), np.uint8), scale, line)
        for line, scale in enumerate(scales)
    ]


def test_video_shows_every_frame_with_its_number():
    rows = moving_rows()
    pictures = video(rows, range(0, 10, 2), "a scene")
    assert pictures.dtype == np.uint8
    assert pictures.shape[0] == FRAMES
    header = pictures[:, : panels.MARGIN + 16]
    assert all((header[0] != other).any() for other in header[1:])
    below = pictures[:, panels.MARGIN + 2 * panels.LINE :]
    assert all((before != after).any() for before, after in pairwise(below))


def test_video_puts_pictures_left_and_lines_beside_them():
    scale, other = MotionScale(1.0), DepthScale(1.0, 2.0)
    one = video([grid_row(), grid_row("m", scale=scale), grid_row("d", scale=other)])
    two = video([grid_row(), grid_row("m", scale=scale), grid_row("d", scale=other, line=1)])
    assert one.shape == (FRAMES, 160 + panels.MARGIN * 2 + 3 * panels.LINE + panels.GAP, one.shape[2], 3)
    assert two.shape[1] == one.shape[1] + 160 + panels.LINE
    picture = two[0]
    column = panels.MARGIN + 5
    assert (picture[:, column] == (10, 200, 10)).all(axis=-1).sum() == 2 * 160 + panels.LINE, "as high as both lines"


def test_a_long_title_is_cut_off_and_does_not_widen_the_page():
    short, long = (strip([grid_row()], [0, 1], title=title) for title in ("a", "a very long prompt " * 30))
    assert short.shape == long.shape
    header = long[: panels.MARGIN + panels.LINE]
    assert (header[:, -panels.MARGIN :] == panels.PAGE).all()


@pytest.mark.parametrize(("indices", "numbers"), [([], None), ([5], None), ([-1], None), ([0], [1, 2])])
def test_wrong_frames_are_an_error(indices, numbers):
    with pytest.raises(ValueError, match="rows of 5 frames"):
        strip([grid_row()], indices, numbers)


def test_rows_of_different_sizes_are_an_error():
    with pytest.raises(ValueError, match=r"other: uint8 \(5, 8, 8, 3\).*expected uint8 frames .* of one size"):
        video([grid_row(), grid_row("other", (8, 8))])
    with pytest.raises(ValueError, match="found rows of nothing"):
        strip([], [0])
