"""The conversions that are made before instance maps are checked, if asked, and what is said about them."""

from collections.abc import Iterator
from dataclasses import dataclass

from nnunetv2_conflunet.imageio.unknown import KEY
from nnunetv2_conflunet.preprocessing.conversion import write_instances_from_labels, write_labels_from_instances
from nnunetv2_conflunet.preprocessing.raw_dataset import RawDataset
from nnunetv2_conflunet.preprocessing.semantic_only.components import ComponentSettings
from nnunetv2_conflunet.preprocessing.semantic_only.sorting import unknown_id_of, write_sorted_components
from nnunetv2_conflunet.preprocessing.semantic_only.work_list import WORK_LIST, how_many
from nnunetv2_conflunet.utilities.array_checks import CONNECTIVITIES, Connectivity
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.options import option
from nnunetv2_conflunet.utilities.writable import require_writable

OVERWRITE = "overwrite"


@dataclass(frozen=True)
class Conversion:
    """What is written from what.

    Attributes:
        labels_from_instances: write labels.
        instances_from_labels: write instance maps.
        connectivity: of their components, 6, 18 or 26 in three dimensions.
        unknown_components: components that do not look like one lesion are unknown.
        overwrite: replace existing files.

    Raises:
        InputError: unknown components without instance maps from labels, or both conversions, of which the second
            would replace what the first has read.
    """

    labels_from_instances: bool = option(False, "first write labelsTr: the foreground of instancesTr")
    instances_from_labels: bool = option(False, "first write instancesTr: the connected components of labelsTr")
    connectivity: Connectivity = option(
        26, "neighbors that count as connected in these components", type=int, choices=CONNECTIVITIES[3]
    )
    unknown_components: bool = option(
        False,
        "with --instances_from_labels: components that do not look like one lesion get the id of unknown instances",
    )
    overwrite: bool = option(
        False, "let --labels_from_instances, --instances_from_labels and --draft replace existing files"
    )

    def __post_init__(self):
        if self.labels_from_instances and self.instances_from_labels:
            raise InputError(
                "--labels_from_instances reads the instance maps that --instances_from_labels would replace; give one "
                "of the two."
            )
        if self.unknown_components and not self.instances_from_labels:
            raise InputError("--unknown_components only works together with --instances_from_labels; give both.")

    def run(self, dataset: RawDataset, components: ComponentSettings, num_processes: int) -> Iterator[str]:
        """Write what is asked for; yields what is said about each step when it is done.

        Args:
            dataset: the dataset.
            components: which components look like one lesion.
            num_processes: worker processes.

        Raises:
            InputError: as the functions that write.
        """
        if self.labels_from_instances:
            require_writable(*(case.label for case in dataset.training_cases().values()))
            yield f"{write_labels_from_instances(dataset, num_processes, self.overwrite)} labels written."
        if self.unknown_components:
            yield self._sort(dataset, components, num_processes)
        elif self.instances_from_labels:
            require_writable(*(case.instances for case in dataset.training_cases().values()))
            n = write_instances_from_labels(dataset, num_processes, self.overwrite, self.connectivity)
            yield f"{n} instance maps written to {dataset.instances_folder}: each connected component is one instance."

    def _sort(self, dataset: RawDataset, components: ComponentSettings, num_processes: int) -> str:
        declared = dataset.unknown
        table = write_sorted_components(dataset, components, num_processes, self.overwrite, self.connectivity)
        unknown = unknown_id_of(dataset)
        lines = [
            f"Instance maps written to {dataset.instances_folder}.",
            f"{how_many(table, True)} look like one lesion each and have an id.",
            f"{how_many(table, False)} may be several lesions and have the id of unknown instances, {unknown}.",
        ]
        if dataset.unknown != declared:
            lines.append(f'"{KEY}": {{"unknown": {unknown}}} was added to {dataset.folder / "dataset.json"}.')
        return "\n".join([*lines, f"They are listed in {dataset.folder / WORK_LIST}, the largest first."])
