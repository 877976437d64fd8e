"""The command: where it writes, what it says, how it fails."""

import re
import sys
from pathlib import Path

import pytest
from support import UNWRITABLE, unwritable, write_dataset

from nnunetv2_conflunet.commands import simulate as command
from nnunetv2_conflunet.simulation import templates
from nnunetv2_conflunet.simulation.cohort import CohortSettings
from nnunetv2_conflunet.simulation.lesions import LesionStatistics
from nnunetv2_conflunet.utilities.errors import InputError

pytestmark = pytest.mark.slow

SMALL = ["--training_cases", "1", "--test_cases", "0", "--crop", "40", "40", "40", "--lesions", "4"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_conflunet_simulate", *arguments])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    return stopped.value.code


def test_a_dataset_in_nnunet_raw_and_its_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert run(monkeypatch, "-d", "7", "-n", "Tiny", *SMALL) == 0
    assert (tmp_path / "Dataset007_Tiny" / "dataset.json").is_file()
    assert "1 training and 0 test cases" in capsys.readouterr().out
    assert run(monkeypatch, "-d", "7", "-n", "Tiny", "--statistics") == 0
    assert "| Confluent lesions, % |" in capsys.readouterr().out
    assert run(monkeypatch, "-d", "7", "-n", "Tiny", *SMALL) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert run(monkeypatch, "-d", "7", "-n", "Other", *SMALL) == 1
    assert "Dataset007_Tiny" in capsys.readouterr().err


def test_an_output_folder_needs_no_nnunet_raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert run(monkeypatch, "-o", str(tmp_path / "d"), *SMALL) == 0
    assert (tmp_path / "d" / "dataset.json").is_file()


def test_statistics_leave_no_case_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    dataset = write_dataset(tmp_path / "d", n_cases=2, shape=(20, 24, 24), n_lesions=1)
    file = dataset / "instancesTr" / "case_Tr0.nii.gz"
    file.with_name(f"._{file.name}").write_bytes(b"macOS")
    assert run(monkeypatch, "-o", str(dataset), "--statistics") == 0
    assert "| Patients (without lesions) | 3 (1) |" in capsys.readouterr().out
    content = file.read_bytes()
    file.write_bytes(content[:50])
    assert run(monkeypatch, "-o", str(dataset), "--statistics") == 1
    assert "case_Tr0.nii.gz cannot be read" in capsys.readouterr().err
    file.rename(file.with_name("case_Tr0.NII.GZ"))
    assert run(monkeypatch, "-o", str(dataset), "--statistics") == 1
    assert "case_Tr0.NII.GZ (ends with .NII.GZ)" in capsys.readouterr().err


@pytest.mark.parametrize("kind", UNWRITABLE)
def test_a_place_that_cannot_be_written_is_named_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, kind: str
):
    monkeypatch.setattr(command, "write_cohort", None)
    with unwritable(kind, tmp_path) as place:
        assert run(monkeypatch, "-o", str(place), *SMALL, "--overwrite") == 1
    assert re.search(UNWRITABLE[kind], capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nnUNet_raw"),
        (["-o", "d", "--crop", "5", "5", "5"], "between 32 and 256 mm"),
        (["-o", "d", "--confluent_share", "3"], "confluent share 3"),
        (["-o", "d", "--statistics"], "no instance maps"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, arguments, message):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "d").exists()


def test_options_become_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(command, "write_cohort", lambda folder, settings, **how: calls.append((settings, how)))
    assert run(monkeypatch, "-o", str(tmp_path)) == 0
    options = "--training_cases 3 --spacing 3 1 1 --crop 40 50 60 --lesions 4 --confluent_share 0.3 --seed 2 -np 2"
    assert run(monkeypatch, "-o", str(tmp_path), *options.split()) == 0
    assert run(monkeypatch, "-o", str(tmp_path), "--whole_brain", "--overwrite") == 0
    (default, how), (given, also), (whole, replacing) = calls
    assert default == CohortSettings() and how == {"overwrite": False, "processes": 1}
    statistics = LesionStatistics(confluent_share=0.3)
    expected = CohortSettings(3, spacing_mm=(3, 1, 1), crop_mm=(40, 50, 60), lesions=4, statistics=statistics, seed=2)
    assert given == expected and also["processes"] == 2
    assert whole == CohortSettings(crop_mm=None) and replacing["overwrite"]


def test_a_bad_dataset_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert run(monkeypatch, "-d", "1000") == 1
    assert "1 to 999" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a/b", "../a", ""])
def test_a_bad_dataset_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, name: str):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    monkeypatch.setattr(command, "write_cohort", None)
    assert run(monkeypatch, "-n", name) == 1
    assert "give a name without slashes" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_missing_nilearn_is_one_line_with_the_command_that_helps(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(templates, "find_spec", lambda name: None)
    templates.load_templates.cache_clear()
    try:
        assert run(monkeypatch, "-o", str(tmp_path / "d"), *SMALL) == 1
    finally:
        templates.load_templates.cache_clear()
    assert "pip install 'nilearn" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_a_nilearn_without_the_files(tmp_path, monkeypatch: pytest.MonkeyPatch):
    class Specification:
        origin = str(tmp_path / "nilearn" / "__init__.py")

    monkeypatch.setattr(templates, "find_spec", lambda name: Specification)
    with pytest.raises(InputError, match="mni_icbm152_t1"):
        templates.template_folder()
