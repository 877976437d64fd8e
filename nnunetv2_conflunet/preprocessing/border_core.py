"""A dataset whose labels are the cores and borders of another one's lesions, for training by stock nnU-Net."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.imageio import declared_labels, read_instances, read_labels, write_instances
from nnunetv2_conflunet.imageio.unknown import declaring
from nnunetv2_conflunet.postprocessing.baselines.border_core import IGNORE, LABELS, BorderCore, BorderCoreSettings
from nnunetv2_conflunet.preprocessing.raw_dataset import RawCase, RawDataset
from nnunetv2_conflunet.utilities.errors import InputError, list_lines, list_some
from nnunetv2_conflunet.utilities.files import atomic_path, write_json
from nnunetv2_conflunet.utilities.nnunet_folders import PREPROCESSED, RAW, RESULTS, is_set, nnunet_folder
from nnunetv2_conflunet.utilities.parallel import try_cases
from nnunetv2_conflunet.utilities.writable import require_writable

HIGHEST_ID = 999


@dataclass(frozen=True)
class BorderCoreCounts:
    """What was written: lesions, those too thin for a border, cores in several pieces, depth of the deepest lesion."""

    n_lesions: int
    n_thin: int
    n_split: int
    deepest_mm: float


def write_border_core_dataset(
    dataset: RawDataset, new_id: int, settings: BorderCoreSettings, num_processes: int
) -> tuple[Path, BorderCoreCounts]:
    """Write a raw dataset with the images of `dataset` and labels of 1 in the cores of lesions and 2 in their borders.

    Images, also those of ``imagesTs``, are hard links where the file system has them and copies elsewhere, so that the
    new dataset is complete. It appears when everything is written. An ignore label stays, as label 3.

    Args:
        dataset: the source, with an instance map for every training case; maps must match the labels.
        new_id: of the new dataset, which gets the name of the source with ``BorderCore`` appended.
        settings: thickness of the borders.
        num_processes: worker processes.

    Returns:
        The folder of the new dataset, and what was counted.

    Raises:
        InputError: the id is taken or not from 0 to 999, several foreground labels, a missing image or instance map,
            unknown instances, no lesion at all, borders that leave no lesion a core deeper than they are thick, or
            files that cannot be written.
    """
    folder, labels = new_dataset_folder(dataset, new_id), dataset.label_manager()
    if len(labels.foreground_labels) != 1:
        raise InputError(
            f"{dataset.folder.name} has {len(labels.foreground_labels)} foreground labels; cores and borders do not "
            "say which label a lesion has. Write one dataset for each label."
        )
    cases = dataset.require_instances(list(dataset.training_cases()))
    images = {"imagesTr": dataset.training_images(), "imagesTs": dataset.images_in("imagesTs")}
    _require_images(images["imagesTr"])
    require_writable(folder.with_name(".probe"))
    with _appears_whole(folder) as unfinished:
        write = partial(_write_label, dataset, dataset.reader(), settings, unfinished / "labelsTr")
        calls = {case.case: (case,) for case in cases}
        counted, faults = try_cases(write, calls, num_processes, "Writing cores and borders")
        if faults:
            listed = list_lines([f"{case}: {fault}" for case, fault in faults.items()])
            raise InputError(f"{len(faults)} of {len(cases)} cases cannot be converted:\n{listed}")
        counts = _total(list(counted.values()))
        _refuse_too_thick(dataset.folder.name, counts, settings.thickness_mm)
        for name, found in images.items():
            _link_images(found, unfinished / name, dataset.file_ending)
        content: dict[str, Any] = declaring(dataset.dataset_json, None)
        content = {key: value for key, value in content.items() if key != "dataset"}
        content |= {
            "labels": LABELS | ({"ignore": IGNORE} if labels.has_ignore_label else {}),
            "numTraining": len(cases),
            "border_core": {"source": dataset.folder.name, **asdict(settings)},
        }
        write_json(content, unfinished / "dataset.json")
    return folder, counts


def _write_label(
    dataset: RawDataset, reader: BaseReaderWriter, settings: BorderCoreSettings, folder: Path, case: RawCase
) -> BorderCoreCounts:
    """Write the label of a case into a folder; returns what was counted."""
    instances, properties = read_instances(case.instances, reader)
    if dataset.unknown is not None and (n_unknown := np.count_nonzero(instances == dataset.unknown)):
        raise InputError(
            f"{n_unknown} voxels are of unknown instances (id {dataset.unknown}), which have no cores. Give their "
            "lesions ids of their own, or leave the case out."
        )
    made, given = BorderCore.of(instances, properties["spacing"], settings), dataset.label_manager()
    if given.has_ignore_label:
        label, _ = read_labels(case.label, reader, declared_labels(given.label_dict))
        made.labels[label == given.ignore_label] = IGNORE
    write_instances(made.labels, folder / case.instances.name, reader, properties, dataset.file_ending)
    return BorderCoreCounts(made.n_lesions, made.n_thin, made.n_split, made.deepest_mm)


def new_dataset_folder(dataset: RawDataset, new_id: int) -> Path:
    """Where the new dataset goes.

    Raises:
        InputError: the id is taken or not from 0 to 999.
    """
    if not 0 <= new_id <= HIGHEST_ID:
        raise InputError(f"The id of the new dataset is {new_id}; nnU-Net's ids go from 0 to {HIGHEST_ID}.")
    places = [nnunet_folder(variable) for variable in (RAW, PREPROCESSED, RESULTS) if is_set(variable)]
    if taken := sorted({str(found) for place in places for found in place.glob(f"Dataset{new_id:03d}*")}):
        raise InputError(f"The id {new_id} is taken by {list_some(taken)}; choose another one, or remove that folder.")
    return nnunet_folder(RAW) / f"Dataset{new_id:03d}_{dataset.folder.name.partition('_')[2]}BorderCore"


def _require_images(images: Mapping[str, Sequence[Path]]) -> None:
    if missing := [str(file) for files in images.values() for file in files if not file.is_file()]:
        raise InputError(f"{len(missing)} images that dataset.json lists do not exist: {list_some(missing, 3)}.")


@contextmanager
def _appears_whole(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder that becomes `folder` if the block ends without an error, and is removed otherwise."""
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}-{uuid4().hex[:8]}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _total(counts: Sequence[BorderCoreCounts]) -> BorderCoreCounts:
    n_lesions, n_thin, n_split = (
        sum(getattr(one, name) for one in counts) for name in ("n_lesions", "n_thin", "n_split")
    )
    return BorderCoreCounts(n_lesions, n_thin, n_split, max((one.deepest_mm for one in counts), default=0.0))


def _refuse_too_thick(name: str, counts: BorderCoreCounts, thickness_mm: float) -> None:
    if not counts.n_lesions:
        raise InputError(f"The instance maps of {name} hold no lesion; there is nothing to train.")
    if counts.n_thin == counts.n_lesions:
        raise InputError(
            f"A border of {thickness_mm:g} mm is thicker than every lesion of {name}: the deepest voxel lies "
            f"{counts.deepest_mm:.3g} mm from the nearest one outside its lesion. Choose a smaller "
            "--border_thickness_mm."
        )


def _link_images(images: Mapping[str, Sequence[Path]], folder: Path, file_ending: str) -> None:
    """Put the channels of each case into a folder under nnU-Net's names."""
    for case, files in images.items():
        for channel, file in enumerate(files):
            _link(file, folder / f"{case}_{channel:04d}{file_ending}")
        # nnU-Net keeps the spacing of a TIFF in a JSON file next to it.
        spacing_file = files[0].with_name(files[0].name[: -len(f"_0000{file_ending}")] + ".json")
        if spacing_file.is_file():
            _link(spacing_file, folder / f"{case}.json")


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        # Another file system, or one without hard links.
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
