"""The validation cases of a model, and what is done with one after the other, in worker processes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.imageio import Geometry, read_instances
from nnunetv2_conflunet.inference.prediction_folder import PredictionFolder
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.tuning.case_pieces import CasePieces, pieces_of_case
from nnunetv2_conflunet.tuning.scoring import CaseArrays, GridScores, score_grid
from nnunetv2_conflunet.utilities.errors import InputError, join_faults
from nnunetv2_conflunet.utilities.parallel import try_cases


@dataclass(frozen=True)
class ValidationCase:
    """One case of the cross-validation.

    Attributes:
        case: its name.
        prediction: the validation folder that holds its segmentation and its heads.
        reference: the file of its reference instances.
        stock: nnU-Net's postprocessing, which acts on the segmentation first: functions with their keyword arguments.
    """

    case: str
    prediction: PredictionFolder
    reference: Path
    stock: list[tuple[Callable, dict]] = field(default_factory=list)

    def read(self, *, with_probability: bool = False) -> CaseArrays:
        """The arrays of the case; the probability only if asked for.

        Raises:
            InputError: a file is broken, or segmentation and reference do not lie on one grid.
        """
        reference, properties = read_instances(self.reference, self.prediction.reader())
        reference_grid = Geometry.from_properties(reference.shape, properties)
        segmentation, grid = self.prediction.read_segmentation_on_grid_of(self.case, self.reference, reference_grid)
        for function, arguments in self.stock:
            segmentation = function(segmentation, **arguments)
        foreground = self.prediction.foreground(segmentation)
        heads = vars(self.prediction.read_heads(self.case))
        probability = self.prediction.read_probability(self.case, segmentation.shape) if with_probability else None
        return CaseArrays(foreground, reference, grid.spacing_mm, heads, probability)


def of_cases(function: Callable, arguments: list[tuple], num_processes: int, description: str) -> list[Any]:
    """What a function gives for each case, the first of its arguments, in order.

    Raises:
        InputError: of all cases that have one, after their names.
    """
    results, faults = try_cases(
        function, {of_case[0].case: of_case for of_case in arguments}, num_processes, description
    )
    if faults:
        raise InputError(join_faults(faults))
    return list(results.values())


def score_case(
    case: ValidationCase, points: list[InstantiationSettings], scoring: EvaluationSettings
) -> tuple[np.ndarray, int]:
    """Read one case and score it at every point; see :func:`.scoring.score_grid`."""
    return score_grid(case.read(with_probability=any(point.min_confidence for point in points)), points, scoring)


def score_cases(
    cases: list[ValidationCase],
    points: list[InstantiationSettings],
    scoring: EvaluationSettings,
    num_processes: int,
) -> GridScores:
    """Score every case at every point.

    Raises:
        InputError: files cannot be used.
    """
    results = of_cases(score_case, [(case, points, scoring) for case in cases], num_processes, "Scoring")
    scores, n_lesions = zip(*results, strict=True)
    return GridScores(points, np.stack(scores), sum(n_lesions))


def pieces_of_validation_case(
    case: ValidationCase, tried: list[InstantiationSettings], scoring: EvaluationSettings
) -> list[CasePieces]:
    """Read one case and make its pieces; see :func:`.case_pieces.pieces_of_case`."""
    return pieces_of_case(case.read(), tried, scoring)
