"""Where the files of a predicted case lie."""

import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import SimpleITK as sitk
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_conflunet.inference.case_files import INSTANCES_FOLDER, case_is_done
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.whole_files import is_whole


@dataclass(frozen=True)
class OutputFiles:
    """The files of one case, named after the segmentation that nnU-Net really writes.

    Attributes:
        segmentation: nnU-Net's segmentation.
        probabilities: nnU-Net's probabilities, where they are saved.
        case: name of the instance files without their endings.
        file_ending: of segmentation and instance map.
    """

    segmentation: Path
    probabilities: Path
    case: str
    file_ending: str

    @classmethod
    def of(cls, output_file_truncated: str, file_ending: str, writer: type[BaseReaderWriter]) -> "OutputFiles":
        """The files of the case that nnU-Net is told to write to ``<output_file_truncated><file_ending>``.

        Args:
            output_file_truncated: as nnU-Net's methods take it.
            file_ending: the dataset's.
            writer: class of nnU-Net's reader/writer.

        Raises:
            InputError: the writer makes another format of that name.
        """
        folder, name = Path(output_file_truncated).parent, Path(output_file_truncated).name
        written = _written_name(folder, name, file_ending, writer)
        if not written.lower().endswith(file_ending.lower()):
            raise InputError(
                f"{writer.__name__} writes the segmentation of case '{name}' to {written}, which is no {file_ending} "
                "file. Rename the case."
            )
        case, ending = written[: -len(file_ending)], written[-len(file_ending) :]
        return cls(folder / written, Path(f"{output_file_truncated}.npz"), case, ending)

    @property
    def folder(self) -> Path:
        """Where the instances go."""
        return self.segmentation.parent / INSTANCES_FOLDER

    @property
    def heads(self) -> Path:
        """Where ``save_probabilities`` keeps the heads."""
        return self.folder / f"{self.case}.npz"

    def are_whole(self, save_probabilities: bool) -> bool:
        """Whether all files are there and whole, with those of ``save_probabilities`` where they are asked for."""
        written = [self.segmentation, *([self.probabilities, self.heads] if save_probabilities else [])]
        return case_is_done(self.folder, self.case, self.file_ending) and all(map(is_whole, written))


def check_distinct(files: list[OutputFiles]) -> None:
    """Raise an InputError for two cases that nnU-Net would write to one file."""
    found: set[Path] = set()
    for path in (i.segmentation for i in files):
        if path in found:
            raise InputError(f"Two cases would be written to {path}; rename one of them.")
        found.add(path)


def _written_name(folder: Path, name: str, file_ending: str, writer: type[BaseReaderWriter]) -> str:
    """What a writer makes of a name: ITK writes "a.nii.gz.nii.gz" and "a.nii.nii.gz" to "a.nii.gz"."""
    if "." not in name or not issubclass(writer, SimpleITKIO):
        return name + file_ending
    # It looks for ".gz" in the whole path.
    with TemporaryDirectory(suffix=".gz" if ".gz" in str(folder) else "") as probe:
        sitk.WriteImage(sitk.Image(1, 1, 1, sitk.sitkUInt8), os.path.join(probe, name + file_ending))
        return os.listdir(probe)[0]
