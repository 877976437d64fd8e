import pytest

from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.nnunet_folders import PREPROCESSED, RAW, RESULTS, dataset_name, nnunet_folder


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    for name in (RAW, PREPROCESSED, RESULTS):
        monkeypatch.setenv(name, str(tmp_path / name))
        (tmp_path / name).mkdir()


@pytest.mark.parametrize("value", [None, ""])
def test_a_folder_that_is_not_set_or_empty(monkeypatch, value):
    monkeypatch.delenv(RAW) if value is None else monkeypatch.setenv(RAW, value)
    with pytest.raises(InputError, match=r"nnUNet_raw is not set; export it"):
        nnunet_folder(RAW)


def test_a_dataset_is_named_by_its_id_or_name(tmp_path):
    (tmp_path / RAW / "Dataset007_MS").mkdir()
    assert nnunet_folder(RAW) == tmp_path / RAW
    assert dataset_name("7") == dataset_name("007") == dataset_name("Dataset007_MS") == "Dataset007_MS"


def test_what_there_is_instead_is_named_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"ID 7\. nnUNet_raw \(.*\) holds no dataset\.$") as error:
        dataset_name("7")
    assert "\n" not in str(error.value)
    for name in ("Dataset001_A", "Dataset002_B", "Dataset002_C"):
        (tmp_path / RAW / name).mkdir()
    with pytest.raises(InputError, match=r"ID 7\. nnUNet_raw \(.*\) holds Dataset001_A, Dataset002_B, Dataset002_C\.$"):
        dataset_name("7")
    with pytest.raises(InputError, match=r"More than one dataset name found for dataset id 2\. nnUNet_raw") as error:
        dataset_name("2")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="dataset_name_or_id was a string"):
        dataset_name("MS")
