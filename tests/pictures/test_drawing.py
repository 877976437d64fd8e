"""Planes as SVG: outlines along voxels, the image behind them, letters, numbers."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.image import imread

from nnunetv2_conflunet.imageio import Geometry
from nnunetv2_conflunet.pictures.drawing import draw_section, gray_png, outline
from nnunetv2_conflunet.pictures.names import DIGIT_WIDTH, place_names
from nnunetv2_conflunet.pictures.sections import sections_through

# Cells of a pixel in which bars are drawn, along each axis.
CELLS = 8


def painted(path, shape):
    """(R * CELLS, C * CELLS) whether the cells of a picture of unit pixels are covered by the bars of a path."""
    cells = np.zeros((shape[0] * CELLS, shape[1] * CELLS), bool)
    bars = re.findall(r"M(\S+) (\S+?)h([-.\de]+?)v([-.\de]+?)h[-.\de]+z", path)
    assert len(bars) == path.count("M")
    for x, y, width, height in np.array(bars, float) * CELLS:
        cells[round(y) : round(y + height), round(x) : round(x + width)] = True
    return cells


def edge_cells(mask, thickness):
    """The cells of a mask that lie so near to an edge of their pixel behind which the mask ends."""
    cells = np.zeros((mask.shape[0] * CELLS, mask.shape[1] * CELLS), bool)
    padded = np.pad(mask, 1)
    for r, c in np.argwhere(mask):
        block = cells[r * CELLS : (r + 1) * CELLS, c * CELLS : (c + 1) * CELLS]
        block[:thickness] |= not padded[r, c + 1]
        block[CELLS - thickness :] |= not padded[r + 2, c + 1]
        block[:, :thickness] |= not padded[r + 1, c]
        block[:, CELLS - thickness :] |= not padded[r + 1, c + 2]
    return cells


@pytest.mark.parametrize("seed", range(8))
def test_an_outline_runs_inside_along_every_edge_of_the_mask(seed):
    mask = np.random.default_rng(seed).random((7, 9)) < 0.6
    path = outline(mask, (slice(0, 7), slice(0, 9)), (1.0, 1.0), 2 / CELLS)
    np.testing.assert_array_equal(painted(path, mask.shape), edge_cells(mask, 2))


def test_an_outline_is_never_thicker_than_half_a_voxel_and_lies_where_the_mask_does():
    path = outline(np.ones((1, 1), bool), (slice(2, 3), slice(4, 5)), (1.0, 1.0), 30.0)
    expected = np.zeros((4 * CELLS, 6 * CELLS), bool)
    expected[2 * CELLS : 3 * CELLS, 4 * CELLS : 5 * CELLS] = True
    np.testing.assert_array_equal(painted(path, (4, 6)), expected)


def section_of(shape, spacing_mm=(1.0, 1.0, 1.0), world="none"):
    affine = np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]
    geometry = Geometry(shape, spacing_mm, affine, world)
    return sections_through(geometry, (0, 0, 0))[0]


def parsed(svg):
    return ElementTree.fromstring(svg)


def test_voxels_have_their_size_in_mm():
    section = section_of((1, 4, 5), (9.0, 2.0, 0.5))
    root = parsed(draw_section(section, np.zeros((4, 5), int), None, (0, 1), {}))
    assert root.attrib["viewBox"] == "0 0 2.5 8"
    assert root.find("image").attrib["preserveAspectRatio"] == "none"


def test_lesions_have_their_colors_and_numbers():
    ids = np.zeros((40, 40), int)
    ids[3:9, 3:9], ids[3:9, 9:14], ids[30:33, 30:33] = 7, 2**23, 5
    svg = draw_section(section_of((1, 40, 40)), ids, None, (0, 1), {7: "#111111", 2**23: "#222222"}, named=[7, 2**23])
    marks = parsed(svg).find("g[@class='marks']")
    assert [path.attrib["fill"] for path in marks.findall("path")] == ["#d0d0d0", "#111111", "#222222"]
    assert {text.text: text.attrib["fill"] for text in marks.findall("text")} == {
        "7": "#111111",
        str(2**23): "#222222",
    }


def test_letters_stand_on_their_sides():
    root = parsed(draw_section(section_of((5, 20, 30), world="RAS"), np.zeros((20, 30), int), None, (0, 1), {}))
    at = {text.text: (float(text.attrib["x"]), float(text.attrib["y"])) for text in root.findall("text")}
    assert at["R"][0] < 5 and at["L"][0] > 25 and at["A"][1] < 5 and at["P"][1] > 15
    # A quarter of the longer side is 7.5 mm.
    assert "5 mm" in at
    root = parsed(draw_section(section_of((5, 20, 30)), np.zeros((20, 30), int), None, (0, 1), {}))
    assert [text.text for text in root.findall("text")] == ["5 mm"]


@pytest.mark.parametrize(
    "pixel_mm, expected", [(0.0005, "0.005 mm"), (0.01, "0.1 mm"), (0.1, "1 mm"), (1.0, "10 mm"), (900.0, "5000 mm")]
)
def test_the_scale_bar_fits_into_a_quarter_of_the_picture(pixel_mm, expected):
    section = section_of((1, 40, 40), (1.0, pixel_mm, pixel_mm))
    root = parsed(draw_section(section, np.zeros((40, 40), int), None, (0, 1), {}))
    (text,) = root.findall("text")
    assert text.text == expected
    bar = root.find("rect").attrib
    assert float(bar["width"]) == float(expected.split()[0]) and float(bar["x"]) > 0.7 * 40 * pixel_mm


def test_the_image_is_between_black_and_white():
    image = np.array([[-5.0, 0.0, 5.0, 10.0, 99.0, np.nan, np.inf]])
    content = base64.b64decode(gray_png(image, (0.0, 10.0)).partition("base64,")[2])
    gray = np.rint(imread(io.BytesIO(content), format="png")[0, :, 0] * 255)
    assert gray.tolist() == [0, 0, 127, 255, 255, 0, 255] or gray.tolist() == [0, 0, 128, 255, 255, 0, 255]


def test_numbers_avoid_lesions_and_each_other():
    ids = np.zeros((60, 60), int)
    ids[20:40, 20:40], ids[5:40, 40:60] = 1, 2
    at = {1: (slice(20, 40), slice(20, 40)), 2: (slice(5, 40), slice(40, 60))}
    places = place_names(ids, at, [1, 2], (1.0, 1.0), 4.0)
    for x, baseline in places.values():
        assert not ids[round(baseline) - 4 : round(baseline), round(x) : round(x + 4 * DIGIT_WIDTH)].any()
    # Ten lesions in one place: there is room for the numbers of some only, and no two cover each other.
    crowd = {i: (slice(30, 32), slice(30, 32)) for i in range(1, 11)}
    crowded = np.full((60, 60), 1)
    boxes = [
        (x, y - 4, x + 4 * DIGIT_WIDTH * len(str(i)), y)
        for i, (x, y) in place_names(crowded, crowd, list(crowd), (1.0, 1.0), 4.0).items()
    ]
    assert 1 <= len(boxes) < 10
    for k, a in enumerate(boxes):
        for b in boxes[:k]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_what_lies_in_other_slices_is_faint_and_named():
    ids = np.zeros((30, 30), int)
    ids[3:6, 3:6] = 1
    elsewhere = {1: np.zeros((30, 30), bool), 2: np.zeros((30, 30), bool), 3: np.zeros((30, 30), bool)}
    elsewhere[1][3:20, 3:6] = elsewhere[2][20:24, 20:24] = True
    named = [1, 2, 3]
    svg = draw_section(section_of((1, 30, 30)), ids, None, (0, 1), {1: "red"}, named=named, elsewhere=elsewhere)
    marks = parsed(svg).find("g[@class='marks']")
    assert sorted(path.attrib["fill-opacity"] for path in marks.findall("path")) == ["0.5", "0.5", "1"]
    assert sorted(text.text for text in marks.findall("text")) == ["1", "2"]
