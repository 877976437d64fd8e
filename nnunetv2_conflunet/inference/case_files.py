"""Paths of a case's files: instance map, lesion table and heads, next to the files that nnU-Net writes."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import SimpleITK as sitk
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_conflunet.postprocessing.settings import InstantiationSettings
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import read_json, write_json
from nnunetv2_conflunet.utilities.nnunet_folders import INSTANCES_FOLDER
from nnunetv2_conflunet.utilities.whole_files import is_whole

# In the folder of a prediction's instances, how they are made.
PREDICTION_RECORD = "prediction.json"


@dataclass(frozen=True)
class InstanceFiles:
    """The files of the instances of one case.

    Attributes:
        folder: their folder.
        case: their name without endings.
        file_ending: of the map, such as ``.nii.gz``.

    >>> InstanceFiles(Path("out/instances"), "ms_001", ".nii.gz").map.name
    'ms_001.nii.gz'
    """

    folder: Path
    case: str
    file_ending: str

    @property
    def map(self) -> Path:
        """The instance map. It is written last, so its existence means that the case is done."""
        return self.folder / (self.case + self.file_ending)

    @property
    def table(self) -> Path:
        """The lesion table."""
        return self.folder / f"{self.case}.csv"

    @property
    def heads(self) -> Path:
        """Where ``save_probabilities`` keeps the heads."""
        return self.folder / f"{self.case}.npz"

    def are_done(self) -> bool:
        """Whether map and table exist and are complete."""
        return is_whole(self.map) and is_whole(self.table)

    def remove(self) -> None:
        """Remove map and table, if they exist."""
        for path in (self.map, self.table):
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class OutputFiles:
    """The files of one predicted case, named after the segmentation that nnU-Net actually writes.

    Attributes:
        segmentation: nnU-Net's segmentation.
        probabilities: nnU-Net's probabilities, if saved.
        instances: the files of the instances.
    """

    segmentation: Path
    probabilities: Path
    instances: InstanceFiles

    @classmethod
    def of(cls, output_file_truncated: str, file_ending: str, writer: type[BaseReaderWriter]) -> "OutputFiles":
        """The files of the case that nnU-Net is told to write to ``<output_file_truncated><file_ending>``.

        Args:
            output_file_truncated: as in nnU-Net's methods.
            file_ending: the dataset's.
            writer: class of nnU-Net's reader/writer.

        Raises:
            InputError: the writer would write another format under that name.

        >>> files = OutputFiles.of("out/ms_001", ".nii.gz", SimpleITKIO)
        >>> str(files.segmentation), str(files.instances.table)
        ('out/ms_001.nii.gz', 'out/instances/ms_001.csv')
        """
        folder, name = Path(output_file_truncated).parent, Path(output_file_truncated).name
        written = _written_name(folder, name, file_ending, writer)
        if not written.lower().endswith(file_ending.lower()):
            raise InputError(
                f"{writer.__name__} writes the segmentation of case '{name}' to {written}, which is not a "
                f"{file_ending} file. Rename the case."
            )
        case, ending = written[: -len(file_ending)], written[-len(file_ending) :]
        instances = InstanceFiles(folder / INSTANCES_FOLDER, case, ending)
        return cls(folder / written, Path(f"{output_file_truncated}.npz"), instances)

    def are_whole(self, save_probabilities: bool) -> bool:
        """Whether all files exist and are complete, including those of ``save_probabilities`` if requested."""
        saved = [self.probabilities, self.instances.heads] if save_probabilities else []
        return self.instances.are_done() and all(map(is_whole, [self.segmentation, *saved]))


def check_distinct(files: list[OutputFiles]) -> None:
    """Raise an InputError if nnU-Net would write two cases to the same file."""
    for path, n_cases in Counter(of_case.segmentation for of_case in files).items():
        if n_cases > 1:
            raise InputError(f"Two cases would be written to {path}; rename one of them.")


def record_settings(files: Sequence[OutputFiles], settings: InstantiationSettings, continued: bool) -> None:
    """Record beside the instances of a prediction how they are made.

    Args:
        files: of the cases to predict.
        settings: how their instances are made.
        continued: finished cases stay; these must have been made in the same way.

    Raises:
        InputError: they were made by other settings.
    """
    for folder in dict.fromkeys(of_case.instances.folder for of_case in files):
        record = folder / PREDICTION_RECORD
        if continued and record.is_file():
            stored = read_json(record)
            before = InstantiationSettings.completed(stored if isinstance(stored, dict) else {})
            if differing := [name for name, value in settings.to_dict().items() if before[name] != value]:
                raise InputError(
                    f"{folder} holds instances made with another {list_some(differing)} than the model has now. "
                    "Predict without --continue_prediction, or into another folder."
                )
        write_json(settings.to_dict(), record)


def _written_name(folder: Path, name: str, file_ending: str, writer: type[BaseReaderWriter]) -> str:
    """The name under which a writer saves a file: ITK writes "a.nii.gz.nii.gz" and "a.nii.nii.gz" to "a.nii.gz"."""
    if "." not in name or not issubclass(writer, SimpleITKIO):
        return name + file_ending
    # ITK looks for ".gz" in the whole path.
    with TemporaryDirectory(suffix=".gz" if ".gz" in str(folder) else "") as probe:
        sitk.WriteImage(sitk.Image(1, 1, 1, sitk.sitkUInt8), os.path.join(probe, name + file_ending))
        return os.listdir(probe)[0]
