"""Reading the output of nnUNetv2_predict, or a plain folder of masks."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.imageio import Geometry, declared_labels, find_reader, read_labels, refuse_other_grid
from nnunetv2_conflunet.imageio.case_folder import CaseFolder, endings_of, first_file, read_dataset_json
from nnunetv2_conflunet.imageio.stored import refuse_beyond_memory
from nnunetv2_conflunet.imageio.unknown import unknown_id
from nnunetv2_conflunet.inference.case_files import InstanceFiles
from nnunetv2_conflunet.inference.instances import CaseHeads, CaseOutput
from nnunetv2_conflunet.inference.model_settings import ModelSettings
from nnunetv2_conflunet.inference.probability import foreground_probability, has_regions
from nnunetv2_conflunet.postprocessing.baselines.border_core import core_mask, has_cores
from nnunetv2_conflunet.postprocessing.settings import InstantiationSettings
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import read_json
from nnunetv2_conflunet.utilities.nnunet_folders import INSTANCES_FOLDER

# A model's files are next to its fold folders, two levels above the validation folder of a fold.
LEVELS_TO_MODEL = 2
# What a broken .npz raises; a single array in its place is no context manager.
UNREADABLE = AttributeError, TypeError, KeyError, ValueError, EOFError, OSError, MemoryError, BadZipFile, zlib.error


@dataclass(frozen=True)
class PredictionFolder:
    """A folder of segmentations, with the other files of the prediction.

    Attributes:
        folder: the folder.
        file_ending: of the segmentations.
        reader: class of nnU-Net's reader/writer.
        labels: of dataset.json, empty without one.
        plans: of the model, empty without them.
        heads_folder: the original prediction, with probabilities and heads; the same folder unless the segmentations
            were postprocessed into another folder.
        unknown: the dataset's id of unknown instances, if dataset.json declares one.
    """

    folder: Path
    file_ending: str
    reader: type[BaseReaderWriter]
    labels: dict
    plans: dict
    heads_folder: Path
    unknown: int | None = None

    @classmethod
    def open(cls, folder: Path, heads_folder: Path | None = None) -> "PredictionFolder":
        """Determine how the files of a folder are read.

        dataset.json and plans.json are those in the folder, in `heads_folder`, or up to two levels above them (a fold's
        validation folder). Without dataset.json the folder must hold files of one image format.

        Args:
            folder: the segmentations.
            heads_folder: the original prediction, if nnUNetv2_apply_postprocessing wrote the segmentations into a
                separate folder. Default: `folder`.

        Raises:
            InputError: a folder does not exist, holds no segmentations or several formats, or holds entries that look
                like segmentations and would be skipped.
        """
        heads_folder = heads_folder or folder
        places = folder, heads_folder
        for path in places:
            if not path.is_dir():
                raise InputError(f"{path} is not a folder; give the output folder of nnUNetv2_predict.")
        above = [parent for place in places for parent in place.resolve().parents[:LEVELS_TO_MODEL]]
        dataset_file = first_file([*places, *above], "dataset.json")
        plans_file = first_file([*places, *above], "plans.json")
        dataset_json: dict = read_dataset_json(dataset_file) if dataset_file else {"file_ending": _only_ending(folder)}
        plans = read_json(plans_file) if plans_file else {}
        # Refuses what is no dictionary.
        ModelSettings.from_plans(plans)
        segmentations = CaseFolder.of(folder, dataset_json["file_ending"])
        segmentations.require_cases("give the output of nnUNetv2_predict.")
        segmentations.refuse_lost()
        if "image_reader_writer" in plans:
            dataset_json |= {"overwrite_image_reader_writer": plans["image_reader_writer"]}
        reader = find_reader(dataset_json, segmentations.files.values())
        labels, unknown = dataset_json.get("labels", {}), unknown_id(dataset_json)
        return cls(folder, segmentations.file_ending, reader, labels, plans, heads_folder, unknown)

    def case_folder(self) -> CaseFolder:
        """The segmentations that are there now."""
        return CaseFolder.of(self.folder, self.file_ending)

    def cases(self) -> list[str]:
        """Names of the segmentations without the file ending, sorted."""
        return list(self.case_folder().files)

    def settings(self) -> InstantiationSettings:
        """The settings of the model that made the prediction, or the defaults if it has none."""
        return ModelSettings.from_plans(self.plans).instantiation

    def segmentation_file(self, case: str) -> Path:
        """The segmentation of a case."""
        return self.folder / (case + self.file_ending)

    def probability_file(self, case: str) -> Path:
        """Where --save_probabilities puts the probabilities of a case; an ensemble has its own next to its masks."""
        own = self.folder / f"{case}.npz"
        return own if own.is_file() else self.heads_folder / f"{case}.npz"

    def heads_file(self, case: str) -> Path:
        """Where --save_probabilities puts the heads of a case."""
        return InstanceFiles(self.heads_folder / INSTANCES_FOLDER, case, self.file_ending).heads

    def saved_file(self, case: str, method: str) -> Path:
        """What --save_probabilities keeps of a case for ``acls`` or ``center_offset``."""
        return self.probability_file(case) if method == "acls" else self.heads_file(case)

    def has_saved(self, method: str) -> bool:
        """Whether any case has its :meth:`saved_file`."""
        return any(self.saved_file(case, method).is_file() for case in self.cases())

    def check_method(self, method: str) -> None:
        """Raise an InputError if no case has the input for a method; it names the folder and the remedy."""
        folder = self.heads_folder
        if method == "acls" and not self.has_saved(method):
            raise InputError(f"{folder} holds no probabilities; predict with --save_probabilities or use -m cc.")
        if method == "center_offset" and not self.has_saved(method):
            raise InputError(
                f"{folder} holds no heads; predict with a ConfLUNet trainer and --save_probabilities, or use -m cc or "
                "-m acls. If the masks were postprocessed or ensembled into another folder, give the "
                "prediction's folder with --heads."
            )
        if method == "border_core" and not has_cores(self.labels):
            raise InputError(
                f"{folder} holds no cores and borders: its dataset.json declares "
                f"{list_some(list(self.labels)) or 'no labels'}. Predict with a model trained on the dataset that "
                "`nnUNetv2_conflunet_prepare --border_core` writes, or use another method."
            )

    def read_case(self, case: str, method: str) -> CaseOutput:
        """Read the input of a method, and the probabilities if there are any.

        Raises:
            InputError: a file is missing, broken or has a different shape.
        """
        segmentation, properties = self.read_segmentation(case)
        needed = method == "acls" or self.probability_file(case).is_file()
        probability = self.read_probability(case, segmentation.shape) if needed else None
        heads = self.read_heads(case) if method == "center_offset" else None
        core = core_mask(segmentation, self.labels)
        foreground = self.foreground(segmentation)
        return CaseOutput(segmentation, foreground, properties, probability, heads, core, self.unknown)

    def read_segmentation(self, case: str) -> tuple[np.ndarray, dict]:
        """The segmentation of a case, (X, Y, Z) int32, and the reader's properties.

        Raises:
            InputError: the file cannot be used, or holds a value not declared in dataset.json.
        """
        return read_labels(self.segmentation_file(case), self.reader(), declared_labels(self.labels))

    def read_segmentation_on_grid_of(self, case: str, path: Path, grid: Geometry) -> tuple[np.ndarray, Geometry]:
        """The segmentation of a case, (X, Y, Z) int32, and its grid, which must be that of another file.

        Args:
            case: its name.
            path: the other file.
            grid: of that file.

        Raises:
            InputError: as for :meth:`read_segmentation`, or the grids differ.
        """
        segmentation, properties = self.read_segmentation(case)
        own_grid = Geometry.from_properties(segmentation.shape, properties)
        refuse_other_grid(self.segmentation_file(case), own_grid, path, grid, self.reader())
        return segmentation, own_grid

    def read_probability(self, case: str, shape: tuple[int, ...]) -> np.ndarray:
        """The probability of any foreground label, as saved by --save_probabilities, of a segmentation's `shape`.

        Raises:
            InputError: the file is missing or broken, or of another shape or number of channels.
        """
        file = self.probability_file(case)
        (channels,) = _read_npz(file, ["probabilities"])
        if channels.shape[1:] != shape:
            raise InputError(
                f"{file} holds probabilities of shape {channels.shape[1:]} but the segmentation has {shape}; both must "
                "come from the same prediction."
            )
        declared = len(self.labels.keys() - {"ignore", "background" if has_regions(self.labels) else ""})
        if len(channels) != (declared or max(len(channels), 2)):
            raise InputError(
                f"{file} holds {len(channels)} channels, not {declared or 'two or more'}: one of each label in "
                "dataset.json, also of the background, or one of each region."
            )
        return foreground_probability(channels, self.labels)

    def foreground(self, segmentation: np.ndarray) -> np.ndarray:
        """Where a segmentation has a label that is neither background nor the dataset's ignore label."""
        return (segmentation != 0) & (segmentation != self.labels.get("ignore", 0))

    def read_heads(self, case: str) -> CaseHeads:
        """The heads of a case, as saved by --save_probabilities.

        Raises:
            InputError: the file is missing or broken.
        """
        return CaseHeads(*_read_npz(self.heads_file(case), ["heatmap", "offsets_mm", "crop"]))


def _read_npz(path: Path, names: list[str]) -> list[np.ndarray]:
    """The arrays with these names."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; predict with --save_probabilities.")
    try:
        # Pickled objects could execute code. NumPy rejects them by default; this makes sure that it does.
        with np.load(path, allow_pickle=False) as stored:
            refuse_beyond_memory(path, sum(array.file_size for array in stored.zip.infolist()), "arrays")
            arrays = [stored[name] for name in names]
        for array in arrays:
            if array.dtype.kind not in "biuf":
                raise ValueError(f"{array.dtype} instead of real numbers")
        return arrays
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}); predict this case again."
        ) from error


def _only_ending(folder: Path) -> str:
    found = endings_of(folder)
    if len(found) != 1:
        what = f"files of several formats ({list_some(found)})" if found else "no images that nnU-Net reads"
        raise InputError(f"{folder} holds no dataset.json and {what}; give a folder of masks of one format.")
    return found[0]
