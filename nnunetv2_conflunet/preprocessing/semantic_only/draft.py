"""A draft of instance maps: unknown instances divided by a method, to be corrected by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.imageio import read_instances, write_instances
from nnunetv2_conflunet.imageio.unknown import unknown_id
from nnunetv2_conflunet.postprocessing import InstantiationSettings, instantiate
from nnunetv2_conflunet.preprocessing.conversion import label_components, refuse_existing, writing_every
from nnunetv2_conflunet.preprocessing.raw_dataset import RawCase, RawDataset
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.writable import require_writable

DRAFT_METHODS = ("watershed", "acls", "center_offset")


@dataclass(frozen=True)
class Division:
    """How unknown instances are divided.

    Attributes:
        settings: the method.
        outputs_of: from the name of a case and the shape of its map to what the method needs besides the map, as
            arguments of :func:`.instantiate`.
        single_only: components that the method divides stay unknown.
    """

    settings: InstantiationSettings
    outputs_of: Callable[[str, tuple[int, ...]], dict[str, np.ndarray]] = field(default=lambda case, shape: {})
    single_only: bool = False


@dataclass(frozen=True)
class Draft:
    """What a draft was made of: cases with unknown instances, their components, and the instances proposed there."""

    n_cases: int
    n_components: int
    n_proposed: int


def write_draft(
    dataset: RawDataset,
    folder: Path,
    division: Division,
    num_processes: int,
    overwrite: bool,
) -> Draft:
    """Write a draft of the map of every training case with unknown instances into another folder.

    Args:
        dataset: a dataset whose instance maps are valid; they are left as they are.
        folder: where the drafts go.
        division: how unknown instances are divided.
        num_processes: worker processes.
        overwrite: replace existing files.

    Raises:
        InputError: dataset.json declares no unknown instances, no map holds any, the folder is that of the instance
            maps or cannot be written to, files in it exist and `overwrite` is False, or an output is missing.
    """
    unknown = unknown_id(dataset.dataset_json)
    if unknown is None:
        raise InputError(
            f"dataset.json of {dataset.folder.name} declares no unknown instances, so there is nothing to divide. Let "
            "--instances_from_labels --unknown_components find them."
        )
    if folder.resolve() == dataset.instances_folder.resolve():
        raise InputError(f"{folder} holds the instance maps; a draft is to be corrected first. Name another folder.")
    cases = dataset.require_instances(list(dataset.training_cases()))
    targets = {case.case: folder / case.instances.name for case in cases}
    require_writable(*targets.values())
    kept = frozenset() if overwrite else frozenset(case for case, target in targets.items() if target.exists())
    work = DraftOfCases(dataset.reader(), dataset.file_ending, unknown, division, kept)
    calls = {case.case: (case,) for case in cases}
    with writing_every(work.write, calls, targets, num_processes, "Writing drafts") as made:
        counts = {case: of_case for case, of_case in made.items() if of_case is not None}
        if not counts:
            raise InputError(
                f"No instance map of {dataset.folder.name} has voxels with the id {unknown} of unknown ones."
            )
        refuse_existing([targets[case] for case in counts], overwrite)
    return Draft(len(counts), *(sum(column) for column in zip(*counts.values(), strict=True)))


@dataclass(frozen=True)
class DraftOfCases:
    """Writes the drafts of single cases.

    Attributes:
        reader: of the dataset.
        file_ending: likewise.
        unknown: the id of unknown instances.
        division: how they are divided.
        kept: cases whose existing draft is not replaced.
    """

    reader: BaseReaderWriter
    file_ending: str
    unknown: int
    division: Division
    kept: frozenset[str]

    def write(self, case: RawCase, target: Path) -> tuple[int, int] | None:
        """Write the draft of a case, unless one is kept.

        Returns:
            Its numbers of unknown components and of instances proposed; None without unknown instances.

        Raises:
            InputError: the output of the network for the case cannot be used.
        """
        instances, properties = read_instances(case.instances, self.reader)
        if not (instances == self.unknown).any():
            return None
        if case.case in self.kept:
            return 0, 0
        outputs = self.division.outputs_of(case.case, instances.shape)
        draft, *counts = divided(instances, self.unknown, properties["spacing"], self.division, outputs)
        write_instances(draft, target, self.reader, properties, self.file_ending)
        return counts[0], counts[1]


def divided(
    instances: np.ndarray,
    unknown: int,
    spacing_mm: tuple[float, ...],
    division: Division,
    outputs: dict[str, np.ndarray] | None = None,
) -> tuple[np.ndarray, int, int]:
    """Divide the unknown instances of a map.

    Args:
        instances: (X, Y, Z) ids, 0 is background.
        unknown: the id of unknown instances.
        spacing_mm: voxel size along each axis.
        division: how they are divided.
        outputs: of the network, as arguments of :func:`.instantiate`.

    Returns:
        The map, in which known instances keep their ids and proposed ones have the next higher ids, without `unknown`,
        which only the components have that stay unknown; the number of unknown components; and the number of proposed
        instances.

    >>> hourglass = np.array([[[9, 9, 9, 0, 9, 9, 9], [9, 9, 9, 9, 9, 9, 9], [9, 9, 9, 0, 9, 9, 9], [0] * 7, [3] * 7]])
    >>> settings = InstantiationSettings(method="watershed", min_volume_mm3=0, min_extent_mm=0)
    >>> divided(hourglass, 9, (1.0, 1.0, 1.0), Division(settings))[0][0, 0].tolist()
    [4, 4, 4, 0, 5, 5, 5]
    >>> divided(hourglass, 9, (1.0, 1.0, 1.0), Division(settings, single_only=True))[0][0, 0].tolist()
    [9, 9, 9, 0, 9, 9, 9]
    """
    is_unknown = instances == unknown
    found = instantiate(is_unknown, spacing_mm, division.settings, **(outputs or {})).instances
    component = label_components(is_unknown.astype(np.uint8), (1,))
    n_found, n_components = int(found.max(initial=0)), int(component.max())
    proposed = np.arange(n_found + 1) > 0
    if division.single_only:
        of_instance = np.zeros(n_found + 1, np.int64)
        of_instance[found] = component
        proposed &= np.bincount(of_instance[1:], minlength=n_components + 1)[of_instance] == 1
    highest = int(instances[~is_unknown].max(initial=0))
    n_proposed = int(np.count_nonzero(proposed))
    free = np.arange(highest + 1, highest + n_proposed + 2)
    new_ids = np.full(n_found + 1, unknown)
    new_ids[proposed] = free[free != unknown][:n_proposed]
    return np.where(is_unknown, new_ids[found], instances), n_components, n_proposed
