"""A page of contact sheets of a folder of instance maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet import __version__
from nnunetv2_conflunet.evaluation.cohort.pairing import PREDICTION_SUBFOLDERS, with_subfolder
from nnunetv2_conflunet.evaluation.report.sheets.case_sheet import SheetInput, case_sheet
from nnunetv2_conflunet.inference.case_files import InstanceFiles
from nnunetv2_conflunet.inference.prediction_folder import PredictionFolder
from nnunetv2_conflunet.pictures.images import images_of_cases
from nnunetv2_conflunet.pictures.pages import explain_planes, render_page
from nnunetv2_conflunet.pictures.sections import Section
from nnunetv2_conflunet.utilities.errors import InputError, list_lines, list_some
from nnunetv2_conflunet.utilities.parallel import try_cases

TITLE = "Predicted lesions: "


@dataclass(frozen=True)
class PredictedCases:
    """The instance maps of a prediction, found but not read.

    Attributes:
        folder: as the user named it.
        reader: class of the reader of all files.
        files: of each case.
    """

    folder: Path
    reader: type[BaseReaderWriter]
    files: list[SheetInput]


def find_prediction(folder: Path, images: Path | None = None, cases: Sequence[str] | None = None) -> PredictedCases:
    """Find the instance maps and images of a prediction.

    Args:
        folder: the output of nnUNetv2_predict, a validation folder or the folder of a fold, or a folder of instance
            maps such as instancesTr.
        images: folder of the images in nnU-Net's naming; None draws the lesions on black.
        cases: which to show; None shows all.

    Raises:
        InputError: there are no instance maps, a case is not among them or has no image.
    """
    maps = with_subfolder(folder, PREDICTION_SUBFOLDERS)
    if maps == folder and (folder / "dataset.json").is_file():
        raise InputError(
            f"{folder} holds no instances; let nnUNetv2_conflunet_instantiate make them of its masks, and report the "
            "folder that it writes."
        )
    prediction = PredictionFolder.open(maps)
    found = prediction.case_folder().files
    if unknown := sorted(set(cases or ()) - set(found)):
        raise InputError(f"{maps} has no instance maps of {list_some(unknown)}; it has {list_some(list(found))}.")
    shown, files = list(cases or found), []
    backgrounds = {} if images is None else images_of_cases(images, shown, prediction.file_ending)
    for case in shown:
        table = InstanceFiles(maps, case, prediction.file_ending).table
        files.append(SheetInput(case, found[case], table if table.is_file() else None, backgrounds.get(case)))
    return PredictedCases(folder, prediction.reader, files)


def make_sheets(found: PredictedCases, channel: int = 0, num_processes: int = 1) -> str:
    """One self-contained HTML page with a contact sheet of each case.

    Args:
        found: the cases.
        channel: of the images, from 0.
        num_processes: worker processes.

    Raises:
        InputError: names every case with a file that cannot be used.
    """
    arguments = {one.case: (one, channel, found.reader) for one in found.files}
    sheets, faults = try_cases(case_sheet, arguments, num_processes, "Drawing sheets")
    if faults:
        listed = list_lines([f"{case}: {fault}" for case, fault in faults.items()])
        raise InputError(f"{len(faults)} of {len(found.files)} cases cannot be shown:\n{listed}")
    cases = list(sheets.values())
    shown = [section for case in cases for section in case["sections"]]
    return render_page(
        __package__,
        "sheets.html.jinja",
        title=f"{TITLE}{found.folder.resolve().name}",
        subtitle=f"nnunetv2_conflunet {__version__}; {len(cases)} cases, {_background(found, channel)}",
        explanation=_explanation(shown),
        cases=cases,
    )


def _background(found: PredictedCases, channel: int) -> str:
    return "without images" if found.files[0].images is None else f"channel {channel} of the images"


def _explanation(sections: list[Section]) -> str:
    colors = "Each lesion has an outline along its voxels; lesions that touch differ in color. "
    known = any(any(section.letters) for section in sections)
    world = "x, y, z are RAS in mm: to the right, to the front, to the top; " if known else ""
    return (
        f"{explain_planes(sections)}{colors}{world}i, j, k are voxels of the file, from 0. Centers are centers of mass."
    )
