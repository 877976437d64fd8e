"""The dataset on disk: complete, reproducible byte by byte, never half replaced."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from support import said_of_a_full_disk

from nnunetv2_conflunet.commands import simulate as command
from nnunetv2_conflunet.imageio import Geometry, read_instances
from nnunetv2_conflunet.simulation import cohort
from nnunetv2_conflunet.simulation.cohort import CohortSettings, cases_of, mean_lesions, write_cohort
from nnunetv2_conflunet.simulation.lesions import LesionStatistics
from nnunetv2_conflunet.simulation.statistics import measure_dataset, statistics_table
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.whole_files import is_whole

pytestmark = pytest.mark.slow

SMALL = CohortSettings(
    training_cases=2,
    test_cases=1,
    crop_mm=(48.0, 48.0, 40.0),
    lesions=12,
    statistics=LesionStatistics(dispersion=1e6, confluent_share=0.4),
    seed=7,
)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "Dataset101_Small"
    write_cohort(folder, SMALL)
    return folder


def test_the_dataset_is_complete(dataset: Path):
    expected = {"dataset.json"}
    for split, names in (("Tr", ["simTr_0001", "simTr_0002"]), ("Ts", ["simTs_0001"])):
        for name in names:
            expected |= {f"images{split}/{name}_0000.nii.gz"}
            expected |= {f"labels{split}/{name}.nii.gz", f"instances{split}/{name}.nii.gz"}
    assert set(files(dataset)) == expected
    content = json.loads((dataset / "dataset.json").read_text())
    assert content["numTraining"] == 2
    assert content["channel_names"] == {"0": "FLAIR"}
    assert content["labels"] == {"background": 0, "lesion": 1}
    assert content["file_ending"] == ".nii.gz"
    assert content["simulation"]["seed"] == 7


def test_files_of_a_case_share_their_geometry_and_their_lesions(dataset: Path):
    reader = SimpleITKIO()
    for path in dataset.glob("instancesT?/*.nii.gz"):
        split, name = path.parent.name.removeprefix("instances"), path.name.removesuffix(".nii.gz")
        instances, properties = read_instances(path, reader)
        labels, label_properties = reader.read_seg(str(dataset / f"labels{split}" / path.name))
        image, image_properties = reader.read_images([str(dataset / f"images{split}" / f"{name}_0000.nii.gz")])
        geometry = Geometry.from_properties(instances.shape, properties)
        assert geometry.differences(Geometry.from_properties(labels[0].shape, label_properties)) == []
        assert geometry.differences(Geometry.from_properties(image[0].shape, image_properties)) == []
        assert instances.shape == (48, 48, 40)
        np.testing.assert_array_equal(labels[0] == 1, instances > 0)
        assert set(np.unique(labels)) <= {0, 1}
        assert np.unique(instances).tolist() == list(range(instances.max() + 1))
        assert instances.max() > 4
        # Array order is z, y, x with x to the right, y to the front and z to the top.
        np.testing.assert_allclose(geometry.direction, np.eye(3)[:, ::-1], atol=1e-6)


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_processes(dataset: Path, tmp_path: Path):
    write_cohort(tmp_path / "again", SMALL, processes=2)
    assert files(tmp_path / "again") == files(dataset)


def test_a_case_depends_neither_on_the_number_of_cases_nor_on_the_others(dataset: Path, tmp_path: Path):
    write_cohort(tmp_path / "fewer", replace(SMALL, training_cases=1, test_cases=0))
    fewer = files(tmp_path / "fewer")
    fewer.pop("dataset.json")
    assert len(fewer) == 3
    assert fewer.items() <= files(dataset).items()


def test_another_seed_gives_other_cases(dataset: Path, tmp_path: Path):
    write_cohort(tmp_path / "other", replace(SMALL, training_cases=1, test_cases=0, seed=8))
    for name, content in files(tmp_path / "other").items():
        assert content != files(dataset)[name]


def test_no_two_cases_are_the_same(dataset: Path):
    contents = [content for name, content in files(dataset).items() if name.startswith("instances")]
    assert len(set(contents)) == len(contents)


def test_an_anisotropic_dataset(tmp_path: Path):
    write_cohort(tmp_path / "thick", replace(SMALL, training_cases=2, test_cases=0, spacing_mm=(3.0, 1.0, 1.0)))
    instances, properties = read_instances(tmp_path / "thick/instancesTr/simTr_0001.nii.gz", SimpleITKIO())
    assert instances.shape == (16, 48, 40)
    assert properties["spacing"] == pytest.approx([3, 1, 1])
    for case in measure_dataset(tmp_path / "thick"):
        assert case.volumes_mm3.min() >= 14
        assert case.smallest_extent_mm >= 3
        assert case.confluent >= 2


def test_lesion_free_patients(tmp_path: Path):
    settings = replace(SMALL, training_cases=3, test_cases=0, lesion_free_share=1 / 3)
    assert [case.has_lesions for case in cases_of(settings)] == [True, True, False]
    write_cohort(tmp_path / "d", settings)
    counts = [len(case.volumes_mm3) for case in measure_dataset(tmp_path / "d")]
    assert counts[2] == 0 < min(counts[:2])
    labels, _ = SimpleITKIO().read_seg(str(tmp_path / "d/labelsTr/simTr_0003.nii.gz"))
    assert not labels.any()
    assert "| Patients (without lesions) | 3 (1) | - |" in statistics_table(measure_dataset(tmp_path / "d"))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 5), (1 / 3, 6), (1.0, 20)])
def test_share_of_lesion_free_patients(share: float, expected: int):
    cases = list(cases_of(replace(SMALL, training_cases=20, test_cases=0, lesion_free_share=share)))
    assert sum(not case.has_lesions for case in cases) == expected


@pytest.mark.parametrize("share", [0.0, 0.4, 0.8])
def test_share_of_confluent_lesions_on_disk(tmp_path: Path, share: float):
    statistics = LesionStatistics(dispersion=1e6, confluent_share=share)
    write_cohort(tmp_path / "d", replace(SMALL, training_cases=4, test_cases=0, lesions=15, statistics=statistics))
    cases = measure_dataset(tmp_path / "d")
    measured = sum(case.confluent for case in cases) / sum(len(case.volumes_mm3) for case in cases)
    assert measured == pytest.approx(share, abs=0.1)


def test_a_crop_has_its_share_of_the_lesions():
    settings = replace(SMALL, lesions=None)
    assert (
        1
        <= mean_lesions(settings, settings.grid())
        < mean_lesions(replace(settings, crop_mm=None), replace(settings, crop_mm=None).grid())
    )


def test_an_existing_dataset_is_only_replaced_when_asked(dataset: Path):
    before = files(dataset)
    with pytest.raises(InputError, match="--overwrite"):
        write_cohort(dataset, replace(SMALL, seed=9))
    assert files(dataset) == before


def test_overwriting_leaves_nothing_of_the_old_cohort(tmp_path: Path):
    one = replace(SMALL, training_cases=1, test_cases=0, lesions=3)
    write_cohort(tmp_path / "d", replace(one, training_cases=2))
    (tmp_path / "d" / "notes.txt").write_text("mine")
    write_cohort(tmp_path / "d", one, overwrite=True)
    write_cohort(tmp_path / "fresh", one)
    assert (tmp_path / "d" / "notes.txt").read_text() == "mine"
    assert files(tmp_path / "d") == files(tmp_path / "fresh") | {"notes.txt": b"mine"}


@pytest.mark.parametrize("name", ["imagesTr/ms_1_0000.nii.gz", "instancesTs/simulated.nii.gz", "labelsTr", "imagesTs"])
def test_overwriting_removes_nothing_but_a_cohort(tmp_path: Path, name: str):
    folder, file = tmp_path / "d", tmp_path / "d" / name
    file.parent.mkdir(parents=True)
    (folder / "dataset.json").write_text("{}")
    if name == "imagesTs":
        (tmp_path / "elsewhere").mkdir()
        file.symlink_to(tmp_path / "elsewhere")
    else:
        file.write_text("mine")
    before = files(folder)
    with pytest.raises(InputError, match=f"d holds {name}, which is not of a simulated cohort"):
        write_cohort(folder, replace(SMALL, training_cases=1, test_cases=0), overwrite=True)
    assert files(folder) == before


def test_an_interrupted_run_leaves_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one = replace(SMALL, training_cases=2, test_cases=0, lesions=3)
    write_cohort(tmp_path / "d", one)

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cohort, "_write_case", fail)
    with pytest.raises(KeyboardInterrupt):
        write_cohort(tmp_path / "d", one, overwrite=True)
    assert not (tmp_path / "d" / "dataset.json").exists()
    assert files(tmp_path / "d") == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training_cases": -1}, "negative"),
        ({"training_cases": 0, "test_cases": 0}, "at least one case"),
        ({"spacing_mm": (0.0, 1.0, 1.0)}, r"0\.0, 1\.0, 1\.0.*between 0\.3 and 6 mm"),
        ({"crop_mm": (10.0, 48.0, 48.0)}, "between 32 and 256 mm"),
        ({"crop_mm": (float("nan"), 48.0, 48.0)}, "between 32 and 256 mm"),
        ({"lesions": 0.0}, "between 1 and 1000"),
        ({"lesion_free_share": 1.5}, "lesion-free share 1.5"),
        ({"statistics": LesionStatistics(confluent_share=-0.1)}, "confluent share -0.1"),
        ({"statistics": LesionStatistics(near_miss_share=2)}, "near-miss share 2"),
        ({"statistics": LesionStatistics(dispersion=0)}, "Dispersion 0: give a number between"),
        ({"statistics": LesionStatistics(dispersion=float("inf"))}, "Dispersion inf: give a number between 0.01 and"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(InputError, match=message):
        write_cohort(tmp_path / "d", replace(SMALL, **changes))
    assert not (tmp_path / "d").exists()


def test_statistics_of_a_folder_without_instances(tmp_path: Path):
    with pytest.raises(InputError, match="no instance maps"):
        measure_dataset(tmp_path)


@pytest.mark.parametrize("room", [0, 8192, 20 * 4096])
def test_a_full_disk_leaves_no_dataset_and_no_half_file(disk, room: int, monkeypatch: pytest.MonkeyPatch, capsys):
    small = ["--training_cases", "3", "--test_cases", "1", "--crop", "40", "40", "40", "--lesions", "4"]
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_conflunet_simulate", "-o", str(disk.folder / "d"), *small])
    with disk.room(room), pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 1
    assert said_of_a_full_disk(room) in capsys.readouterr().err
    written = [path for path in (disk.folder / "d").rglob("*") if path.is_file()]
    assert all(is_whole(path) and not path.name.startswith(".") for path in written)
    assert not (disk.folder / "d" / "dataset.json").exists()
