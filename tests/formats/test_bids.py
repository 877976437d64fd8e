import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from format_scenes import RAS, TABLE, in_world, three_lesions, write_prediction

from nnunetv2_conflunet.formats.bids import Bids
from nnunetv2_conflunet.formats.export import export_folder
from nnunetv2_conflunet.formats.settings import ExportSettings
from nnunetv2_conflunet.utilities.errors import InputError

PATTERN = r"ms_(?P<subject>\d+)(?:_(?P<session>\w+))?"
STEM = "sub-1/ses-m12/anat/sub-1_ses-m12_space-orig_desc-lesions_dseg"


def exported(folder, output, **settings):
    _, failed = export_folder(folder, output, ExportSettings("bids", **settings))
    assert failed == {}
    return output


def stems(cases, **settings):
    return dict(Bids.of(cases, ExportSettings("bids", **settings)).stems)


def validated(folder):
    """The severity and code of each issue that the BIDS validator finds."""
    pytest.importorskip("bids_validator_deno")
    command = Path(sys.executable).with_name("bids-validator-deno")
    result = subprocess.run([command, folder, "--format", "json"], capture_output=True, text=True, timeout=120)
    return {(issue["severity"], issue["code"]) for issue in json.loads(result.stdout)["issues"]["issues"]}


@pytest.fixture
def dataset(tmp_path):
    maps = {"ms_1_m12": three_lesions(), "ms_2_m0": np.zeros((4, 5, 6), np.uint8), "ms_3": three_lesions()[:, :, 3:4]}
    folder = write_prediction(tmp_path / "p", maps, tables={"ms_1_m12": TABLE}, codes="PIR")
    return exported(folder, tmp_path / "derivatives", pattern=PATTERN)


@pytest.mark.command
def test_the_validator_finds_no_error(dataset):
    assert [code for severity, code in validated(dataset) if severity == "error"] == []


@pytest.mark.command
def test_the_validator_sees_what_is_wrong(dataset):
    """So that the test above can fail."""
    (dataset / f"{STEM}.json").unlink()
    (dataset / f"{STEM}.tsv").write_text("number\n3\n")
    (dataset / "sub-1" / "lesions.nii.gz").write_bytes(b"")
    errors = {code for severity, code in validated(dataset) if severity == "error"}
    assert {"NOT_INCLUDED", "TSV_COLUMN_MISSING", "SIDECAR_KEY_REQUIRED"} <= errors


def test_maps_and_tables_are_read_back(dataset):
    image = nibabel.load(dataset / f"{STEM}.nii.gz")
    assert in_world(np.asarray(image.dataobj), image.affine) == in_world(three_lesions(), RAS)
    table = pd.read_csv(dataset / f"{STEM}.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert list(table) == ["index", "name", "color", "label", "volume_mm3", "mean_probability", "confluent"]
    assert table["index"].tolist() == ["3", "7", "12"]
    assert table["name"].tolist() == ["lesion 3", "lesion 7", "black hole 12"]
    assert table["color"].str.fullmatch("#[0-9a-f]{6}").all() and table["color"][0] != table["color"][1]
    assert table["mean_probability"].tolist() == ["0.75", "n/a", "0.5"]
    assert table["confluent"].tolist() == ["true", "true", "false"]


def test_the_sidecar_explains_the_columns(dataset):
    sidecar = json.loads((dataset / f"{STEM}.json").read_text())
    assert sidecar["SpatialReference"] == "orig"
    assert sidecar["volume_mm3"] == {"Description": "Volume.", "Units": "mm^3"}
    computed = json.loads(next(dataset.glob("sub-2/ses-m0/anat/*.json")).read_text())
    assert computed["centroid_world_z_mm"]["Description"].startswith("Center of mass in the convention")
    assert computed["bbox_max_k"]["Description"].startswith("Highest voxel index")
    assert all(
        " " in entry["Description"] or entry["Description"] == "Volume." for entry in list(computed.values())[3:]
    )


def test_the_description_names_the_program(dataset):
    description = json.loads((dataset / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert [made["Name"] for made in description["GeneratedBy"]] == ["nnunetv2_conflunet"]


def test_cases_named_as_in_bids_need_no_settings():
    assert stems(["sub-01", "sub-A2_ses-b", "sub-03_ses-1_FLAIR"]) == {
        "sub-01": "sub-01",
        "sub-A2_ses-b": "sub-A2_ses-b",
        "sub-03_ses-1_FLAIR": "sub-03_ses-1",
    }


@pytest.mark.parametrize("name, separator", [("names.csv", ","), ("names.tsv", "\t")])
def test_a_table_names_the_cases(tmp_path, name, separator):
    rows = [("case", "session", "subject"), ("a", "ses-1", "sub-01"), ("b", "", "02"), ("other", "", "not used")]
    (tmp_path / name).write_text("".join(separator.join(row) + "\n" for row in rows))
    assert stems(["a", "b"], names=tmp_path / name) == {"a": "sub-01_ses-1", "b": "sub-02"}


@pytest.mark.parametrize(
    "cases, settings, message",
    [
        (["MS_1", "sub-01"], {}, r"MS_1 are not named sub-<label>\[_ses-<label>\] as in BIDS; name them with --names"),
        (["ms_1", "x"], {"pattern": PATTERN}, "x do not match --pattern"),
        (["ms_1_a_b"], {"pattern": PATTERN}, "ms_1_a_b: a_b is no label of BIDS, which has letters and digits only"),
        (["ms_1_a", "ms_1_b"], {"pattern": r"ms_(?P<subject>\d).*"}, r"the same name: sub-1 \(ms_1_a, ms_1_b\)"),
        (["sub-1_ses-pre-op"], {}, "sub-1_ses-pre-op are not named"),
        (["sub-1_run-1_ses-2"], {}, "sub-1_run-1_ses-2 are not named"),
        (["a"], {"pattern": "(a"}, "is not a regular expression"),
        (["a"], {"pattern": "(a)"}, r"has no group \(\?P<subject>"),
        (["a"], {"pattern": "a(?P<subject>b)?"}, "a do not match --pattern"),
    ],
)
def test_names_that_are_no_bids_names_are_refused(cases, settings, message):
    with pytest.raises(InputError, match=message):
        stems(cases, **settings)


@pytest.mark.parametrize(
    "text, message",
    [
        ("case,subject\na,1\n", "names.csv has no row for b; add one for each case"),
        ("case,subject\na,1\nb,2\na,3\n", "names.csv has several rows for a"),
        ("case,subject\na,1\nb, \n", "names.csv has nothing in the column subject for b"),
        ("case,patient\na,1\n", "names.csv has no column subject, only case, patient"),
        ("case,subject\na,1,2,3\nb,1\n", "names.csv cannot be read as a table|names.csv has no row for a"),
        ("case,subject\na,0 1\nb,x-y\n", "a: 0 1 is no label of BIDS.*b: x-y is no label"),
        (None, "names.csv is no file; give a CSV or TSV table"),
    ],
)
def test_a_table_that_does_not_name_every_case_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "names.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        stems(["a", "b"], names=tmp_path / "names.csv")


def test_nothing_is_written_if_a_case_has_no_name(tmp_path):
    folder = write_prediction(tmp_path / "p", {"sub-1": three_lesions(), "other": three_lesions()})
    with pytest.raises(InputError, match="other are not named"):
        exported(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content",
    [
        *('{"Name": "raw"}', '{"GeneratedBy": [{"Name": "fMRIPrep"}]}', "[]"),
        *('{"GeneratedBy": [5, null]}', '{"GeneratedBy": ["Name"]}', '{"GeneratedBy": [{"Name": {}}]}'),
    ],
)
def test_the_dataset_of_another_program_is_left_alone(tmp_path, content):
    folder = write_prediction(tmp_path / "p", {"sub-1": three_lesions()})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset_description.json").write_text(content)
    with pytest.raises(InputError, match="was not written by this command; give a folder of its own"):
        exported(folder, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["dataset_description.json"]


def test_further_cases_join_the_dataset(tmp_path):
    exported(write_prediction(tmp_path / "p", {"sub-1": three_lesions()}), tmp_path / "out")
    exported(write_prediction(tmp_path / "q", {"sub-2": three_lesions()}), tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 2


def test_what_a_user_wrote_about_the_dataset_stays(tmp_path):
    exported(write_prediction(tmp_path / "p", {"sub-1": three_lesions()}), tmp_path / "out")
    description, readme = tmp_path / "out" / "dataset_description.json", tmp_path / "out" / "README.md"
    described = json.dumps(json.loads(description.read_text()) | {"Authors": ["Doe"]})
    description.write_text(described)
    readme.write_text("mine")
    exported(write_prediction(tmp_path / "q", {"sub-2": three_lesions()}), tmp_path / "out")
    assert (description.read_text(), readme.read_text()) == (described, "mine")
    description.unlink()
    exported(write_prediction(tmp_path / "r", {"sub-3": three_lesions()}), tmp_path / "out")
    assert description.is_file() and readme.read_text() == "mine"
