"""Pairing of the files in two folders."""

from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.imageio.case_folder import (
    CaseFolder,
    endings_of,
    find_reader,
    first_file,
    read_dataset_json,
)
from nnunetv2_conflunet.imageio.unknown import unknown_id
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import read_json
from nnunetv2_conflunet.utilities.nnunet_folders import INSTANCES_FOLDER, TRAINING_INSTANCES

REFERENCE_SUBFOLDERS = (TRAINING_INSTANCES, INSTANCES_FOLDER)
PREDICTION_SUBFOLDERS = (f"validation/{INSTANCES_FOLDER}", INSTANCES_FOLDER)
# A model's dataset.json is next to its fold folders, two levels above a fold's validation folder.
LEVELS_TO_DATASET_JSON = 4


@dataclass(frozen=True)
class Pair:
    """One case: its reference file and its prediction, if any."""

    case: str
    reference: Path
    prediction: Path | None


@dataclass(frozen=True)
class Pairing:
    """All cases of an evaluation.

    Attributes:
        pairs: sorted by case.
        extra: cases with a prediction but no reference.
        reader: class of the reader for all files.
        file_ending: such as ``.nii.gz``.
        notes: entries that look like images and are skipped, one sentence per folder.
        unknown: the id of unknown instances in the references, if dataset.json declares one.
    """

    pairs: list[Pair]
    extra: list[str]
    reader: type[BaseReaderWriter]
    file_ending: str
    notes: list[str] = field(default_factory=list)
    unknown: int | None = None

    @property
    def missing(self) -> list[str]:
        """Cases without a prediction."""
        return [pair.case for pair in self.pairs if pair.prediction is None]


def pair_folders(reference: Path, prediction: Path, dataset_json: Path | None = None) -> Pairing:
    """Pair the instance maps of two folders by exact case id, the file name without its ending.

    Args:
        reference: a folder of instance maps, or a dataset folder that holds ``instancesTr``.
        prediction: a folder of instance maps, or one that holds them in ``instances`` (the output of nnUNetv2_predict,
            a validation folder, the folder of a fold). For a validation folder with nnU-Net's ``summary.json`` the
            cases of that file are expected, otherwise all of `reference`.
        dataset_json: names file ending and reader, and may declare the references' id of unknown instances. Default:
            the dataset.json near either folder, else the only ending common to both folders.

    Raises:
        InputError: a folder does not exist or holds no instance maps, or the file ending is unknown.
    """
    for folder in (reference, prediction):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder; give the folder of the instance maps.")
    reference_folder = with_subfolder(reference, REFERENCE_SUBFOLDERS)
    prediction_folder = with_subfolder(prediction, PREDICTION_SUBFOLDERS)
    content = _dataset_json(dataset_json, reference_folder, prediction_folder)
    ending = content["file_ending"] if content else _shared_ending(reference_folder, prediction_folder)
    references, predictions = CaseFolder.of(reference_folder, ending), CaseFolder.of(prediction_folder, ending)
    references.require_cases("give the folder of the references.")
    expected = cases_of_validation(prediction_folder, ending)
    if expected is None:
        references.refuse_lost()
        expected = list(references.files)
    if unknown := references.missing(expected):
        raise references.missing_error(
            f"{reference_folder} has no instance map of the validation cases {list_some(unknown)}."
        )
    pairs = [Pair(case, references.files[case], predictions.files.get(case)) for case in expected]
    extra = sorted(set(predictions.files) - set(expected))
    reader = find_reader(content or {"file_ending": ending}, [pair.reference for pair in pairs])
    notes = [folder.note for folder in (references, predictions) if folder.note]
    return Pairing(pairs, extra, reader, ending, notes, unknown_id(content or {}))


def with_subfolder(folder: Path, names: tuple[str, ...]) -> Path:
    """The first of these folders within `folder` that exists, or else `folder`.

    >>> with_subfolder(Path("absent"), ("instances",)).name
    'absent'
    """
    return next((folder / name for name in names if (folder / name).is_dir()), folder)


def cases_of_validation(folder: Path, ending: str) -> list[str] | None:
    """The cases of a fold that nnU-Net's summary.json names, sorted; None without that file, or for another folder.

    Args:
        folder: ``validation``, or the folder of its instance maps.
        ending: of the segmentations.

    Raises:
        InputError: the file names no cases.

    >>> cases_of_validation(Path("absent"), ".nii.gz") is None
    True
    """
    validation = folder.parent if folder.name == INSTANCES_FOLDER else folder
    summary = validation / "summary.json"
    if validation.name != "validation" or not summary.is_file():
        return None
    try:
        entries = read_json(summary)["metric_per_case"]
        cases = sorted({Path(entry["prediction_file"]).name.removesuffix(ending) for entry in entries})
    except (KeyError, TypeError):
        cases = []
    if not cases:
        raise InputError(
            f"{summary} does not name the cases of a validation by nnU-Net; validate the fold again, or move it away."
        )
    return cases


def _dataset_json(given: Path | None, reference_folder: Path, prediction_folder: Path) -> dict | None:
    if given is not None and not given.is_file():
        raise InputError(f"{given} does not exist; give the dataset.json of the dataset.")
    nearby = [reference_folder.absolute().parent, reference_folder, prediction_folder]
    nearby += list(prediction_folder.absolute().parents)[:LEVELS_TO_DATASET_JSON]
    file = given or first_file(nearby, "dataset.json")
    return None if file is None else read_dataset_json(file)


def _shared_ending(reference_folder: Path, prediction_folder: Path) -> str:
    found = endings_of(reference_folder, prediction_folder)
    if len(found) != 1:
        seen = f"both hold files with {', '.join(found)}" if found else "they have no file format of nnU-Net in common"
        raise InputError(
            f"The format of the instance maps in {reference_folder} and {prediction_folder} is not clear: {seen}. Name "
            "the dataset.json with -djfile, or check the folders."
        )
    return found[0]
