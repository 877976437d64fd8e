"""Finding the settings of the instantiation that suit a model's cross-validation best."""

import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from nnunetv2.configuration import default_num_processes
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_conflunet import __version__
from nnunetv2_conflunet.evaluation.cohort.settings import EvaluationSettings
from nnunetv2_conflunet.postprocessing import InstantiationSettings
from nnunetv2_conflunet.postprocessing.merging import MergeRule
from nnunetv2_conflunet.postprocessing.size_filter import LIMITS, REMEDY
from nnunetv2_conflunet.tuning.cases import of_cases, score_case, touching_pieces_of_case
from nnunetv2_conflunet.tuning.choice import N_RESAMPLES, Choice, choose, means
from nnunetv2_conflunet.tuning.merging import account_of_pairs, choose_rule, held_out_points
from nnunetv2_conflunet.tuning.model_folder import ModelFolder, Postprocessing, ValidationCase
from nnunetv2_conflunet.tuning.scoring import METRICS
from nnunetv2_conflunet.tuning.search import SEARCHED, Grid, order_of_preference
from nnunetv2_conflunet.utilities.errors import InputError
from nnunetv2_conflunet.utilities.files import json_text, read_json, write_texts
from nnunetv2_conflunet.utilities.writable import require_writable

RECORD_FILE, TABLE_FILE = "instance_postprocessing.json", "instance_postprocessing.csv"
# The options of an evaluation that the scores of the grid depend on.
SCORING_OPTIONS = ("matching", "iou_threshold", *LIMITS)


def determine_postprocessing(
    model: Path,
    folds: list[str],
    reference: Path | None = None,
    *,
    metric: str = "PQ",
    grid: Grid | None = None,
    scoring: EvaluationSettings | None = None,
    with_stock_postprocessing: bool = True,
    num_processes: int = default_num_processes,
    seed: int = 0,
    with_merging: bool = True,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Search the settings of center-offset, and store the choice where prediction reads it.

    The choice is the point of highest mean over the cases of the validation folders, unless a bootstrap over
    cases cannot tell it from the trainer's settings (:func:`.choice.choose`); then those stay. Writes
    ``instance_postprocessing.json`` and ``.csv`` and the plans.json of the model folder: all of them or none.

    Args:
        model: the model folder.
        folds: such as ``["0", "1"]``; their validation was written with ``--npz``.
        reference: see :meth:`.ModelFolder.validation_cases`.
        metric: ``"PQ"`` or ``"F1"``.
        grid: what to try, the default's values are added. Default: :func:`default_grid`.
        scoring: how to evaluate. Default: as ``nnUNetv2_conflunet_evaluate``.
        with_stock_postprocessing: make the instances of the segmentations after the postprocessing that stock nnU-Net
            determined for these folds, where it did.
        num_processes: worker processes.
        seed: of the bootstrap.
        with_merging: then also learn when touching pieces are one lesion (:mod:`.merging`), and store it where it is
            better than no merging beyond the noise.
        dry_run: write nothing.

    Returns:
        What the JSON file holds.

    Raises:
        InputError: an unknown metric, a model whose method has no centers, no validation folder, heads or references,
            references without lesions, or files that cannot be used; it names them.
    """
    if metric not in METRICS:
        raise InputError(f"There is no metric '{metric}' to tune for; use one of {', '.join(METRICS)}.")
    scoring = scoring or EvaluationSettings()
    folder = ModelFolder(model)
    default = folder.untuned_settings()
    if default.method != "center_offset":
        raise InputError(f"{folder.plans_file} makes instances by '{default.method}'; only center_offset is tuned.")
    grid = (grid or default_grid(folder)).around(default)
    points = grid.points(default)
    cases = folder.validation_cases(folds, reference)
    if not dry_run:
        require_writable(folder.folder / TABLE_FILE, folder.folder / RECORD_FILE, folder.plans_file)
    stock = folder.stock_postprocessing(folds) if with_stock_postprocessing else []
    if "ignore" in cases[0].prediction.labels:
        warnings.warn(
            "The dataset has an ignore label. Lesions that are found where nobody labelled count as false here; tune "
            "on folds whose cases are labelled everywhere.",
            stacklevel=2,
        )

    dim = len(_spacing_mm(folder))
    scores = _score_cases(cases, points, scoring, stock, num_processes, dim)
    position = points.index(default)
    choice = choose(scores[:, :, METRICS.index(metric)], position, order_of_preference(points, default), seed)
    chosen, merging = points[choice.chosen], None
    if with_merging:
        rule, merging = _learn_merging(cases, chosen, metric, scoring, stock, num_processes, seed)
        chosen = replace(chosen, merge=rule)
    record = {
        "metric": metric,
        "dim": dim,
        "n_cases": len(cases),
        "default": _described(points, scores, position),
        "best": _described(points, scores, choice.best),
        "chosen": chosen.to_dict(),
        "difference": choice.difference,
        "interval_95": [choice.low, choice.high],
        "held_out": choice.held_out,
        "decision": _decision(choice, position),
        "merging": merging,
        "ends_reached": grid.ends_reached(points[choice.best], default),
        "grid": asdict(grid),
        "scoring": {name: getattr(scoring, name) for name in SCORING_OPTIONS},
        "stock_postprocessing": [{"function": f.__name__, **{k: str(v) for k, v in a.items()}} for f, a in stock],
        "folds": folds,
        "cases": [i.case for i in cases],
        "reference": str(cases[0].reference.parent.resolve()),
        "bootstrap": {"resamples": N_RESAMPLES, "seed": seed},
        "version": __version__,
    }
    if not dry_run:
        table = grid_table(points, scores).to_csv(index=False, float_format="%.7g", na_rep="NaN")
        write_texts(
            {
                folder.folder / TABLE_FILE: table,
                folder.folder / RECORD_FILE: json_text(record),
                folder.plans_file: json_text(folder.plans_with(chosen)),
            }
        )
    return record


def default_grid(model: ModelFolder) -> Grid:
    """What to try for a model, by whether its images are planes."""
    spacing = _spacing_mm(model)
    return Grid.of_planes(float(np.prod(spacing))) if len(spacing) == 2 else Grid()


def _spacing_mm(model: ModelFolder) -> list[float]:
    """Voxel size of the network's grid; a folder as nnU-Net names it ends with the name of the configuration."""
    plans = PlansManager(read_json(model.plans_file))
    name = model.folder.resolve().name.split("__")[-1]
    spacings = {i: plans.get_configuration(i).spacing for i in plans.available_configurations}
    # Volumes have a configuration for planes, too, but our trainers refuse it.
    return spacings[name] if name in spacings else max(spacings.values(), key=len)


def grid_table(points: list[InstantiationSettings], scores: np.ndarray) -> pd.DataFrame:
    """One row a point: its settings and, of each metric, mean, standard deviation and number of cases.

    Args:
        points: of the grid.
        scores: (cases, points, metrics) float64, NaN where undefined.
    """
    table = pd.DataFrame({name: [getattr(point, name) for point in points] for name in SEARCHED})
    for i, name in enumerate(METRICS):
        values = pd.DataFrame(scores[:, :, i])
        # As the evaluation has them: undefined values are left out, and a sample's standard deviation.
        table[f"{name}_mean"], table[f"{name}_std"], table[f"{name}_n"] = values.mean(), values.std(), values.count()
    return table


def _score_cases(
    cases: list[ValidationCase],
    points: list[InstantiationSettings],
    scoring: EvaluationSettings,
    stock: Postprocessing,
    num_processes: int,
    dim: int,
) -> np.ndarray:
    """(cases, points, metrics) float64."""
    results = of_cases(score_case, [(i, points, scoring, stock) for i in cases], num_processes, "Scoring")
    if not any(n_lesions for _, n_lesions in results):
        raise InputError(
            f"No reference in {cases[0].reference.parent} has a lesion of at least {scoring.limits.describe(dim)}; "
            f"nothing can be tuned on them. Lower the limits of the scoring. {REMEDY}."
        )
    return np.stack([of_case for of_case, _ in results])


def _learn_merging(
    cases: list[ValidationCase],
    settings: InstantiationSettings,
    metric: str,
    scoring: EvaluationSettings,
    stock: Postprocessing,
    num_processes: int,
    seed: int,
) -> tuple[MergeRule | None, dict[str, Any]]:
    """A rule for the pieces that the settings give, and an account; see :func:`.merging.choose_rule`."""
    arguments = [(i, settings, scoring, stock) for i in cases]
    touching = of_cases(touching_pieces_of_case, arguments, num_processes, "Comparing pieces")
    points = held_out_points(touching, settings)
    if points is None:
        return None, account_of_pairs(touching)
    arguments = [(i, of_case, scoring, stock) for i, of_case in zip(cases, points, strict=True)]
    scores = np.stack([scores for scores, _ in of_cases(score_case, arguments, num_processes, "Scoring merging")])
    return choose_rule(touching, scores, metric, seed)


def _described(points: list[InstantiationSettings], scores: np.ndarray, position: int) -> dict[str, Any]:
    of_point = means(scores[:, position])
    return {"settings": points[position].to_dict(), **dict(zip(METRICS, map(float, of_point), strict=True))}


def _decision(choice: Choice, default: int) -> str:
    """``"default is best"``, ``"default within the noise"`` or ``"tuned"``."""
    if choice.best == default:
        return "default is best"
    return "tuned" if choice.chosen == choice.best else "default within the noise"
