"""The page of contact sheets of a prediction."""

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from skimage import io
from support import files_of, write_nifti

from nnunetv2_conflunet.commands import report as command
from nnunetv2_conflunet.evaluation.report.sheets.case_sheet import MAX_GROUPS
from nnunetv2_conflunet.imageio import Geometry
from nnunetv2_conflunet.inference.lesion_table import as_csv, lesion_table
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import write_json

SHAPE = (20, 24, 22)


def lesions():
    """Three lesions of 4 x 4 x 4 voxels, of which 2 and 8 touch, and a larger one."""
    instances = np.zeros(SHAPE, np.uint16)
    instances[2:6, 2:6, 2:6], instances[2:6, 2:6, 6:10] = 2, 8
    instances[12:16, 12:16, 12:16], instances[10:18, 2:9, 2:9] = 5, 300
    return instances


@pytest.fixture
def prediction(tmp_path):
    """Two cases, the second without lesions, as nnUNetv2_predict leaves them, with images of two channels."""
    folder = tmp_path / "out"
    for case, instances in (("a", lesions()), ("b", np.zeros(SHAPE, np.uint16))):
        write_nifti(instances, folder / "instances" / f"{case}.nii.gz", (1.0, 1.0, 3.0))
        write_nifti((instances > 0).astype(np.uint8), folder / f"{case}.nii.gz", (1.0, 1.0, 3.0))
        for channel in (0, 1):
            image = np.random.default_rng(channel).normal(100, 9, SHAPE).astype(np.float32)
            write_nifti(image, tmp_path / "images" / f"{case}_000{channel}.nii.gz", (1.0, 1.0, 3.0))
    table = pd.DataFrame({"id": [2, 5, 8, 300], "label": [1, 1, 2, 1], "mean_probability": [0.71, 0.62, 0.53, 0.94]})
    table.to_csv(folder / "instances" / "a.csv", index=False)
    write_json({"labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}, folder / "dataset.json")
    return folder


def report(*arguments):
    command.report(command._parser().parse_args([*map(str, arguments), "-np", "1"]))


def page_of(prediction, *arguments):
    report(prediction, *arguments)
    return (prediction / "report.html").read_text()


def test_the_page_stands_alone_and_shows_each_case(prediction):
    page = page_of(prediction, "-i", prediction.parent / "images")
    sources = re.findall(r'(?:src|href)="([^"#]{1,22})', page)
    # Whole planes, the largest lesion and one group of the first case; the middle of the second; a histogram.
    assert page.count("<svg ") == 9 + 3 and len(sources) == 13 and set(sources) == {"data:image/png;base64,"}
    for svg in re.findall(r"<svg .*?</svg>", page, re.S):
        ElementTree.fromstring(svg)
    assert "4 lesions, 1.8 mL in all; 2 touch another, in 1 group." in page and "No lesions." in page
    assert "<h3>The largest lesion (300)</h3>" in page and "<h3>Touching lesions 2, 8</h3>" in page
    assert "the patient&#39;s right side (R) is on the left" in page


def test_the_table_has_sizes_positions_and_scores(prediction):
    page = page_of(prediction)
    rows = [
        re.findall(r"</span>(.*?)</td>|<td>(.*?)</td>", row) for row in re.findall(r"<tr><td><span.*?</tr>", page, re.S)
    ]
    cells = [["".join(cell) for cell in row] for row in rows]
    # 8 x 7 x 7 voxels of 3 mm3. LPS to RAS: x and y change their signs.
    assert cells[0][:2] == ["300", "1,176.0"] and cells[0][3:] == ["-5.0, -5.0, 40.5", "5, 5, 14", "0.94", "1", ""]
    assert [row[0] for row in cells] == ["300", "2", "5", "8"]
    assert [row[-1] for row in cells] == ["", "8", "", "2"]
    header = re.findall(r"<th>(.*?)</th>", page)
    assert header[2:] == [
        "id",
        "mm³",
        "diameter mm",
        "x, y, z mm",
        "i, j, k",
        "probability",
        "label",
        "in a group with",
    ]


def test_scores_that_a_prediction_left_empty_are_dashes_and_no_column_where_all_are(prediction):
    geometry = Geometry.from_properties(SHAPE, {"spacing": (1.0, 1.0, 1.0)})
    scores = np.full(300, np.nan)
    scores[[1, 4, 7]] = 0.25, 0.5, 0.75
    table = lesion_table(lesions(), geometry, center_scores=scores)
    # As prediction writes it, with NaN for what is not known; no probabilities here.
    (prediction / "instances" / "a.csv").write_text(as_csv(table))
    page = page_of(prediction)
    assert "<th>center score</th>" in page and "<th>probability</th>" not in page
    assert [page.count(f"<td>{text}</td>") for text in ("0.25", "0.50", "0.75", "–", "nan")] == [1, 1, 1, 1, 0]


def test_the_channel_that_is_asked_for_is_drawn(prediction):
    images = prediction.parent / "images"
    pages = [page_of(prediction, "-i", images, "--channel", channel) for channel in (0, 1)]
    assert pages[0] != pages[1] and "channel 1 of the images" in pages[1]
    with pytest.raises(InputError, match=r"2 of 2 cases cannot be shown:\n  a: .* no channel 2 of this case"):
        report(prediction, "-i", images, "--channel", 2)
    with pytest.raises(InputError, match="--channel is -1"):
        report(prediction, "-i", images, "--channel", -1)


def test_cases_can_be_chosen(prediction):
    page = page_of(prediction, "--cases", "b")
    assert '<section class="case" id="case-1">' in page and 'id="case-2"' not in page and "without images" in page
    with pytest.raises(InputError, match=r"has no instance maps of c; it has a, b"):
        report(prediction, "--cases", "a", "c")


def test_a_folder_of_maps_is_enough(prediction):
    report(prediction / "instances", "-o", prediction.parent / "page.html")
    assert "4 lesions" in (prediction.parent / "page.html").read_text()


def test_more_groups_than_pictures_are_counted(tmp_path):
    instances = np.zeros((3, 9, 60), np.uint16)
    for i in range(MAX_GROUPS + 2):
        instances[1, 2:5, 8 * i : 8 * i + 2], instances[1, 2:5, 8 * i + 2 : 8 * i + 4] = 2 * i + 1, 2 * i + 2
    write_nifti(instances, tmp_path / "maps" / "a.nii.gz")
    page = page_of(tmp_path / "maps")
    assert page.count("<h3>Touching lesions ") == MAX_GROUPS and "2 smaller groups have no picture." in page


def test_planes_have_areas_and_no_letters(tmp_path):
    for folder in ("maps", "images"):
        (tmp_path / folder).mkdir()
    plane = np.zeros((20, 30), np.uint8)
    plane[3:9, 4:10], plane[9:12, 4:10] = 1, 2
    io.imsave(tmp_path / "maps" / "a.png", plane, check_contrast=False)
    io.imsave(tmp_path / "images" / "a_0000.png", np.full((20, 30, 3), 7, np.uint8), check_contrast=False)
    page = page_of(tmp_path / "maps", "-i", tmp_path / "images", "--channel", 2)
    assert page.count("<svg ") == 3 and "2 lesions, 54 mm² in all; 2 touch another, in 1 group." in page
    assert "planes are shown as stored, without letters" in page and ">R</text>" not in page


def test_a_tilted_image_is_said_to_be(tmp_path):
    turn = np.deg2rad(30)
    direction = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    write_nifti(lesions(), tmp_path / "maps" / "a.nii.gz", direction=direction)
    assert "The image is tilted by 30° against the patient&#39;s axes." in page_of(tmp_path / "maps")


def test_what_cannot_be_shown_is_named_before_anything_is_written(prediction):
    images = prediction.parent / "images"
    before = files_of(prediction)
    with pytest.raises(InputError, match="--names is for evaluations"):
        report(prediction, "--names", "a")
    (images / "b_0000.nii.gz").unlink()
    (images / "b_0001.nii.gz").unlink()
    with pytest.raises(InputError, match=r"images has no images of 1 of 2 cases: b\. Expected .* b_0000\.nii\.gz"):
        report(prediction, "-i", images)
    (prediction / "instances" / "a.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"a: .*a\.csv cannot be read"):
        report(prediction)
    (prediction / "instances").rename(prediction.parent / "elsewhere")
    with pytest.raises(InputError, match="out holds no instances; let nnUNetv2_conflunet_instantiate make them"):
        report(prediction)
    assert {name: content for name, content in before.items() if "instances" not in name} == files_of(prediction)


@pytest.mark.parametrize(
    "content", ["id,confidence\nfour,0.5\n", "id,confidence\n2,high\n", "id,confidence\n2,0.5\n2,0.7\n"]
)
def test_a_table_of_texts_or_of_a_lesion_twice_is_named(prediction, content):
    (prediction / "instances" / "a.csv").write_text(content)
    with pytest.raises(InputError, match=r"a: .*a\.csv cannot be read as a lesion table"):
        report(prediction)
    assert not (prediction / "report.html").exists()


def test_evaluations_show_no_chosen_cases(tmp_path):
    cases = [{"case": "a", "metrics": {"F1": 1.0}}]
    (tmp_path / "summary_instances.json").write_text(json.dumps({"settings": {}, "metric_per_case": cases}))
    with pytest.raises(InputError, match="--cases is for a prediction"):
        report(tmp_path, "--cases", "a")
