"""A folder of instance maps, written in the format of another program."""

from pathlib import Path
from typing import NamedTuple, Protocol

from nnunetv2_conflunet.formats.bids import Bids
from nnunetv2_conflunet.formats.dicom_series import series_folders
from nnunetv2_conflunet.formats.dicomseg import DicomSeg
from nnunetv2_conflunet.formats.itksnap import ItkSnap
from nnunetv2_conflunet.formats.lesions import CaseLesions, open_instances, read_lesions
from nnunetv2_conflunet.formats.settings import ExportSettings, require_extra
from nnunetv2_conflunet.formats.slicer import Slicer
from nnunetv2_conflunet.inference.prediction_folder import PredictionFolder
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.nnunet_folders import INSTANCES_FOLDER
from nnunetv2_conflunet.utilities.parallel import try_cases
from nnunetv2_conflunet.utilities.writable import require_writable


class Format(Protocol):
    """What every format offers."""

    def files(self, case: str) -> list[Path]:
        """The files of a case, relative to the output folder."""

    def write(self, lesions: CaseLesions, output: Path) -> str | None:
        """Write the files of a case: all of them, or none and the reason why there is nothing to write."""


class Exported(NamedTuple):
    """What became of a case: its number of lesions, and why nothing was written, if so."""

    n_lesions: int
    note: str | None


def export_folder(
    folder: Path, output: Path, settings: ExportSettings, *, num_processes: int = 1, overwrite: bool = False
) -> tuple[dict[str, Exported], dict[str, str]]:
    """Write every case of a folder in the format of another program.

    Names, series and the output folder are checked before the first case is read. The files of a case appear together.

    Args:
        folder: a prediction, or a folder of instance maps; lesion tables beside the maps are taken over.
        output: folder to write to.
        settings: the format, and what it needs.
        num_processes: worker processes.
        overwrite: replace files that exist.

    Returns:
        What became of each case, and the fault of each case that failed.

    Raises:
        InputError: there are no maps, cases cannot be named, a package is missing, or files exist.
    """
    require_extra(settings.format)
    prediction = open_instances(folder)
    found = prediction.case_folder()
    if found.note:
        print(found.note)
    chosen = _format(settings, prediction.cases())
    files = {case: [output / file for file in chosen.files(case)] for case in found.files}
    inputs = [folder, prediction.folder, *(chosen.series.values() if isinstance(chosen, DicomSeg) else ())]
    if prediction.folder.name == INSTANCES_FOLDER:
        # There are nnU-Net's segmentations, which are named like the maps.
        inputs.append(prediction.folder.absolute().parent)
    if output.resolve() in [one.resolve() for one in inputs]:
        raise InputError(f"-o {output} is an input folder; give another one.")
    existing = [str(file) for of_case in files.values() for file in of_case if file.exists()]
    if existing and not overwrite:
        raise InputError(f"{list_some(existing, limit=3)} exist; give another folder, or --overwrite.")
    require_writable(*(file for of_case in files.values() for file in of_case))
    if isinstance(chosen, Bids):
        chosen.prepare(output)
    calls = {case: (prediction, case, chosen, output) for case in files}
    # One broken case must not stop the others.
    return try_cases(_export, calls, num_processes, "Export", survived=Exception)


def _format(settings: ExportSettings, cases: list[str]) -> Format:
    if settings.format == "bids":
        return Bids.of(cases, settings)
    if settings.series is not None:
        # The settings require it for DICOM SEG, and refuse it otherwise.
        return DicomSeg(series_folders(cases, settings.series))
    return Slicer() if settings.format == "slicer" else ItkSnap()


def _export(prediction: PredictionFolder, case: str, chosen: Format, output: Path) -> Exported:
    lesions = read_lesions(prediction, case)
    return Exported(len(lesions.names), chosen.write(lesions, output))
