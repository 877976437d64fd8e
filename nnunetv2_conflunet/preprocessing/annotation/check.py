"""The check of all instance maps of a dataset, together with the search for slips of annotators."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from nnunetv2_conflunet.preprocessing.annotation.cases import examine_case
from nnunetv2_conflunet.preprocessing.annotation.kinds import SlipLimits, count_slips, describe_counts
from nnunetv2_conflunet.preprocessing.annotation.report import MARKS, annotation_files, write_annotations
from nnunetv2_conflunet.preprocessing.instance_map import InstanceCheck
from nnunetv2_conflunet.preprocessing.raw_dataset import RawDataset
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.nnunet_folders import PREPROCESSED, is_set, nnunet_folder
from nnunetv2_conflunet.utilities.writable import refuse_foreign, require_writable


def check_annotations(
    dataset: RawDataset,
    check: InstanceCheck,
    limits: SlipLimits,
    folder: Path | None,
    pictures_per_kind: int,
    num_processes: int,
) -> Iterator[str]:
    """Check every instance map of a dataset, and list what annotators may have slipped on.

    Args:
        dataset: the dataset.
        check: what its maps are checked for.
        limits: from where on something is listed.
        folder: where the findings are written; None: nowhere.
        pictures_per_kind: how many findings of each kind are shown.
        num_processes: worker processes.

    Yields:
        What is said about each step when it is done.

    Raises:
        InputError: see :meth:`.InstanceCheck.check`.
    """
    cases = dataset.require_instances(list(dataset.training_cases()))
    look = partial(examine_case, limits=limits, views_per_kind=pictures_per_kind, unknown=dataset.unknown)
    found = check.check(cases, num_processes, look)
    yield f"{len(cases)} instance maps match their labels."
    counts = describe_counts(count_slips(of_case.slips) for of_case in found.values())
    yield f"Annotation check: {counts or 'nothing found'}"
    if folder is not None:
        images = {case: files[0] for case, files in dataset.training_images().items()}
        name = dataset.folder.name
        files = write_annotations(folder, name, found, cases, images, check.reader, pictures_per_kind, num_processes)
        yield f"All findings: {', '.join(map(str, files))}"


def writable_annotations_folder(folder: Path | None, dataset: str, pictures_per_kind: int) -> Path | None:
    """Where to write the findings about annotations; None, and a note, if no folder is known.

    Args:
        folder: the folder that was asked for; None: ``annotation_check`` of the preprocessed dataset.
        dataset: its name.
        pictures_per_kind: how many findings of each kind are shown.

    Raises:
        InputError: a negative number of pictures, or files that cannot be written or are not an annotation check.
    """
    if pictures_per_kind < 0:
        raise InputError(f"--annotation_pictures is {pictures_per_kind}; give 0 or more.")
    if folder is None and is_set(PREPROCESSED):
        folder = nnunet_folder(PREPROCESSED) / dataset / "annotation_check"
    if folder is None:
        print("nnUNet_preprocessed is not set, so annotation findings are not written; give an --annotations folder.")
        return None
    require_writable(*annotation_files(folder))
    for file, mark in zip(annotation_files(folder), MARKS, strict=True):
        refuse_foreign(file, mark, "an annotation check by this command")
    return folder
