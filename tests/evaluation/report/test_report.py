"""The report of evaluated folders."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from support import UNWRITABLE, files_of, said_of_a_full_disk, unwritable

from nnunetv2_conflunet.commands import compare
from nnunetv2_conflunet.commands import evaluate as command
from nnunetv2_conflunet.commands import report as report_module
from nnunetv2_conflunet.evaluation.cohort.cases import CaseResult
from nnunetv2_conflunet.evaluation.cohort.results import load_methods
from nnunetv2_conflunet.evaluation.detection.metrics import Cohort
from nnunetv2_conflunet.evaluation.detection.steps import CaseSteps
from nnunetv2_conflunet.evaluation.report import case_views
from nnunetv2_conflunet.evaluation.report import report as report_page
from nnunetv2_conflunet.evaluation.report.detection import detection_curves
from nnunetv2_conflunet.evaluation.report.figures import bland_altman, box_plots, detection_by_volume
from nnunetv2_conflunet.evaluation.report.report import make_report
from nnunetv2_conflunet.imageio import Geometry
from nnunetv2_conflunet.utilities.errors import InputError

pytestmark = pytest.mark.slow


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


@pytest.fixture
def evaluated(tmp_path):
    """Four cases under two methods: `exact`, and `<half>`, which finds one of two touching lesions."""
    for i in range(4):
        reference = np.zeros((10, 14, 12), np.uint16)
        reference[2:6, 2 : 6 + i, 2:6], reference[2:6, 2 : 6 + i, 6:9] = 1, 2
        half = np.where(reference == 1, 1, 0).astype(np.uint16)
        half[7:10, 10:13, 8:12] = 5 * (i % 2)
        save(tmp_path / "instancesTs" / f"p{i}.nii.gz", reference)
        save(tmp_path / "exact" / "instances" / f"p{i}.nii.gz", reference)
        save(tmp_path / "half" / "instances" / f"p{i}.nii.gz", half)
        image = np.random.default_rng(i).normal(100, 5, reference.shape).astype(np.float32)
        save(tmp_path / "imagesTs" / f"p{i}_0000.nii.gz", image)
    for name in ("exact", "half"):
        command.evaluate(
            command._parser().parse_args([str(tmp_path / "instancesTs"), str(tmp_path / name), "-np", "1"])
        )
    return tmp_path


def test_the_page_stands_alone_and_holds_the_numbers(evaluated):
    methods = load_methods([evaluated / "exact", evaluated / "half"], ["exact", "<half>"])
    page = make_report(methods, images=evaluated / "imagesTs", n_cases=1)
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    # Three figures, and the worst and the best case of two methods.
    assert len(sources) == 7 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<half>" not in page and "&lt;half&gt;" in page
    # Two of the four cases have a false positive: P 1, 0.5, 1, 0.5.
    assert "<td>Precision</td><td>100.0 ± 0.0</td><td>75.0 ± 28.9</td>" in page
    assert "<td>Recall_CLU</td><td>100.0 ± 0.0</td><td>50.0 ± 0.0</td>" in page
    # Four of eight references found, two false positives.
    assert "<h2>AP without confidence: TP / (TP + FP + FN) by IoU</h2>" in page
    assert "<td>0.50</td><td>100.0</td><td>40.0</td>" in page and "<td>mean</td><td>100.0</td><td>40.0</td>" in page
    # At a tie of PQ the cases keep the order of their ids.
    assert "<h3>p0 (worst, exact)</h3>" in page and "<h3>p3 (best, exact)</h3>" in page
    assert "<h3>p1 (worst, &lt;half&gt;)</h3>" in page
    assert "exact - &lt;half&gt;" in page


def test_what_was_removed_is_said_of_every_method(evaluated):
    methods = load_methods([evaluated / "exact", evaluated / "half"])
    page = make_report(methods, n_cases=0)
    assert page.count("matching &#39;paper&#39;") == 1
    methods[1].summary["removed"]["prediction"]["n_instances_removed"] = 17
    page = make_report(methods, n_cases=0)
    assert "0 of the prediction" in page and "half: 4 cases" in page and "17 of the prediction" in page


def test_one_method_without_images(evaluated):
    page = make_report(load_methods([evaluated / "half"]), n_cases=9)
    assert "Paired differences" not in page and page.count("<h3>") == 4
    assert "<h3>" not in make_report(load_methods([evaluated / "half"]), n_cases=0)


def test_an_unknown_reader_is_named(evaluated):
    (method,) = load_methods([evaluated / "half"])
    method.summary["reader"] = "os.system"
    with pytest.raises(InputError, match=r"half was evaluated with os\.system, which is not a reader of nnU-Net"):
        make_report([method], n_cases=1)


def test_names_of_methods_are_text_in_the_figures(evaluated):
    names = [r"$\nonsense$", "_half"]
    methods = load_methods([evaluated / "exact", evaluated / "half"], names)
    assert "_half" in make_report(methods, n_cases=0)
    cohort = Cohort({0.1: [CaseSteps(1, 1, np.array([0.9]), np.array([[1, 1, 0, 1, 1, 0]]))]})
    drawn = (
        box_plots({method.name: method.metrics for method in methods}),
        detection_by_volume({method.name: method.summary["strata"]["volume"] for method in methods}),
        bland_altman({method.name: method.metrics for method in methods}),
        detection_curves(dict.fromkeys(names, cohort)),
    )
    for figure in drawn:
        figure.canvas.draw()
        shown = [text.get_text() for text in figure.legends[0].get_texts() if "confluent" not in text.get_text()]
        assert [text.strip().replace(r"\$", "$") for text in shown] == names


def test_methods_with_other_ranges_of_volumes_are_not_drawn_side_by_side(evaluated):
    args = evaluated / "instancesTs", evaluated / "half", "-o", evaluated / "other", "--volume_bins_mm3", 50, 70
    command.evaluate(command._parser().parse_args([*map(str, args), "-np", "1"]))
    with pytest.raises(InputError, match="exact and other were evaluated with different ranges of volumes"):
        make_report(load_methods([evaluated / "exact", evaluated / "other"]))
    assert "Detection by lesion volume" in make_report(load_methods([evaluated / "other"]), n_cases=0)


def test_a_missing_image_is_named(evaluated):
    (evaluated / "imagesTs" / "p1_0000.nii.gz").unlink()
    with pytest.raises(InputError, match=r"no images of 1 of 1 cases: p1\. Expected names like p1_0000\.nii\.gz"):
        make_report(load_methods([evaluated / "half"]), images=evaluated / "imagesTs")


def test_a_channel_of_a_file_with_several_is_shown(tmp_path):
    # As RGB files have them: one file, three channels.
    colors = np.zeros((16, 16, 3), np.uint8)
    colors[4:8, 4:8] = 90, 160, 220
    for name, array in (("a_0000.png", colors), ("a.png", (colors[..., 0] > 0).astype(np.uint8))):
        sitk.WriteImage(sitk.GetImageFromArray(array, isVector=array.ndim == 3), str(tmp_path / name))
    case = CaseResult("a", str(tmp_path / "a.png"), str(tmp_path / "a.png"))
    lesions = pd.DataFrame({"side": ["reference", "prediction"], "status": ["TP", "TP"], "id": [1, 1]})
    files = {0: tmp_path / "a_0000.png"}
    assert case_views.case_view(case, lesions, (files, 2), NaturalImage2DIO()).axes
    with pytest.raises(InputError, match="has no channel 3 of this case"):
        case_views.case_view(case, lesions, (files, 3), NaturalImage2DIO())


def test_an_image_that_cannot_be_read_is_named(evaluated):
    (evaluated / "imagesTs" / "p1_0000.nii.gz").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"p1_0000\.nii\.gz cannot be read by SimpleITKIO"):
        make_report(load_methods([evaluated / "half"]), images=evaluated / "imagesTs")


@pytest.mark.parametrize("mean, reader", [(100, SimpleITKIO), (100, NibabelIO), (0, NibabelIO)])
def test_voxels_of_an_image_that_are_no_numbers_are_black(tmp_path, mean, reader):
    image = np.random.default_rng(0).normal(mean, 5, (4, 20, 20)).astype(np.float32)
    image[:, :10], image[0, 15, 15] = np.nan, np.inf
    save(tmp_path / "a_0000.nii.gz", image)
    lesion = np.zeros(image.shape, np.uint16)
    lesion[1:3, 12:15, 2:6] = 1
    save(tmp_path / "a.nii.gz", lesion)
    case = CaseResult("a", str(tmp_path / "a.nii.gz"), str(tmp_path / "a.nii.gz"))
    lesions = pd.DataFrame({"side": ["reference", "prediction"], "status": ["TP", "TP"], "id": [1, 1]})
    figure = case_views.case_view(case, lesions, ({0: tmp_path / "a_0000.nii.gz"}, 0), reader())
    panel = figure.axes[0].images[0].get_array()
    assert np.isfinite(panel).all() and panel.min() == 0 and panel.std() > 0.1
    # The margin of 8 voxels around the half that has numbers.
    assert (panel == 0).all(axis=(1, 2)).sum() == 8 and len(panel) == 18


@pytest.mark.parametrize("shape", [(6, 12, 12), (1, 12, 12)])
def test_lesions_that_touch_differ_in_color_whatever_their_ids(tmp_path, shape):
    touching = np.zeros(shape, np.uint16)
    touching[:3, 2:10, 2:5], touching[:3, 2:10, 5:8], touching[:3, 2:10, 8:10] = 1, 8, 15
    save(tmp_path / "a.nii.gz", touching)
    case = CaseResult("a", str(tmp_path / "a.nii.gz"), str(tmp_path / "a.nii.gz"))
    lesions = pd.DataFrame({"side": ["prediction"] * 3 + ["reference"] * 3, "status": "TP", "id": [1, 8, 15] * 2})
    figure = case_views.case_view(case, lesions, None, SimpleITKIO())
    for axes in figure.axes[1:3]:
        colors = np.unique(np.reshape(axes.images[0].get_array(), (-1, 3)), axis=0)
        # Black, and three lesions.
        assert len(colors) == 4


def test_a_map_that_has_changed_since_the_evaluation_is_named(evaluated):
    save(evaluated / "half" / "instances" / "p1.nii.gz", np.zeros((3, 4, 5), np.uint16))
    with pytest.raises(InputError, match=r"p1\.nii\.gz has size .* changed since the evaluation"):
        make_report(load_methods([evaluated / "half"]))


def test_a_map_that_is_gone_since_the_evaluation_is_named(evaluated):
    (evaluated / "half" / "instances" / "p1.nii.gz").unlink()
    with pytest.raises(InputError, match=r"p1\.nii\.gz, which was evaluated, does not exist .* --n_cases 0"):
        make_report(load_methods([evaluated / "half"]))


def test_the_command_writes_beside_the_evaluation(evaluated, capsys):
    args = report_module._parser().parse_args([str(evaluated / "half")])
    report_module.report(args)
    assert (evaluated / "half" / "report.html").read_text().startswith("<!DOCTYPE html>")
    args.images = evaluated / "absent"
    with pytest.raises(InputError, match="absent is not a folder"):
        report_module.report(args)


def test_only_a_report_is_replaced(evaluated, monkeypatch):
    def report(path):
        report_module.report(report_module._parser().parse_args([str(evaluated / "half"), "-o", str(path)]))

    mine, made, empty = (evaluated / name for name in ("thesis.html", "report.html", "empty.html"))
    mine.write_text("<!DOCTYPE html><title>My thesis</title>")
    empty.touch()
    for path in (made, made, empty):
        report(path)
        assert "Lesion-level evaluation" in path.read_text()
    monkeypatch.setattr(report_module, "make_report", None)
    with pytest.raises(InputError, match=r"thesis\.html exists and is not a report by this command"):
        report(mine)
    assert mine.read_text() == "<!DOCTYPE html><title>My thesis</title>"
    with pytest.raises(InputError, match="half is a folder, but a file is to be written there"):
        report(evaluated / "half")


@pytest.mark.parametrize("kind", UNWRITABLE)
def test_a_place_that_cannot_be_written_is_named_before_the_work(evaluated, monkeypatch, kind):
    monkeypatch.setattr(report_module, "make_report", None)
    with unwritable(kind, evaluated) as place, pytest.raises(InputError, match=UNWRITABLE[kind]):
        report_module.report(report_module._parser().parse_args([str(evaluated / "half"), "-o", str(place / "r.html")]))


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
def test_a_lesion_table_that_cannot_be_read_is_named(evaluated, content):
    table = evaluated / "half" / "lesions.csv"
    table.unlink() if content is None else table.write_bytes(content)
    with pytest.raises(InputError, match=r"lesions\.csv cannot be read .*; run nnUNetv2_conflunet_evaluate again"):
        make_report(load_methods([evaluated / "half"]))


@pytest.mark.parametrize("edit", ["names", "semicolons", "rows"])
def test_a_lesion_table_that_a_spreadsheet_has_changed_is_named(tmp_path, edit):
    lesion = np.zeros((10, 12, 12), np.uint16)
    lesion[2:6, 2:6, 2:6] = 1
    for name in ("001", "002"):
        save(tmp_path / "a" / f"{name}.nii.gz", lesion)
    command.evaluate(command._parser().parse_args([str(tmp_path / "a"), str(tmp_path / "a"), "-np", "1"]))
    table = tmp_path / "a" / "lesions.csv"
    head, *rows = table.read_text().splitlines(keepends=True)
    changed = {
        "names": [head, *(row.removeprefix("00") for row in rows)],
        "semicolons": [row.replace(",", ";") for row in (head, *rows)],
        "rows": [head, *rows[1:]],
    }
    table.write_text("".join(changed[edit]))
    with pytest.raises(InputError, match=r"lesions\.csv does not hold the lesions of case 001 that were evaluated"):
        make_report(load_methods([tmp_path / "a"]))


def test_lesions_of_cases_with_odd_names_are_drawn(tmp_path, monkeypatch):
    lesion = np.zeros((10, 12, 12), np.uint16)
    lesion[2:6, 2:6, 2:6] = 1
    for name in ("=1", "NA", "007"):
        save(tmp_path / "a" / f"{name}.nii.gz", lesion)
    command.evaluate(command._parser().parse_args([str(tmp_path / "a"), str(tmp_path / "a"), "-np", "1"]))
    drawn = {}
    original = report_page.case_view

    def case_view(case, lesions, *others):
        drawn[case.case] = len(lesions)
        return original(case, lesions, *others)

    monkeypatch.setattr(report_page, "case_view", case_view)
    make_report(load_methods([tmp_path / "a"]))
    assert drawn == {"=1": 2, "NA": 2, "007": 2}


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
def test_slices_are_axial_with_the_right_side_on_the_left(axes, signs):
    # Array axis i runs along world axis axes[i] (x right, y front, z top) in the direction signs[i].
    affine = np.eye(4)
    affine[:3, :3] = 0
    spacing_mm = (1.0, 2.0, 3.0)
    for array_axis, (world_axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[world_axis, array_axis] = sign * spacing_mm[array_axis]
    instances = np.zeros((4, 5, 6), np.int32)
    geometry = Geometry(instances.shape, spacing_mm, affine, "RAS")
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in instances.shape], indexing="ij"), axis=-1).reshape(-1, 3)
    # The corner that is rightmost, foremost and topmost in the world.
    instances[tuple(corners[geometry.to_world_mm(corners).sum(axis=1).argmax()])] = 1
    (shown,), (row_mm, column_mm) = case_views._as_axial([instances], geometry)
    assert shown[-1, 0, 0] == 1
    assert (row_mm, column_mm) == (spacing_mm[axes.index(1)], spacing_mm[axes.index(0)])


def test_shown_slices_have_most_of_each_status():
    status = np.zeros((9, 4, 4), np.int8)
    status[2, 0, :2], status[3, 0, 0], status[7, 1, 1] = 1, 1, 3
    assert case_views._slices(status) == [2, 7]
    assert case_views._slices(np.zeros_like(status)) == [4]


def exit_status(monkeypatch, main, *arguments):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("room", [0, 4096])
@pytest.mark.parametrize("name", ["evaluate", "a part", "compare", "report"])
def test_on_a_full_disk_the_old_results_stand_and_the_status_is_1(
    evaluated, disk, monkeypatch, capsys, name, room, older
):
    folders = evaluated / "exact", evaluated / "half"
    reference = evaluated / "instancesTs"
    main, arguments = {
        "evaluate": (command.main, (reference, folders[1], "-np", 1, "-o", disk.folder)),
        "a part": (command.main, (reference, folders[1], "-np", 1, "-o", disk.folder, "-num_parts", 2)),
        # Names that make its smallest file larger than a page.
        "compare": (compare.main, (*folders, "--names", "a" * 2000, "b" * 2000, "-o", disk.folder)),
        "report": (report_module.main, (folders[1], "--n_cases", 0, "-o", disk.folder / "report.html")),
    }[name]
    if older:
        assert exit_status(monkeypatch, main, *arguments) == 0
    before = files_of(disk.folder)
    assert bool(before) == older
    capsys.readouterr()
    with disk.room(room):
        assert exit_status(monkeypatch, main, *arguments) == 1
    assert said_of_a_full_disk(room) in capsys.readouterr().err
    assert files_of(disk.folder) == before
