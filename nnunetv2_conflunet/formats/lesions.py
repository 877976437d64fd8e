"""The lesions of one case as other programs take them: voxels in the axes of the file, table, names and colors."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from nnunetv2_conflunet.evaluation.cohort.pairing import PREDICTION_SUBFOLDERS, with_subfolder
from nnunetv2_conflunet.formats.case_table import read_texts
from nnunetv2_conflunet.formats.colors import lesion_colors
from nnunetv2_conflunet.imageio import Geometry, read_instances
from nnunetv2_conflunet.imageio.geometry import LPS_TO_RAS, in_file_order
from nnunetv2_conflunet.inference.case_files import InstanceFiles
from nnunetv2_conflunet.inference.lesion_table import as_csv, lesion_table
from nnunetv2_conflunet.inference.prediction_folder import PredictionFolder
from nnunetv2_conflunet.inference.probability import has_regions
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import atomic_path
from nnunetv2_conflunet.utilities.nnunet_folders import TRAINING_INSTANCES

# What nnU-Net's readers put in the place of a spacing across a plane.
PLACEHOLDER_MM = 999.0
DEFAULT_NAME = "lesion"
# Longer names do not fit into a DICOM SEG together with the id.
LONGEST_NAME = 40
ROUNDING_MM = 1e-3


@dataclass(frozen=True, eq=False)
class CaseLesions:
    """The lesions of one case.

    Attributes:
        case: its name.
        ids: (I, J, K) int32, 0 is background; axes as in the file, fastest first, as viewers show them.
        affine: (4, 4), voxel index -> position in mm, x to the right, y to the front, z to the top (RAS).
        has_position: whether the file knows where the voxels are; if not (PNG, TIFF), `affine` is what ITK takes.
        table: one row for each lesion, ascending by id; every cell is text, as in the CSV file.
        names: such as ``lesion 1``, in the order of the table.
        colors: (N, 3) uint8, red, green and blue.
    """

    case: str
    ids: np.ndarray
    affine: np.ndarray
    has_position: bool
    table: pd.DataFrame
    names: list[str]
    colors: np.ndarray

    @property
    def numbers(self) -> list[int]:
        """The id of each lesion."""
        return self.table["id"].astype(int).tolist()

    def write_nifti(self, path: Path, beside: Mapping[Path, str]) -> None:
        """Write the map as NIfTI, together with other files: all or none."""
        dtype = np.uint16 if self.ids.max(initial=0) < 2**16 else np.uint32
        image = nibabel.Nifti1Image(self.ids.astype(dtype), self.affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(self.affine, 1)
        image.set_qform(self.affine, 1)
        if not np.allclose(image.get_qform(), self.affine, atol=ROUNDING_MM):
            # A quaternion cannot describe sheared axes.
            image.set_qform(None, 0)
        with atomic_path(path, ".nii.gz", beside) as temporary:
            nibabel.save(image, temporary)


def open_instances(folder: Path) -> PredictionFolder:
    """The folder of instance maps in a prediction, a fold, a raw dataset, or the folder itself.

    Raises:
        InputError: there are no instance maps, or their format is not clear.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the output of nnUNetv2_predict or a folder of instance maps.")
    inside = with_subfolder(folder, (*PREDICTION_SUBFOLDERS, TRAINING_INSTANCES))
    if inside == folder and (folder / "plans.json").is_file():
        raise InputError(
            f"{folder} holds the segmentations of nnUNetv2_predict but no instance maps; make them with "
            "nnUNetv2_conflunet_instantiate and give its output folder."
        )
    return PredictionFolder.open(inside, folder)


def read_lesions(prediction: PredictionFolder, case: str) -> CaseLesions:
    """Read the instance map of a case and its lesion table, which is computed if there is none.

    Raises:
        InputError: the map or the table cannot be used, or they disagree.
    """
    files = InstanceFiles(prediction.folder, case, prediction.file_ending)
    instances, properties = read_instances(files.map, prediction.reader())
    geometry = Geometry.from_properties(instances.shape, properties)
    table = _table(files, instances, geometry, prediction.labels)
    # A region is only a part of a lesion.
    declared = {} if has_regions(prediction.labels) else prediction.labels
    names = {value: name for name, value in declared.items() if isinstance(value, int)}
    labels = table["label"] if "label" in table else [""] * len(table)
    return CaseLesions(
        case=case,
        ids=in_file_order(instances, properties).T,
        affine=_affine(geometry),
        has_position=geometry.world != "none",
        table=table,
        names=[f"{_name(names, label)} {i}" for i, label in zip(table["id"], labels, strict=True)],
        colors=lesion_colors(instances),
    )


def _affine(geometry: Geometry) -> np.ndarray:
    affine = geometry.affine.copy()
    if geometry.world == "none":
        if geometry.is_plane and geometry.spacing_mm[0] == PLACEHOLDER_MM:
            affine[:3, 0] /= PLACEHOLDER_MM
        # ITK takes the axes of a file without orientation for left, back and top.
        affine[:3] = LPS_TO_RAS @ affine[:3]
    return affine @ np.linalg.inv(geometry.file_index)


def _table(files: InstanceFiles, instances: np.ndarray, geometry: Geometry, labels: dict) -> pd.DataFrame:
    if not files.table.is_file():
        computed = lesion_table(instances, geometry).drop(columns="label")
        # An instance map alone does not say which of several labels a lesion has.
        foreground = [label for name, label in labels.items() if name not in ("background", "ignore")]
        if len(foreground) == 1 and isinstance(foreground[0], int):
            computed.insert(1, "label", foreground[0])
        return pd.read_csv(io.StringIO(as_csv(computed)), dtype=str, keep_default_na=False)
    table = read_texts(files.table)
    remedy = "Make the instances again, or remove the table; it is computed then."
    if "id" not in table or not table["id"].str.fullmatch("[0-9]{1,18}").all():
        raise InputError(f"{files.table} has no column id with a whole number in each row. {remedy}")
    table = table.sort_values("id", key=lambda ids: ids.astype(int), ignore_index=True)
    found, listed = np.unique(instances[instances != 0]).tolist(), table["id"].astype(int).tolist()
    if found != listed:
        differing = list_some(sorted({*found} ^ {*listed}) or listed)
        raise InputError(
            f"{files.table} does not list the lesions of {files.map.name}: they differ in {differing}. " + remedy
        )
    return table


def _name(names: Mapping[int, str], label: str) -> str:
    """What dataset.json calls a label, without signs that have a meaning in one of the formats."""
    name = names.get(int(label), DEFAULT_NAME) if label.isdecimal() else DEFAULT_NAME
    return re.sub(r"[^\w ()+.-]", " ", name)[:LONGEST_NAME].strip() or DEFAULT_NAME
