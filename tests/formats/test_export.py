import re
import sys

import numpy as np
import pytest
from format_scenes import three_lesions, write_prediction
from support import assert_whole_or_as_before, files_of, nnunet_environment, run

from nnunetv2_conflunet.formats.bids import Bids
from nnunetv2_conflunet.formats.export import export_folder
from nnunetv2_conflunet.formats.itksnap import ItkSnap
from nnunetv2_conflunet.formats.lesions import open_instances, read_lesions
from nnunetv2_conflunet.formats.settings import EXTRAS, FORMATS, ExportSettings, require_extra
from nnunetv2_conflunet.formats.slicer import Slicer
from nnunetv2_conflunet.utilities.errors import InputError

COMMAND = ["python", "-c", "from nnunetv2_conflunet.commands.export import main; main()"]


@pytest.fixture
def prediction(tmp_path):
    return write_prediction(tmp_path / "p", {"sub-1": three_lesions(), "sub-2": three_lesions()})


@pytest.mark.parametrize("name", ["itksnap", "slicer", "bids"])
def test_existing_files_are_replaced_only_when_asked(prediction, tmp_path, name):
    settings, output = ExportSettings(name), tmp_path / "out"
    export_folder(prediction, output, settings)
    (file,) = (file for file in output.rglob("sub-2*") if file.name.endswith((".nii.gz", ".nrrd")))
    whole = file.read_bytes()
    file.write_bytes(b"old")
    with pytest.raises(InputError, match="exist; give another folder, or --overwrite"):
        export_folder(prediction, output, settings)
    assert file.read_bytes() == b"old"
    export_folder(prediction, output, settings, overwrite=True)
    without_date = re.compile(rb"# on [^\n]*\n")
    assert without_date.sub(b"", file.read_bytes()) == without_date.sub(b"", whole)


@pytest.mark.parametrize(("folder", "output"), [("", ""), ("", "instances"), ("instances", "")])
def test_maps_are_not_written_over_the_input(prediction, folder, output):
    before = files_of(prediction)
    with pytest.raises(InputError, match="is an input folder; give another one"):
        export_folder(prediction / folder, prediction / output, ExportSettings(), overwrite=True)
    assert files_of(prediction) == before


@pytest.mark.parametrize("name", ["itksnap", "slicer", "bids"])
def test_a_case_that_fails_does_not_stop_the_others(prediction, tmp_path, name):
    (prediction / "instances" / "sub-1.csv").write_text("id\n1\n")
    done, failed = export_folder(prediction, tmp_path / "out", ExportSettings(name))
    assert list(done) == ["sub-2"] and "does not list the lesions" in failed["sub-1"]
    assert not [file for file in (tmp_path / "out").rglob("*") if "sub-1" in file.name]


def test_neither_does_one_that_fails_with_another_error(prediction, tmp_path, monkeypatch):
    write = ItkSnap.write

    def failing(self, lesions, output):
        if lesions.case == "sub-1":
            raise ZeroDivisionError("a bug")
        return write(self, lesions, output)

    monkeypatch.setattr(ItkSnap, "write", failing)
    done, failed = export_folder(prediction, tmp_path / "out", ExportSettings())
    assert list(done) == ["sub-2"] and failed == {"sub-1": "ZeroDivisionError: a bug"}


@pytest.mark.parametrize("name", ["itksnap", "slicer", "bids"])
@pytest.mark.parametrize("room", [0, 4096])
def test_a_full_disk_leaves_all_files_of_a_case_or_none(disk, tmp_path, name, room):
    rng = np.random.default_rng(0)
    folder = write_prediction(tmp_path / "p", {"sub-1": rng.integers(0, 200, (30, 30, 30)).astype(np.uint16)})
    lesions = read_lesions(open_instances(folder), "sub-1")
    writer = {"itksnap": ItkSnap(), "slicer": Slicer(), "bids": Bids({"sub-1": "sub-1"})}[name]
    assert_whole_or_as_before(disk, lambda: writer.write(lesions, disk.folder), room)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"format": "pdf"}, "There is no format 'pdf', only itksnap, slicer, bids, dicomseg"),
        ({"format": "slicer", "pattern": "x"}, "--pattern belongs to --format bids, not to slicer"),
        ({"format": "bids", "series": "x"}, "--series belongs to --format dicomseg, not to bids"),
        ({"format": "bids", "names": "x", "pattern": "y"}, "give one of them"),
        ({"format": "dicomseg"}, "needs the images that were segmented; name them with --series"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        ExportSettings(**settings)


@pytest.mark.parametrize("name, package, extra", [("slicer", "pynrrd", "slicer"), ("dicomseg", "highdicom", "dicom")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, prediction, tmp_path, name, package, extra):
    monkeypatch.setitem(sys.modules, EXTRAS[name][0], None)
    settings = ExportSettings(name, series=tmp_path if name == "dicomseg" else None)
    with pytest.raises(InputError, match=rf"needs the package {package} .*`pip install {package}`.*extra \[{extra}\]"):
        export_folder(prediction, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_formats_without_extras_need_none():
    assert {*EXTRAS} < {*FORMATS}
    require_extra("bids")


@pytest.mark.command
def test_the_command_exports_and_reports(prediction, tmp_path):
    environment = nnunet_environment(tmp_path)
    result = run([*COMMAND, "-i", prediction, "-o", tmp_path / "out", "--format", "slicer", "-np", "1"], environment)
    assert f"2 cases with 6 lesions written to {tmp_path / 'out'} (slicer)." in result.stdout
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["sub-1.seg.nrrd", "sub-2.seg.nrrd"]
    (prediction / "instances" / "sub-2.csv").write_text("id\n1\n")
    arguments = ["-i", prediction, "-o", tmp_path / "out", "--format", "slicer", "-np", "1", "--overwrite"]
    result = run([*COMMAND, *arguments], environment, check=False)
    assert result.returncode == 1 and "Error: 1 of 2 cases failed:\n  sub-2: " in result.stderr
    result = run([*COMMAND, "-i", prediction, "-o", tmp_path / "out", "--format", "slicer"], environment, check=False)
    assert result.returncode == 1 and result.stderr.startswith("Error: ") and "--overwrite" in result.stderr
