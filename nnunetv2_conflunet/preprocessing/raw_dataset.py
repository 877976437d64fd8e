"""The labels and instance maps of a raw nnU-Net dataset."""

from dataclasses import dataclass
from pathlib import Path

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.utils import (
    get_filenames_of_train_images_and_targets,
    get_identifiers_from_splitted_dataset_folder,
)

from nnunetv2_conflunet.imageio.case_folder import (
    CaseFolder,
    channels_of_cases,
    find_reader,
    read_dataset_json,
    refuse_macos_files,
)
from nnunetv2_conflunet.imageio.unknown import unknown_id
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import is_file_name
from nnunetv2_conflunet.utilities.nnunet_folders import RAW, TRAINING_INSTANCES, is_set, nnunet_folder


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

    Attributes:
        dataset_json: the content of that file.

    Raises:
        InputError: there is no dataset.json in nnU-Net's format, or it declares an id that cannot be used.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        dataset_json_file = self.folder / "dataset.json"
        if not dataset_json_file.is_file():
            raise InputError(f"{dataset_json_file} does not exist; {self.folder} is not a raw nnU-Net dataset.")
        self.dataset_json = read_dataset_json(dataset_json_file)
        self.file_ending = self.dataset_json["file_ending"]
        # An id that cannot be used is refused at once.
        unknown_id(self.dataset_json)
        self.images_folder = self.folder / "imagesTr"
        self.labels_folder = self.folder / "labelsTr"
        self.instances_folder = self.folder / TRAINING_INSTANCES

    @property
    def unknown(self) -> int | None:
        """The id of unknown instances that `dataset_json` declares, which conversion may add; None if there is none."""
        return unknown_id(self.dataset_json)

    @classmethod
    def find(cls, dataset_name: str) -> "RawDataset | None":
        """The dataset in ``nnUNet_raw``, or None if only its preprocessed form is on this machine."""
        folder = nnunet_folder(RAW) / dataset_name if is_set(RAW) else None
        return cls(folder) if folder and (folder / "dataset.json").is_file() else None

    def training_cases(self) -> dict[str, RawCase]:
        """Every training case of nnU-Net by its id, whether or not its label and instance map exist.

        Raises:
            InputError: there is no imagesTr, and dataset.json does not list the images; or it does not list them in
                nnU-Net's format, or lists a case whose name is a path.
        """
        if "dataset" in self.dataset_json:
            labels = {case: Path(entry["label"]) for case, entry in self._listed().items()}
        elif not self.images_folder.is_dir():
            raise InputError(f"{self.images_folder} does not exist; put the training images there.")
        else:
            cases = map(str, get_identifiers_from_splitted_dataset_folder(str(self.images_folder), self.file_ending))
            labels = {case: self.labels_folder / f"{case}{self.file_ending}" for case in cases}
        return {
            case: RawCase(case, label, self.instances_folder / f"{case}{self.file_ending}")
            for case, label in labels.items()
        }

    def training_images(self) -> dict[str, list[Path]]:
        """The images of every training case, one for each channel, in the order of the channels."""
        if "dataset" in self.dataset_json:
            return {case: [Path(image) for image in entry["images"]] for case, entry in self._listed().items()}
        return self.images_in(self.images_folder.name)

    def images_in(self, name: str) -> dict[str, list[Path]]:
        """The images in a folder of the dataset such as ``imagesTs``, by case; empty without the folder."""
        found = channels_of_cases(self.folder / name, self.file_ending)
        return {case: list(channels.values()) for case, channels in found.items()}

    def _listed(self) -> dict[str, dict]:
        """What dataset.json lists for each case: ``images`` and ``label``, as absolute paths."""
        try:
            given = [entry["images"] for entry in self.dataset_json["dataset"].values()]
            if not given or not all(images and isinstance(images, list) for images in given):
                raise TypeError("a case without images, or no case")
            listed = get_filenames_of_train_images_and_targets(str(self.folder), self.dataset_json)
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.folder / 'dataset.json'}: 'dataset' is not in nnU-Net's format, "
                '{"case": {"images": [...], "label": "..."}}, with a file for each channel.'
            ) from error
        no_names = [repr(case) for case in listed if not is_file_name(case)]
        if no_names:
            raise InputError(
                f"{self.folder / 'dataset.json'}: 'dataset' has cases whose names are not file names: "
                f"{list_some(no_names)}. Files are named after the cases; leave out folders."
            )
        return listed

    def check_folders(self) -> list[str]:
        """Check that no image, label or instance map in the dataset's folders is skipped.

        Returns:
            Sentences about additional files, which belong to no training case.

        Raises:
            InputError: there is no training image; a file that looks like an image, a label or an instance map would be
                skipped; or nnU-Net would read a metadata file of macOS as an image.
        """
        cases = self.training_cases()
        notes, folders = [], [self.instances_folder]
        # Images and labels listed in dataset.json may have any names.
        if "dataset" not in self.dataset_json:
            refuse_macos_files(self.images_folder / case for case in cases)
            images = CaseFolder.of(self.images_folder, self.file_ending)
            images.require_cases("put the training images there, or correct file_ending in dataset.json.")
            images.refuse_lost()
            self._refuse_unnumbered(images)
            notes += [images.note]
            folders = [self.labels_folder, *folders]
        for found in (CaseFolder.of(folder, self.file_ending) for folder in folders if folder.is_dir()):
            found.refuse_lost()
            extra = sorted(set(found.files) - set(cases))
            notes += [found.note]
            notes += [f"{found.folder} holds files of no training case: {list_some(extra)}."] if extra else []
        return [note for note in notes if note]

    def _refuse_unnumbered(self, images: CaseFolder) -> None:
        """Refuse images without the number of their channel, of whose names nnU-Net would cut off the end."""
        numbered = {file for files in self.training_images().values() for file in files}
        if unnumbered := [file.name for file in images.files.values() if file not in numbered]:
            raise InputError(
                f"{images.folder} holds images whose names do not end with the number of a channel: "
                f"{list_some(unnumbered)}. nnU-Net expects names like case_0000{self.file_ending}."
            )

    def label_manager(self) -> LabelManager:
        """The label manager of the dataset's own labels.

        Raises:
            InputError: dataset.json declares no labels, or not in nnU-Net's format.
        """
        labels = self.dataset_json.get("labels")
        try:
            return LabelManager(dict(labels or ()), self.dataset_json.get("regions_class_order"))
        except (RuntimeError, AssertionError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.folder / 'dataset.json'} declares {f'the labels {labels}' if labels else 'no labels'}; "
                'nnU-Net maps names to numbers, as in "labels": {"background": 0, "lesion": 1}, and needs '
                '"regions_class_order" where a name has several numbers.'
            ) from error

    def reader(self) -> BaseReaderWriter:
        """An instance of the reader that nnU-Net chooses for the dataset."""
        cases = self.training_cases().values()
        images = sorted(self.images_folder.glob(f"*{self.file_ending}"))
        examples = [*images, *(case.label for case in cases), *(case.instances for case in cases)]
        return find_reader(self.dataset_json, examples)()

    def require_labels(self) -> list[RawCase]:
        """The training cases, each with a label.

        Raises:
            InputError: one has none.
        """
        cases = list(self.training_cases().values())
        missing = sorted(case.case for case in cases if not case.label.is_file())
        if missing:
            raise InputError(f"{len(missing)} training cases of {self.folder} have no label: {list_some(missing)}.")
        return cases

    def require_instances(self, cases: list[str]) -> list[RawCase]:
        """The given cases, each with an instance map.

        Raises:
            InputError: there is no ``instancesTr``, or cases in it are missing.
        """
        if not self.instances_folder.is_dir():
            raise InputError(
                f"{self.instances_folder} does not exist. Put one instance map per training case there (0 background, "
                "one positive id per lesion), or let `nnUNetv2_conflunet_prepare -d "
                f"{self.folder.name} --instances_from_labels` make them from the connected components of labelsTr."
            )
        known = self.training_cases()
        unknown = sorted(set(cases) - set(known))
        if unknown:
            raise InputError(
                f"{len(unknown)} preprocessed cases are no longer in {self.folder}: {list_some(unknown)}. Repeat "
                "nnUNetv2_plan_and_preprocess."
            )
        found = CaseFolder.of(self.instances_folder, self.file_ending)
        if missing := found.missing(cases):
            raise found.missing_error(
                f"{len(missing)} of {len(cases)} training cases have no instance map in {self.instances_folder}: "
                f"{list_some(missing)}. Expected names like {missing[0]}{self.file_ending}."
            )
        return [known[case] for case in sorted(cases)]
