"""From one case's segmentation, heads and probability to its instances, lesion table and files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_conflunet.imageio import Geometry, write_instances
from nnunetv2_conflunet.inference.case_files import InstanceFiles
from nnunetv2_conflunet.inference.lesion_table import lesion_table
from nnunetv2_conflunet.postprocessing import Instantiation, InstantiationSettings, instantiate
from nnunetv2_conflunet.utilities.files import atomic_path


@dataclass(frozen=True, eq=False)
class CaseHeads:
    """The heads of one case as :func:`instantiate` expects them: on the network's grid, in the image's axis order.

    Attributes:
        heatmap: (X', Y', Z').
        offsets_mm: (dim, X', Y', Z'), component i along image axis i; without the first axis for 2D data.
        heads_box: (3, 2) half-open range of the image's voxels covered by the grid, since nnU-Net crops to nonzero.
    """

    heatmap: np.ndarray
    offsets_mm: np.ndarray
    heads_box: np.ndarray

    def save(self, path: Path) -> None:
        """Write a compressed .npz, from which instances can be made again; the box is called ``crop`` there."""
        with atomic_path(path) as temporary:
            np.savez_compressed(
                temporary,
                heatmap=self.heatmap.astype(np.float16),
                offsets_mm=self.offsets_mm.astype(np.float16),
                crop=self.heads_box,
            )


@dataclass(frozen=True, eq=False)
class CaseOutput:
    """The input for the instances of one case; arrays on the image's grid in nnU-Net's axis order.

    Attributes:
        segmentation: (X, Y, Z) integer labels.
        foreground: (X, Y, Z) bool, the voxels to divide into instances.
        properties: what nnU-Net's reader returned for the image.
        probability: (X, Y, Z) of the foreground; None if it was not saved.
        heads: None if the method does not need them.
    """

    segmentation: np.ndarray
    foreground: np.ndarray
    properties: dict
    probability: np.ndarray | None
    heads: CaseHeads | None


@dataclass(frozen=True, eq=False)
class CaseInstances:
    """The instances of one case.

    Attributes:
        output: their input.
        settings: how they were made.
        result: instances on the image's grid, center scores and a report.
        lesions: one row per instance, see :func:`.lesion_table`.
    """

    output: CaseOutput
    settings: InstantiationSettings
    result: Instantiation
    lesions: pd.DataFrame

    def write(self, files: InstanceFiles, writer: BaseReaderWriter, *, with_heads: bool = False) -> None:
        """Write the lesion table and then the map, both or neither.

        Args:
            files: their paths; the folder is created if needed.
            writer: an instance of the reader/writer that read the image.
            with_heads: first write the heads, if there are any.

        Raises:
            InputError: the format cannot hold the ids, or a file cannot be written completely.
        """
        if with_heads and self.output.heads is not None:
            self.output.heads.save(files.heads)
        table = self.lesions.to_csv(index=False, float_format="%.7g", na_rep="NaN")
        properties, beside = self.output.properties, {files.table: table}
        write_instances(self.result.instances, files.map, writer, properties, files.file_ending, beside)


def instances_of_case(output: CaseOutput, settings: InstantiationSettings) -> CaseInstances:
    """Make the instances of a case and describe them in a table.

    Raises:
        InputError: input of the method is missing, shapes differ, or heads are NaN or infinite.

    >>> mask = np.zeros((4, 5, 6), bool)
    >>> mask[1:4, 1:4, 1:3] = True
    >>> output = CaseOutput(mask.astype(int), mask, {"spacing": (1.0, 1.0, 1.0)}, None, None)
    >>> made = instances_of_case(output, InstantiationSettings(method="cc", min_extent_mm=2.0))
    >>> made.lesions["volume_mm3"].tolist()
    [18.0]
    """
    heads = {} if output.heads is None else vars(output.heads)
    spacing_mm = output.properties["spacing"]
    result = instantiate(output.foreground, spacing_mm, settings, probability=output.probability, **heads)
    lesions = lesion_table(
        result.instances,
        Geometry.from_properties(result.instances.shape, output.properties),
        labels=output.segmentation,
        probability=output.probability,
        center_scores=result.center_score,
        connectivity=settings.connectivity,
    )
    return CaseInstances(output, settings, result, lesions)
