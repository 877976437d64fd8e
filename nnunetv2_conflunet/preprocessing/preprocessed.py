"""Instance maps next to nnU-Net's preprocessed cases: made when missing or stale, once for all processes."""

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from filelock import FileLock
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_conflunet.imageio import Geometry, read_instances
from nnunetv2_conflunet.imageio.preprocessed_cases import PreprocessedCases
from nnunetv2_conflunet.preprocessing.annotation.cases import examine_case
from nnunetv2_conflunet.preprocessing.annotation.kinds import count_slips
from nnunetv2_conflunet.preprocessing.instance_centers import centers_file, centers_of_map, write_centers
from nnunetv2_conflunet.preprocessing.instance_map import (
    UNKNOWN,
    InstanceCheck,
    for_each_case,
    save_map,
    to_preprocessed_grid,
)
from nnunetv2_conflunet.preprocessing.map_record import PreparedCase, made_from
from nnunetv2_conflunet.preprocessing.raw_dataset import RawCase, RawDataset
from nnunetv2_conflunet.preprocessing.refusals import refuse_only_unknown
from nnunetv2_conflunet.utilities.errors import InputError, list_some
from nnunetv2_conflunet.utilities.files import read_json, write_json
from nnunetv2_conflunet.utilities.nnunet_folders import PREPROCESSED, nnunet_folder
from nnunetv2_conflunet.utilities.whole_files import is_whole


@contextmanager
def locked(place: Path, need: str) -> Iterator[None]:
    """Lock a file or folder of a preprocessed dataset for this process, by a hidden file beside it.

    Args:
        place: the file or folder, which need not exist.
        need: why it must be locked, and what to do if that is not possible.

    Raises:
        InputError: the folder of the dataset cannot be written to.
    """
    path = place.with_name(f".{place.name}.lock")
    lock = FileLock(path, mode=0o666)
    try:
        held = lock.acquire()
        if not os.access(place.parent, os.W_OK):
            raise PermissionError("its folder is read-only")
    except OSError as error:
        raise InputError(f"{path} cannot be locked ({error}). {need}") from error
    with held:
        yield


class PreprocessedInstances:
    """The folder ``<data_identifier>_instances`` next to the folder of a preprocessed configuration.

    nnU-Net's dataset classes read ``<folder>/<case>`` from it in the slot of a cascade's previous stage: int16,
    (X, Y, Z), on the grid of the preprocessed case. Centers of mass are in the folder ``centers`` beside the maps. One
    JSON file per case records what the map was made from.

    Args:
        plans: the plans.
        configuration: name of the configuration.
        dataset_json: the dataset.json of the preprocessed dataset.
    """

    def __init__(self, plans: PlansManager, configuration: str, dataset_json: dict):
        self.plans = plans
        self.configuration = plans.get_configuration(configuration)
        self.labels = plans.get_label_manager(dataset_json)
        self.source_folder = nnunet_folder(PREPROCESSED) / plans.dataset_name / self.configuration.data_identifier
        self._source = PreprocessedCases(self.source_folder)
        self.folder = self.source_folder.with_name(f"{self.configuration.data_identifier}_instances")

    def lock(self) -> AbstractContextManager[None]:
        """Lock the folder for this process, see :func:`locked`; other trainings on the dataset wait."""
        return locked(
            self.folder,
            "Instance maps are missing or stale and must be written next to it: let someone with write permission run "
            "nnUNetv2_conflunet_prepare.",
        )

    def prepare(self, num_processes: int, checked: InstanceCheck | None = None) -> list[PreparedCase]:
        """Check and preprocess the instance maps of every preprocessed case whose map is missing or stale.

        Each map is read once, and none is written if one cannot be used. Any number of processes may call this at once:
        the first does the work, the others wait for it. If all maps are current, nothing is locked or written, so
        read-only folders can be used for training. If the raw dataset is not on this machine, complete maps from
        elsewhere are used as they are.

        Args:
            num_processes: worker processes.
            checked: the check that all instance maps of the raw dataset have just passed; an equal check is not
                repeated.

        Returns:
            The cases that were made in this call.

        Raises:
            InputError: the configuration is not preprocessed, or an instance map is missing or cannot be used.
        """
        stale = self._stale()
        if not stale:
            self._refuse_only_unknown([])
            return []
        with self.lock():
            # Another process may have made them in the meantime.
            stale = [case for case in stale if not self._is_current(case)]
            for case in stale:
                self._source.segmentation_file(case.case)
            check = InstanceCheck.of(self.plans.image_reader_writer_class, self.labels, self._unknown)
            with TemporaryDirectory(prefix=f".{self.folder.name}.", dir=self.folder.parent) as folder:
                staged = Path(folder)
                arguments = (None if check == checked else check), staged
                made = for_each_case(self._prepare_case, stale, num_processes, "Preprocessing instances", *arguments)
                self._refuse_only_unknown(made)
                # A map without its record is made again, so records come last.
                files = [path.relative_to(staged) for path in staged.rglob("*") if path.is_file()]
                for file in sorted(files, key=lambda file: file.suffix == ".json"):
                    (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(staged / file, self.folder / file)
            return made

    def load(self, case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image (C, X, Y, Z), of which Blosc2 reads what is sliced, labels and instance map (X, Y, Z) of a case."""
        image, labels, instances, _ = self._source.load(case, self.folder)
        assert instances is not None
        return image, labels, instances

    def record(self, case: str) -> dict[str, Any]:
        """See :meth:`.PreparedCase.record`; empty for a map without a record, such as one copied from elsewhere."""
        file = self._record_file(case)
        return read_json(file) if file.is_file() else {}

    def counted(self, what: str) -> dict[str, int]:
        """A count of the records, such as ``"n_lost"``, for the cases where it is not 0."""
        counts = {case: self.record(case).get(what, 0) for case in self.cases()}
        return {case: n for case, n in counts.items() if n}

    def most_instances(self) -> int | None:
        """The greatest number of instances of a case, unknown ones left out; None if a case has no record of it."""
        records = [self.record(case) for case in self.cases()]
        complete = all("n_instances" in record for record in records)
        return max(record["n_instances"] for record in records) if complete else None

    @cached_property
    def _unknown(self) -> int | None:
        """The id of unknown instances in the raw dataset; the dataset.json of the preprocessed one may be older."""
        raw = RawDataset.find(self.plans.dataset_name)
        return None if raw is None else raw.unknown

    def _refuse_only_unknown(self, made: list[PreparedCase]) -> None:
        if self._unknown is None:
            return
        counts = {case.case: (case.n_instances, case.n_unknown) for case in made}
        for case in set(self.cases()) - set(counts):
            record = self.record(case)
            counts[case] = record["n_instances"], record["n_unknown"]
        refuse_only_unknown(list(counts.values()))

    def cases(self) -> list[str]:
        """The preprocessed cases, sorted."""
        return self._source.names()

    def _stale(self) -> list[RawCase]:
        cases = self.cases()
        raw = RawDataset.find(self.plans.dataset_name)
        if raw is not None:
            return [case for case in raw.require_instances(cases) if not self._is_current(case)]
        missing = [case for case in cases if not is_whole(self._map_file(case))]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(cases)} cases have no complete map in {self.folder} "
                f"({list_some(missing)}), and the raw dataset {self.plans.dataset_name} is not in nnUNet_raw. Put it "
                "there, or copy the folder from the machine that prepared it."
            )
        return []

    def _map_file(self, case: str) -> Path:
        return self.folder / f"{case}{self._source.ending}"

    def _record_file(self, case: str) -> Path:
        return self.folder / f"{case}.json"

    def _origin(self, case: RawCase) -> dict:
        return made_from(case.instances, self._source.segmentation_file(case.case), self._unknown)

    def _is_current(self, case: RawCase) -> bool:
        record = self._record_file(case.case)
        if not record.is_file() or not all(
            map(is_whole, (self._map_file(case.case), centers_file(self.folder, case.case)))
        ):
            return False
        try:
            made_from = read_json(record)["made_from"]
        except (ValueError, TypeError, KeyError):
            return False
        return made_from == self._origin(case)

    def _prepare_case(self, case: RawCase, check: InstanceCheck | None, folder: Path) -> PreparedCase:
        """Read the map of a case, check it unless `check` is None, and write it and its record to a folder."""
        # Before anything is read: whatever changes from here on makes the map stale next time.
        origin = self._origin(case)
        _, segmentation, _, properties = self._source.load(case.case)
        foreground = np.isin(segmentation, self.labels.foreground_labels)
        slips: dict[str, int] = {}
        if check is None:
            instances, source_properties = read_instances(case.instances, self.plans.image_reader_writer_class())
        else:
            instances, source_properties = check.read(case)
            grid = Geometry.from_properties(instances.shape, source_properties)
            slips = count_slips(examine_case(instances, grid, unknown=self._unknown).slips)
        source_mm = [source_properties["spacing"][axis] for axis in self.plans.transpose_forward]
        # Two-dimensional configurations have no spacing across slices, and their lesions do not extend there.
        network_mm = self.configuration.spacing
        voxel_mm = np.maximum(source_mm[-len(network_mm) :], network_mm)
        prepared = to_preprocessed_grid(
            instances,
            foreground,
            self.plans.transpose_forward,
            properties["bbox_used_for_cropping"],
            source_properties["spacing"],
            max_gap_mm=2 * float(np.linalg.norm(voxel_mm)),
            unknown=self._unknown,
        )
        is_unknown = prepared == UNKNOWN
        n_instances = int(prepared.max(initial=0, where=~is_unknown))
        n_lost = len(np.setdiff1d(instances, [0, self._unknown or 0])) - n_instances
        n_unknown = int(np.count_nonzero(is_unknown))
        target = folder / self._map_file(case.case).name
        save_map(prepared, target, self._source.dataset_class, self.configuration.patch_size)
        ignored = segmentation == self.labels.ignore_label if self.labels.has_ignore_label else None
        write_centers(centers_of_map(prepared, ignored, len(network_mm)), centers_file(folder, case.case))
        found = PreparedCase(case.case, n_instances, n_lost, n_unknown, slips)
        write_json(found.record(origin), folder / self._record_file(case.case).name)
        return found
