"""Where a raw nnU-Net dataset keeps its labels and instance maps."""

from dataclasses import dataclass
from pathlib import Path

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.paths import nnUNet_raw
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunetv2_conflunet.imageio import find_reader
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import read_json

INSTANCES_FOLDER = "instancesTr"


@dataclass(frozen=True)
class RawCase:
    """One training case: its id, its label file and its instance map."""

    case: str
    label: Path
    instances: Path


class RawDataset:
    """The labels and instance maps of ``nnUNet_raw/DatasetNNN_Name``.

    Args:
        folder: the dataset's folder.

    Raises:
        InputError: there is no readable dataset.json.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        dataset_json_file = self.folder / "dataset.json"
        if not dataset_json_file.is_file():
            raise InputError(f"{dataset_json_file} does not exist; {self.folder} is not a raw nnU-Net dataset.")
        self.dataset_json = read_json(dataset_json_file)
        self.file_ending = self.dataset_json["file_ending"]
        self.instances_folder = self.folder / INSTANCES_FOLDER

    @classmethod
    def find(cls, dataset_name: str) -> "RawDataset | None":
        """The dataset in ``nnUNet_raw``, or None where only its preprocessed form is on this machine."""
        if not nnUNet_raw.is_set() or not (Path(nnUNet_raw) / dataset_name / "dataset.json").is_file():
            return None
        return cls(Path(nnUNet_raw) / dataset_name)

    def training_cases(self) -> dict[str, RawCase]:
        """Every training case by its id, whether its files exist or not."""
        files = get_filenames_of_train_images_and_targets(str(self.folder), self.dataset_json)
        return {
            str(case): RawCase(str(case), Path(entry["label"]), self.instances_folder / f"{case}{self.file_ending}")
            for case, entry in files.items()
        }

    def label_manager(self) -> LabelManager:
        """The label manager of the dataset's own labels.

        Raises:
            InputError: the dataset has regions, whose voxels belong to several classes at once.
        """
        manager = LabelManager(self.dataset_json["labels"], self.dataset_json.get("regions_class_order"))
        refuse_regions(manager, self.folder.name)
        return manager

    def reader(self) -> BaseReaderWriter:
        """An instance of the reader that nnU-Net chooses for the dataset."""
        cases = self.training_cases().values()
        images = sorted((self.folder / "imagesTr").glob(f"*{self.file_ending}"))
        examples = [*images, *(i.label for i in cases), *(i.instances for i in cases)]
        return find_reader(self.dataset_json, examples)()

    def require_instances(self, cases: list[str]) -> list[RawCase]:
        """The given cases, each with an instance map.

        Raises:
            InputError: there is no ``instancesTr``, or cases in it are missing.
        """
        if not self.instances_folder.is_dir():
            raise InputError(
                f"{self.instances_folder} does not exist. Put one instance map a training case there (0 background, "
                "one positive id a lesion), or let `nnUNetv2_conflunet_prepare -d "
                f"{self.folder.name} --instances_from_labels` make them from the connected components of labelsTr."
            )
        known = self.training_cases()
        unknown = sorted(set(cases) - set(known))
        if unknown:
            raise InputError(
                f"{len(unknown)} preprocessed cases are not in {self.folder} any more: {list_some(unknown)}. Repeat "
                "nnUNetv2_plan_and_preprocess."
            )
        missing = sorted(i for i in cases if not known[i].instances.is_file())
        if missing:
            raise InputError(
                f"{len(missing)} of {len(cases)} training cases have no instance map in {self.instances_folder}: "
                f"{list_some(missing)}. Expected names like {missing[0]}{self.file_ending}."
            )
        return [known[i] for i in sorted(cases)]


def refuse_regions(manager: LabelManager, dataset_name: str) -> None:
    """Raise an InputError for a dataset with regions."""
    if manager.has_regions:
        raise InputError(
            f"{dataset_name} has region-based labels; ConfLUNet needs one label a voxel. Declare plain integer labels "
            "in dataset.json."
        )
