"""Where the files of a case lie: its instance map, lesion table and heads, beside what nnU-Net writes of it."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import SimpleITK as sitk
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.whole_files import is_whole

# Beside nnU-Net's segmentations: the instance maps, lesion tables and saved heads of a prediction.
INSTANCES_FOLDER = "instances"


@dataclass(frozen=True)
class InstanceFiles:
    """The files of the instances of one case.

    Attributes:
        folder: where they lie.
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
        """The instance map. It is written last, so that its existence means that the case is done."""
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
        """Whether map and table are there and whole."""
        return is_whole(self.map) and is_whole(self.table)

    def remove(self) -> None:
        """Remove map and table, as far as they are there."""
        for path in (self.map, self.table):
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class OutputFiles:
    """The files of one predicted case, named after the segmentation that nnU-Net really writes.

    Attributes:
        segmentation: nnU-Net's segmentation.
        probabilities: nnU-Net's probabilities, where they are saved.
        instances: what is written beside them.
    """

    segmentation: Path
    probabilities: Path
    instances: InstanceFiles

    @classmethod
    def of(cls, output_file_truncated: str, file_ending: str, writer: type[BaseReaderWriter]) -> "OutputFiles":
        """The files of the case that nnU-Net is told to write to ``<output_file_truncated><file_ending>``.

        Args:
            output_file_truncated: as nnU-Net's methods take it.
            file_ending: the dataset's.
            writer: class of nnU-Net's reader/writer.

        Raises:
            InputError: the writer makes another format of that name.

        >>> files = OutputFiles.of("out/ms_001", ".nii.gz", SimpleITKIO)
        >>> str(files.segmentation), str(files.instances.table)
        ('out/ms_001.nii.gz', 'out/instances/ms_001.csv')
        """
        folder, name = Path(output_file_truncated).parent, Path(output_file_truncated).name
        written = _written_name(folder, name, file_ending, writer)
        if not written.lower().endswith(file_ending.lower()):
            raise InputError(
                f"{writer.__name__} writes the segmentation of case '{name}' to {written}, which is no {file_ending} "
                "file. Rename the case."
            )
        case, ending = written[: -len(file_ending)], written[-len(file_ending) :]
        instances = InstanceFiles(folder / INSTANCES_FOLDER, case, ending)
        return cls(folder / written, Path(f"{output_file_truncated}.npz"), instances)

    def are_whole(self, save_probabilities: bool) -> bool:
        """Whether all files are there and whole, with those of ``save_probabilities`` where they are asked for."""
        saved = [self.probabilities, self.instances.heads] if save_probabilities else []
        return self.instances.are_done() and all(map(is_whole, [self.segmentation, *saved]))


def check_distinct(files: list[OutputFiles]) -> None:
    """Raise an InputError for two cases that nnU-Net would write to one file."""
    for path, n_cases in Counter(of_case.segmentation for of_case in files).items():
        if n_cases > 1:
            raise InputError(f"Two cases would be written to {path}; rename one of them.")


def _written_name(folder: Path, name: str, file_ending: str, writer: type[BaseReaderWriter]) -> str:
    """What a writer makes of a name: ITK writes "a.nii.gz.nii.gz" and "a.nii.nii.gz" to "a.nii.gz"."""
    if "." not in name or not issubclass(writer, SimpleITKIO):
        return name + file_ending
    # It looks for ".gz" in the whole path.
    with TemporaryDirectory(suffix=".gz" if ".gz" in str(folder) else "") as probe:
        sitk.WriteImage(sitk.Image(1, 1, 1, sitk.sitkUInt8), os.path.join(probe, name + file_ending))
        return os.listdir(probe)[0]
