"""Finding the settings of the instantiation that suit a model's cross-validation best."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.configuration import default_num_processes

from nnunetv2_conflunet import __version__
from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.inference.model_settings import plans_lock
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.size_filter import LIMITS, REMEDY
from nnunetv2_conflunet.tuning.cases import ValidationCase, of_cases, pieces_of_validation_case, score_cases
from nnunetv2_conflunet.tuning.choice import N_RESAMPLES, Choice, choose, means
from nnunetv2_conflunet.tuning.merging import TriedPieces, choose_merging, pieces_to_try
from nnunetv2_conflunet.tuning.model_folder import ModelFolder
from nnunetv2_conflunet.tuning.scoring import METRICS, GridScores, by_name
from nnunetv2_conflunet.tuning.search import Grid, order_of_preference
from nnunetv2_conflunet.utilities.array_checks import check_not_negative, check_share
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import json_text, write_texts
from nnunetv2_conflunet.utilities.writable import require_writable

RECORD_FILE, TABLE_FILE = "instance_postprocessing.json", "instance_postprocessing.csv"
# The options of an evaluation that the scores of the grid depend on.
SCORING_OPTIONS = ("matching", "iou_threshold", *LIMITS)


@dataclass(frozen=True)
class TuningSettings:
    """What is tried, and what decides.

    Attributes:
        metric: ``"PQ"`` or ``"F1"``.
        grid: what to try, the default's values are added; None takes :func:`default_grid`.
        scoring: how to evaluate. Default: as ``nnUNetv2_conflunet_evaluate``.
        with_stock_postprocessing: make the instances of the segmentations after the postprocessing that stock nnU-Net
            determined for these folds, where it did.
        with_merging: then also learn when touching pieces are one lesion (:mod:`.merging`), and store it where it is
            better than no merging on cases that it was not learned on.
        min_confidence: values of that setting to try last, beside 0 and the trainer's; none keeps the trainer's.
        seed: of the bootstrap.

    Raises:
        InputError: an unknown metric, a negative seed, or a confidence that is not from 0 to 1.

    >>> TuningSettings(metric="F1", grid=Grid(window_mm=(3, 5))).metric
    'F1'
    """

    metric: str = "PQ"
    grid: Grid | None = None
    scoring: EvaluationSettings = field(default_factory=EvaluationSettings)
    with_stock_postprocessing: bool = True
    with_merging: bool = True
    min_confidence: Sequence[float] = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise InputError(f"There is no metric '{self.metric}' to tune for; use one of {', '.join(METRICS)}.")
        check_not_negative(self.seed, "seed")
        for value in self.min_confidence:
            check_share(value, "min_confidence")


def determine_postprocessing(
    model: Path,
    folds: list[str],
    reference: Path | None = None,
    settings: TuningSettings | None = None,
    *,
    num_processes: int = default_num_processes,
    dry_run: bool = False,
    **fields: Any,
) -> dict[str, Any]:
    """Search the settings of center-offset, and store the choice where prediction reads it.

    The choice is the point of highest mean over the cases of the validation folders, unless a bootstrap over
    cases cannot tell it from the trainer's settings (:func:`.choice.choose`); then those stay. Writes
    ``instance_postprocessing.json`` and ``.csv`` and the plans.json of the model folder: all of them or none.

    Args:
        model: the model folder.
        folds: such as ``["0", "1"]``; their validation was written with ``--npz``.
        reference: see :meth:`.ModelFolder.validation_cases`.
        settings: what is tried, and what decides. Default: those of :class:`TuningSettings`.
        num_processes: worker processes.
        dry_run: write nothing.
        fields: of `settings`, to replace, such as ``metric="F1"``; None leaves one as it is.

    Returns:
        What the JSON file holds.

    Raises:
        InputError: an unknown metric, a model whose method has no centers, no validation folder, heads or references,
            references without lesions, or files that cannot be used; it names them.

    >>> model = Path("nnUNetTrainerConfLUNet__nnUNetPlans__3d_fullres")
    >>> record = determine_postprocessing(model, ["0"], metric="F1")  # doctest: +SKIP
    """
    given = {name: value for name, value in fields.items() if value is not None}
    settings = replace(settings or TuningSettings(), **given)
    folder, folds = ModelFolder(model), list(dict.fromkeys(folds))
    untuned = folder.settings().untuned
    # The least confidence is searched last; until then it keeps all.
    default = replace(untuned, min_confidence=0.0)
    if default.method != "center_offset":
        raise InputError(f"{folder.plans_file} makes instances by '{default.method}'; only center_offset is tuned.")
    grid = (settings.grid or default_grid(folder)).around(default)
    points = grid.points(default)
    cases = folder.validation_cases(folds, reference)
    settings = replace(settings, scoring=replace(settings.scoring, unknown=folder.unknown(reference)))
    if not dry_run:
        require_writable(folder.folder / TABLE_FILE, folder.folder / RECORD_FILE, folder.plans_file)
    if settings.with_stock_postprocessing:
        stock = folder.stock_postprocessing(folds)
        cases = [replace(case, stock=stock) for case in cases]
    if "ignore" in cases[0].prediction.labels:
        warnings.warn(
            "The dataset has an ignore label. Lesions that are found where nobody labeled count as false here; tune "
            "on folds whose cases are labeled everywhere.",
            stacklevel=2,
        )

    dim = len(folder.spacing_mm())
    found = score_cases(cases, points, settings.scoring, num_processes)
    if not found.n_lesions:
        raise InputError(
            f"No reference in {cases[0].reference.parent} has a lesion of at least "
            f"{settings.scoring.limits.describe(dim)}; nothing can be tuned on them. Lower the limits of the scoring. "
            f"{REMEDY}."
        )
    position = points.index(default)
    choice = choose(found.of_metric(settings.metric), position, order_of_preference(points, default), settings.seed)
    chosen, merging = points[choice.chosen], None
    if settings.with_merging:
        chosen, merging = _learn_merging(cases, chosen, settings, num_processes)
    chosen, confidence = _choose_confidence(cases, chosen, untuned.min_confidence, settings, num_processes)
    record = {
        "metric": settings.metric,
        "dim": dim,
        "n_cases": len(cases),
        **_record_of_choice(choice, found, position, chosen),
        "merging": merging,
        "confidence": confidence,
        "ends_reached": grid.ends_reached(points[choice.best], default),
        "grid": asdict(grid),
        **_record_of_input(cases, folds, settings),
    }
    if not dry_run:
        table = found.table().to_csv(index=False, float_format="%.7g", na_rep="NaN")
        with plans_lock(folder.folder):
            plans = json_text(folder.plans_tuned_to(chosen))
            write_texts(
                {
                    folder.folder / TABLE_FILE: table,
                    folder.folder / RECORD_FILE: json_text(record),
                    folder.plans_file: plans,
                }
            )
    return record


def default_grid(model: ModelFolder) -> Grid:
    """What to try for a model, by whether its images are planes."""
    spacing_mm = model.spacing_mm()
    return Grid.of_planes(float(np.prod(spacing_mm))) if len(spacing_mm) == 2 else Grid()


def _learn_merging(
    cases: list[ValidationCase], chosen: InstantiationSettings, settings: TuningSettings, num_processes: int
) -> tuple[InstantiationSettings, dict[str, Any]]:
    """The chosen settings with what merging adds to them, and its part of the record; see :func:`.choose_merging`."""
    tried, scoring = pieces_to_try(chosen), settings.scoring
    arguments: list[tuple] = [(case, tried, scoring) for case in cases]
    made = of_cases(pieces_of_validation_case, arguments, num_processes, "Making pieces")
    return choose_merging(TriedPieces.of_cases(tried, made), chosen, scoring, settings.metric, settings.seed)


def _choose_confidence(
    cases: list[ValidationCase],
    chosen: InstantiationSettings,
    default: float,
    settings: TuningSettings,
    num_processes: int,
) -> tuple[InstantiationSettings, dict[str, Any] | None]:
    """The chosen settings with the least confidence of an instance, by the same rule as the grid; and the record."""
    kept = replace(chosen, min_confidence=default)
    values = [default, *sorted({0.0, *map(float, settings.min_confidence)} - {default})]
    if not settings.min_confidence:
        return kept, None
    lacking = [case.case for case in cases if not case.prediction.probability_file(case.case).is_file()]
    if lacking:
        return kept, {"cases_without_probabilities": lacking}
    points = [replace(chosen, min_confidence=value) for value in values]
    found = score_cases(cases, points, settings.scoring, num_processes)
    choice = choose(found.of_metric(settings.metric), 0, list(range(len(points))), settings.seed)
    record = {
        "tried": {f"{value:g}": by_name(of_point) for value, of_point in zip(values, means(found.scores), strict=True)},
        "default": default,
        "best": values[choice.best],
        "chosen": values[choice.chosen],
        **choice.record(),
    }
    return points[choice.chosen], record


def _record_of_choice(choice: Choice, found: GridScores, default: int, chosen: InstantiationSettings) -> dict[str, Any]:
    """What the record says of the choice; `default` is the position of the trainer's settings."""
    tuned = "tuned" if choice.chosen == choice.best else "default within the noise"
    return {
        "default": found.of_point(default),
        "best": found.of_point(choice.best),
        "chosen": chosen.to_dict(),
        **choice.record(),
        "decision": "default is best" if choice.best == default else tuned,
    }


def _record_of_input(cases: list[ValidationCase], folds: list[str], settings: TuningSettings) -> dict[str, Any]:
    """What the record says of the cases and of how they were scored."""
    return {
        "scoring": {name: getattr(settings.scoring, name) for name in SCORING_OPTIONS},
        "stock_postprocessing": [
            {"function": function.__name__, **{name: str(value) for name, value in arguments.items()}}
            for function, arguments in cases[0].stock
        ],
        "folds": folds,
        "cases": [case.case for case in cases],
        "reference": str(cases[0].reference.parent.resolve()),
        "bootstrap": {"resamples": N_RESAMPLES, "seed": settings.seed},
        "version": __version__,
    }
