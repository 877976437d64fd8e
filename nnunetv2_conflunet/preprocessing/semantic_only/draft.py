"""A draft of instance maps: unknown instances divided by a method, to be corrected by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.imageio import Geometry, read_instances, write_instances
from nnunetv2_conflunet.postprocessing import Instantiation, InstantiationSettings, instantiate
from nnunetv2_conflunet.preprocessing.conversion import read_components, refuse_existing, writing_every
from nnunetv2_conflunet.preprocessing.raw_dataset import RawCase, RawDataset
from nnunetv2_conflunet.utilities.array_checks import Connectivity
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.writable import require_writable

DRAFT_METHODS = ("watershed", "acls", "center_offset")


@dataclass(frozen=True)
class Division:
    """How unknown instances are divided.

    Attributes:
        settings: the method.
        outputs_of: from the name of a case, its map's file and its grid to what the method needs besides the map, as
            arguments of :func:`.instantiate`.
        single_only: only whole components that the method leaves undivided become known.
        connectivity: of the components, see :func:`.label_components`.
    """

    settings: InstantiationSettings
    outputs_of: Callable[[str, Path, Geometry], dict[str, np.ndarray]] = field(default=lambda *_: {})
    single_only: bool = False
    connectivity: Connectivity = 26


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
            maps or cannot be written to, files in it exist and `overwrite` is False, files in it are drafts of cases
            without unknown instances, an output is missing, or no instance is proposed.
    """
    unknown = dataset.unknown
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
    refuse_existing(list(targets.values()), overwrite)
    dataset.require_labels()
    write = partial(_write_case, dataset, dataset.reader(), unknown, division)
    with writing_every(write, cases, targets, num_processes, "Writing drafts") as made:
        counts = {case: of_case for case, of_case in made.items() if of_case is not None}
        if not counts:
            raise InputError(
                f"No instance map of {dataset.folder.name} has voxels with the id {unknown} of unknown ones."
            )
        if stale := [target.name for case, target in targets.items() if case not in counts and target.exists()]:
            raise InputError(
                f"{folder} holds drafts of cases without unknown instances: {list_some(stale)}. Copied, they would "
                "replace maps that were completed since. Remove them, or name another --draft_folder."
            )
        draft = Draft(len(counts), *(sum(column) for column in zip(*counts.values(), strict=True)))
        if not draft.n_proposed:
            raise InputError(
                f"By {division.settings.method} none of {draft.n_components} unknown components of "
                f"{dataset.folder.name} is one undivided lesion, so there is nothing to write. Is the network trained?"
            )
    return draft


def _write_case(
    dataset: RawDataset,
    reader: BaseReaderWriter,
    unknown: int,
    division: Division,
    case: RawCase,
    target: Path,
) -> tuple[int, int] | None:
    """Write the draft of a case; its numbers of unknown components and of proposed instances, None without unknowns."""
    instances, properties = read_instances(case.instances, reader)
    if not (instances == unknown).any():
        return None
    outputs = division.outputs_of(case.case, case.instances, Geometry.from_properties(instances.shape, properties))
    components, _ = read_components(case, dataset, reader, division.connectivity)
    draft, *counts = divided(instances, components, unknown, properties["spacing"], division, outputs)
    write_instances(draft, target, reader, properties, dataset.file_ending)
    return counts[0], counts[1]


def divided(
    instances: np.ndarray,
    components: np.ndarray,
    unknown: int,
    spacing_mm: tuple[float, ...],
    division: Division,
    outputs: dict[str, np.ndarray] | None = None,
) -> tuple[np.ndarray, int, int]:
    """Divide the unknown instances of a map.

    Args:
        instances: (X, Y, Z) ids, 0 is background.
        components: (X, Y, Z) the connected components of the labels, 1..N.
        unknown: the id of unknown instances.
        spacing_mm: voxel size along each axis.
        division: how they are divided.
        outputs: of the network, as arguments of :func:`.instantiate`.

    Returns:
        The map, in which known instances keep their ids, proposed ones have the lowest free ids, and what stays unknown
        has `unknown`; the number of components with unknown voxels; and the number of proposed instances.

    >>> hourglass = np.array([[[9, 9, 9, 0, 9, 9, 9], [9, 9, 9, 9, 9, 9, 9], [9, 9, 9, 0, 9, 9, 9], [0] * 7, [1] * 7]])
    >>> settings = InstantiationSettings(method="watershed", min_volume_mm3=0, min_extent_mm=0)
    >>> components = np.where(hourglass == 1, 2, hourglass > 0)
    >>> divided(hourglass, components, 9, (1.0, 1.0, 1.0), Division(settings))[0][0, 0].tolist()
    [2, 2, 2, 0, 3, 3, 3]
    >>> divided(hourglass, components, 9, (1.0, 1.0, 1.0), Division(settings, single_only=True))[0][0, 0].tolist()
    [9, 9, 9, 0, 9, 9, 9]
    """
    is_unknown = instances == unknown
    found = instantiate(is_unknown, spacing_mm, division.settings, **(outputs or {}))
    n_found = int(found.instances.max(initial=0))
    proposed = np.arange(1, n_found + 1)
    if division.single_only:
        proposed = _undivided(found, components, is_unknown, (instances > 0) & ~is_unknown, division.settings.method)
    taken = np.append(np.unique(instances), unknown)
    new_ids = np.full(n_found + 1, unknown)
    new_ids[proposed] = np.setdiff1d(np.arange(1, len(taken) + len(proposed) + 1), taken)[: len(proposed)]
    return (
        np.where(is_unknown, new_ids[found.instances], instances),
        len(np.unique(components[is_unknown])),
        len(proposed),
    )


def _undivided(
    found: Instantiation, components: np.ndarray, is_unknown: np.ndarray, is_known: np.ndarray, method: str
) -> np.ndarray:
    """The instances that are a whole component; by center-offset only those in which there is a center."""
    pairs = np.unique(np.stack([found.instances[is_unknown], components[is_unknown]], axis=1), axis=0)
    instance, component = pairs.T
    single = (np.bincount(instance)[instance] == 1) & (np.bincount(component)[component] == 1)
    single &= ~np.isin(component, components[is_known])
    if method == "center_offset":
        single &= np.isfinite(found.center_score[instance - 1])
    return instance[single]
