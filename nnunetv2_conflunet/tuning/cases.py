"""What is done with one validation case after the other, in worker processes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from nnunetv2_conflunet.evaluation.cohort.settings import Settings
from nnunetv2_conflunet.imageio import Geometry, grid_fault, read_instances
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.tuning.merging import TouchingPieces, touching_pieces
from nnunetv2_conflunet.tuning.model_folder import Postprocessing, ValidationCase
from nnunetv2_conflunet.tuning.scoring import CaseArrays, score_grid
from nnunetv2_conflunet.utilities.errors import InputError, join_faults
from nnunetv2_conflunet.utilities.parallel import run_cases


def of_cases(function: Callable, arguments: list[tuple], num_processes: int, description: str) -> list[Any]:
    """What a function gives for each case, whose name its error gets.

    Raises:
        InputError: of all cases that have one.
    """
    results = run_cases(_or_explain, [(function, *i) for i in arguments], num_processes, description)
    faults = [i for i in results if isinstance(i, str)]
    if faults:
        raise InputError(join_faults(faults))
    return results


def _or_explain(function: Callable, case: ValidationCase, *arguments: Any) -> Any:
    try:
        return function(case, *arguments)
    except InputError as error:
        return f"{case.case}: {error}"


def score_case(
    case: ValidationCase, points: list[InstantiationSettings], scoring: Settings, stock: Postprocessing
) -> tuple[np.ndarray, int]:
    """Read one case and score it at every point; see :func:`.scoring.score_grid` and :func:`read_case`."""
    return score_grid(read_case(case, stock), points, scoring)


def touching_pieces_of_case(
    case: ValidationCase, settings: InstantiationSettings, scoring: Settings, stock: Postprocessing
) -> TouchingPieces:
    """Read one case and compare its pieces; see :func:`.merging.touching_pieces` and :func:`read_case`."""
    return touching_pieces(read_case(case, stock), settings, scoring)


def read_case(case: ValidationCase, stock: Postprocessing) -> CaseArrays:
    """The arrays of a case.

    Raises:
        InputError: a file is broken, or segmentation and reference do not lie on one grid.
    """
    reader = case.prediction.reader()
    segmentation, properties = case.prediction.read_segmentation(case.case)
    reference, reference_properties = read_instances(case.reference, reader)
    geometry = Geometry.from_properties(segmentation.shape, properties)
    reference_grid = Geometry.from_properties(reference.shape, reference_properties)
    file = case.prediction.segmentation_file(case.case)
    fault = grid_fault(file, geometry, case.reference, reference_grid, reader)
    if fault is not None:
        raise InputError(fault)
    for function, arguments in stock:
        segmentation = function(segmentation, **arguments)
    foreground = case.prediction.foreground(segmentation)
    return CaseArrays(foreground, reference, geometry.spacing_mm, case.prediction.read_heads(case.case))
