"""One instance map: checked against its label, then brought to the grid of nnU-Net's preprocessed segmentation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetBaseDataset, nnUNetDatasetBlosc2
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from scipy.ndimage import binary_erosion, find_objects
from scipy.spatial import cKDTree

from nnunetv2_conflunet.imageio import Geometry, declared_labels, read_instances, read_labels, refuse_other_grid
from nnunetv2_conflunet.imageio.unknown import without_unknown
from nnunetv2_conflunet.preprocessing.raw_dataset import RawCase
from nnunetv2_conflunet.preprocessing.refusals import refuse_only_unknown
from nnunetv2_conflunet.utilities.errors import InputError, list_lines, list_some
from nnunetv2_conflunet.utilities.files import atomic_path
from nnunetv2_conflunet.utilities.parallel import try_cases

# Instance maps travel through nnU-Net's data loader as int16, whose largest number stands for unknown instances.
UNKNOWN = int(np.iinfo(np.int16).max)
MAX_INSTANCES = UNKNOWN - 1
Look: TypeAlias = Callable[[np.ndarray, Geometry], Any]
CHANGED_LABEL = "The label was changed after preprocessing: run nnUNetv2_plan_and_preprocess again."


@dataclass(frozen=True)
class InstanceCheck:
    """What the labels and instance maps of a dataset are checked for. Equal checks find the same faults.

    Attributes:
        reader: class of the dataset's reader.
        foreground_labels: labels whose voxels must belong to an instance; not background or the ignore label.
        declared: every value that a label may hold.
        unknown: the id of unknown instances, or None.
    """

    reader: type[BaseReaderWriter]
    foreground_labels: tuple[int, ...]
    declared: tuple[int, ...]
    unknown: int | None = None

    @classmethod
    def of(cls, reader: type[BaseReaderWriter], labels: LabelManager, unknown: int | None = None) -> "InstanceCheck":
        """The check for a dataset with this reader, these labels and this id of unknown instances."""
        return cls(reader, tuple(labels.foreground_labels), declared_labels(labels.label_dict), unknown)

    def check(self, cases: list[RawCase], num_processes: int, look: Look | None = None) -> dict[str, Any]:
        """Check that every label is valid and that every instance map matches its label.

        Args:
            cases: the cases to check; their instance maps exist.
            num_processes: worker processes.
            look: called with each map, (X, Y, Z) ids, and its geometry, since the map has been read anyway.

        Returns:
            What `look` returned, by case.

        Raises:
            InputError: names every case without a label, or else every faulty case and its fault: an unreadable file,
                values that dataset.json does not declare or that are not ids, a size, spacing, origin or direction that
                differs from the label's, or voxels that differ from the label's foreground; or every lesion voxel of
                all cases is of unknown instances.
        """
        checked = for_each_case(self.check_case, cases, num_processes, "Checking instances", look)
        refuse_only_unknown([counts for _, counts in checked])
        return {case.case: seen for case, (seen, _) in zip(cases, checked, strict=True)}

    def check_case(self, case: RawCase, look: Look | None = None) -> tuple[Any, tuple[int, int]]:
        """What `look` returns for one case, and its number of lesion voxels with a known and with the unknown id.

        Raises:
            InputError: says what is wrong with the case.
        """
        instances, properties = self.read(case)
        seen = None if look is None else look(instances, Geometry.from_properties(instances.shape, properties))
        n_unknown = 0 if self.unknown is None else int(np.count_nonzero(instances == self.unknown))
        return seen, (int(np.count_nonzero(instances)) - n_unknown, n_unknown)

    def read(self, case: RawCase) -> tuple[np.ndarray, dict]:
        """The instance map of a case that passes the check, and its properties; see :func:`.read_instances`.

        Raises:
            InputError: says what is wrong with the case.
        """
        reader = self.reader()
        label, label_properties = read_labels(case.label, reader, self.declared)
        instances, properties = read_instances(case.instances, reader)
        label_grid = Geometry.from_properties(label.shape, label_properties)
        refuse_other_grid(
            case.instances, Geometry.from_properties(instances.shape, properties), case.label, label_grid, reader
        )
        foreground = np.isin(label, self.foreground_labels)
        without_id = np.count_nonzero(foreground & (instances == 0))
        without_label = np.count_nonzero(~foreground & (instances > 0))
        if without_id or without_label:
            raise InputError(
                f"{without_id + without_label} voxels of {case.instances} differ from the foreground of its label "
                f"({without_id} lesion voxels without an id, {without_label} voxels with an id outside lesions). "
                "Correct either file, or, with one label and no ignore label, let `nnUNetv2_conflunet_prepare "
                "--labels_from_instances` write labelsTr."
            )
        return instances, properties


def for_each_case(
    function: Callable, cases: list[RawCase], num_processes: int, description: str, *arguments: Any
) -> list[Any]:
    """What a function returns for each case, the first of its arguments.

    Raises:
        InputError: names every case without a label, or else every case that the function cannot use and why.
    """
    missing = [case.case for case in cases if not case.label.is_file()]
    if missing:
        # If some labels exist, rewriting all of them is not the remedy.
        remedy = ", or let `nnUNetv2_conflunet_prepare --labels_from_instances` write them from the instance maps"
        raise InputError(
            f"{len(missing)} of {len(cases)} training cases have no label in {cases[0].label.parent}: "
            f"{list_some(missing)}. Put them there{remedy if len(missing) == len(cases) else ''}."
        )
    calls = {case.case: (case, *arguments) for case in cases}
    results, faults = try_cases(function, calls, num_processes, description)
    if faults:
        listed = list_lines([f"{case}: {fault}" for case, fault in faults.items()])
        raise InputError(f"{len(faults)} of {len(cases)} cases cannot be used:\n{listed}")
    return list(results.values())


def save_map(
    prepared: np.ndarray, path: Path, dataset_class: type[nnUNetBaseDataset], patch_size: Sequence[int]
) -> None:
    """Write the result of :func:`to_preprocessed_grid` as nnU-Net's class of datasets reads it, completely or not."""
    with atomic_path(path) as temporary:
        # nnU-Net adds the ending itself.
        file = str(temporary.with_suffix(""))
        if dataset_class is nnUNetDatasetBlosc2:
            blocks, chunks = comp_blosc2_params((1, *prepared.shape), tuple(patch_size), prepared.itemsize)
            nnUNetDatasetBlosc2.save_seg(prepared, file, chunks_seg=chunks[1:], blocks_seg=blocks[1:])
        else:
            dataset_class.save_seg(prepared, file)


def to_preprocessed_grid(
    instances: np.ndarray,
    foreground: np.ndarray,
    transpose_forward: list[int],
    crop: list[list[int]],
    spacing_mm: tuple[float, ...],
    max_gap_mm: float = np.inf,
    unknown: int | None = None,
) -> np.ndarray:
    """Bring an instance map to nnU-Net's preprocessed grid: transpose, crop, resample, and match the label.

    The order of the steps, the crop and the alignment of the grids are those of nnU-Net's ``DefaultPreprocessor``.
    Ids are resampled by nearest neighbor. Where that disagrees with nnU-Net's resampled label, the label decides:
    voxels outside it lose their id, voxels inside it without an id take that of the nearest lesion voxel of the source,
    in mm.

    Args:
        instances: (X, Y, Z) integer ids as returned by the dataset's reader.
        foreground: (X', Y', Z') bool, the foreground of the preprocessed segmentation.
        transpose_forward: the plans' axis order.
        crop: half-open [start, end] for each transposed axis, nnU-Net's ``bbox_used_for_cropping``.
        spacing_mm: of `instances`, in its own axis order.
        max_gap_mm: largest distance of a foreground voxel from the nearest lesion voxel of the source.
        unknown: the id of unknown instances, or None.

    Returns:
        (X', Y', Z') int16; ids are 1..N in the order of the source's ids, unknown instances are :data:`UNKNOWN`, and
        its support equals `foreground` unless the source has no lesion in the crop.

    Raises:
        InputError: more than 32,766 instances, foreground too far from any instance, or an instance without foreground
            that is too large to be lost by resampling, as when labels were changed after nnU-Net's preprocessing.

    >>> instances = np.array([[[0, 7, 7, 0, 3, 0]]])
    >>> to_preprocessed_grid(instances, instances > 0, [0, 1, 2], [[0, 1], [0, 1], [0, 6]], (1, 1, 1)).tolist()
    [[[0, 2, 2, 0, 1, 0]]]
    """
    voxel_mm = np.array([spacing_mm[axis] for axis in transpose_forward])
    cropped = instances.transpose(transpose_forward)[tuple(slice(a, b) for a, b in crop)]
    nearest = [_nearest_source(old, new) for old, new in zip(cropped.shape, foreground.shape, strict=True)]
    resampled = np.where(foreground, cropped[np.ix_(*nearest)], 0)

    without_id = np.argwhere(foreground & (resampled == 0))
    source = np.argwhere(cropped > 0)
    if len(without_id) and len(source):
        scale = np.array(cropped.shape) / np.array(foreground.shape)
        positions = (without_id + 0.5) * scale - 0.5
        gap_mm, found = cKDTree(source * voxel_mm).query(positions * voxel_mm)
        _refuse_gap(gap_mm.max(), max_gap_mm)
        resampled[tuple(without_id.T)] = cropped[tuple(source[found].T)]
    elif len(without_id):
        _refuse_gap(np.inf, max_gap_mm)
    _refuse_loss(without_unknown(cropped, unknown), resampled)
    renumbered = _renumbered(without_unknown(resampled, unknown))
    if unknown is not None:
        renumbered[resampled == unknown] = UNKNOWN
    return renumbered


def _refuse_loss(cropped: np.ndarray, resampled: np.ndarray) -> None:
    """Refuse the loss of an instance large enough that linear interpolation onto the new grid must hit it."""
    lost = np.setdiff1d(cropped[cropped > 0], resampled[resampled > 0])
    if not len(lost):
        return
    steps = np.array(cropped.shape) / np.array(resampled.shape)
    # Some new voxel lies within half a step, and is interpolated from up to one voxel farther away.
    box = [1 if step == 1 else 2 * int(np.ceil(step / 2) + 1) + 1 for step in steps]
    number = np.where(np.isin(cropped, lost), np.searchsorted(lost, cropped) + 1, 0)
    for instance, place in zip(lost, find_objects(number), strict=True):
        inside = cropped[place] == instance
        if binary_erosion(inside, np.ones(box, bool)).any():
            size = f"{np.count_nonzero(inside)} voxels"
            raise InputError(
                f"instance {instance} ({size}) is missing in the preprocessed segmentation. {CHANGED_LABEL}"
            )


def _refuse_gap(gap_mm: float, max_gap_mm: float) -> None:
    if gap_mm > max_gap_mm:
        where = f"{gap_mm:.1f} mm from any instance" if np.isfinite(gap_mm) else "and the map has no instance"
        raise InputError(f"the preprocessed segmentation has a lesion {where}. {CHANGED_LABEL}")


def _nearest_source(old: int, new: int) -> np.ndarray:
    """For each of `new` voxels, the index of the nearest of `old` voxels; both grids cover the same extent."""
    return np.minimum(np.floor((np.arange(new) + 0.5) * old / new).astype(int), old - 1)


def _renumbered(instances: np.ndarray) -> np.ndarray:
    inside = instances > 0
    ids, numbers = np.unique(instances[inside], return_inverse=True)
    if len(ids) > MAX_INSTANCES:
        raise InputError(f"{len(ids)} instances in one case; nnU-Net's data loader holds at most {MAX_INSTANCES}.")
    result = np.zeros(instances.shape, np.int16)
    result[inside] = numbers + 1
    return result
