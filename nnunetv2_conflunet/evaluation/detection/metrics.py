"""The detection metrics of a cohort with intervals, and their differences between two methods."""

from collections.abc import Mapping, Sequence

import numpy as np

from nnunetv2_conflunet.evaluation.detection.curves import FALSE_POSITIVE_RATES, CohortSteps
from nnunetv2_conflunet.evaluation.detection.steps import CaseSteps

# IoU thresholds of the average precision.
AP_THRESHOLDS = (0.1, 0.5)
N_RESAMPLES, CONFIDENCE = 1_000, 0.95
# Numbers of one array of the resamples, so that these stay in the processor's cache.
CHUNK_VALUES = 10**5
RATE_NAMES = ("1/8", "1/4", "1/2", "1", "2", "4", "8")
SUFFIXES = ("", "_CLU")
NAMES = tuple(
    name
    for suffix in SUFFIXES
    for name in (
        *(f"Sensitivity{suffix}@{rate}" for rate in RATE_NAMES),
        f"FROC{suffix}",
        *(f"AP{suffix}@{threshold:g}" for threshold in AP_THRESHOLDS),
    )
)


def thresholds_of(iou_threshold: float) -> tuple[float, ...]:
    """The IoU thresholds at which cases are matched: first that of the FROC, then those of the average precision.

    >>> thresholds_of(0.1), thresholds_of(0.25)
    ((0.1, 0.5), (0.25, 0.1, 0.5))
    """
    return tuple(dict.fromkeys((iou_threshold, *AP_THRESHOLDS)))


class Cohort:
    """The steps of the same patients at every IoU threshold.

    Args:
        steps: IoU threshold -> the steps of each patient, always in the same order, that of the FROC first.
    """

    def __init__(self, steps: Mapping[float, Sequence[CaseSteps]]):
        self.steps = {threshold: CohortSteps.of(cases) for threshold, cases in steps.items()}

    @property
    def froc(self) -> CohortSteps:
        """The steps at the IoU threshold of the FROC."""
        return next(iter(self.steps.values()))

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return self.froc.n_patients

    def metrics(self, weights: np.ndarray) -> np.ndarray:
        """(B, names) the metrics of :data:`NAMES` of B cohorts.

        Args:
            weights: (B, N), how often each patient is in each cohort.
        """
        at = {threshold: steps.curves(weights) for threshold, steps in self.steps.items()}
        froc = next(iter(at.values()))
        columns: list[np.ndarray] = []
        for suffix in SUFFIXES:
            sensitivity = froc.sensitivity_at(FALSE_POSITIVE_RATES, suffix)
            columns += [*sensitivity.T, sensitivity.mean(axis=1)]
            columns += [at[threshold].average_precision(suffix) for threshold in AP_THRESHOLDS]
        return np.stack(columns, axis=1)

    def resampled(self, seed: int = 0, n_resamples: int = N_RESAMPLES) -> np.ndarray:
        """(n_resamples, names) the metrics of cohorts drawn with replacement; the same draws for the same patients.

        A single row of NaN with fewer than two patients.
        """
        n, rng = self.n_patients, np.random.default_rng(seed)
        if n < 2:
            return np.full((1, len(NAMES)), np.nan)
        size = max(1, CHUNK_VALUES // max(1, n, *(len(steps.patient) for steps in self.steps.values())))
        parts = []
        for start in range(0, n_resamples, size):
            drawn = rng.multinomial(n, np.full(n, 1 / n), min(size, n_resamples - start))
            parts.append(self.metrics(drawn.astype(float)))
        return np.concatenate(parts)

    def point(self) -> np.ndarray:
        """(names,) the metrics of the cohort."""
        return self.metrics(np.ones((1, self.n_patients)))[0]


def with_intervals(cohort: Cohort, seed: int = 0) -> dict[str, dict[str, float]]:
    """Each metric of a cohort with its interval.

    Returns:
        Name -> value, low and high: the 95 % percentile bootstrap interval over patients, without resamples in which
        the metric is undefined; NaN with fewer than two patients.

    >>> one = CaseSteps(1, 0, np.array([0.9]), np.array([[1, 1, 0, 0, 0, 0]]))
    >>> with_intervals(Cohort({0.1: [one, one], 0.5: [one, one]}))["FROC"]
    {'value': 1.0, 'low': 1.0, 'high': 1.0}
    """
    low, high = _interval(cohort.resampled(seed))
    rows = zip(NAMES, cohort.point().tolist(), low.tolist(), high.tolist(), strict=True)
    return {name: {"value": value, "low": a, "high": b} for name, value, a, b in rows}


def paired_differences(first: Cohort, second: Cohort, seed: int = 0) -> dict[str, dict[str, float]]:
    """The differences of two methods on the same patients, in the same order.

    Returns:
        Name -> n (patients), mean_first and mean_second (the value of each cohort), difference (first - second), low
        and high of its 95 % percentile bootstrap interval, for which both methods are read on the same resamples of
        patients; NaN with fewer than two patients. The names are those of :func:`.differences.paired_difference`.

    >>> one = CaseSteps(1, 0, np.array([0.9]), np.array([[1, 1, 0, 0, 0, 0]]))
    >>> same = Cohort({0.1: [one, one], 0.5: [one, one]})
    >>> paired_differences(same, same)["FROC"]["difference"]
    0.0
    """
    of_first, of_second = first.point(), second.point()
    low, high = _interval(first.resampled(seed) - second.resampled(seed))
    columns = ("mean_first", "mean_second", "difference", "low", "high")
    rows = np.stack([of_first, of_second, of_first - of_second, low, high], axis=1).tolist()
    n = {"n": first.n_patients}
    return {name: n | dict(zip(columns, row, strict=True)) for name, row in zip(NAMES, rows, strict=True)}


def _interval(resampled: np.ndarray) -> np.ndarray:
    """(2, names) the ends of the percentile interval, NaN left out."""
    tail = 100 * (1 - CONFIDENCE) / 2
    ends = np.full((2, resampled.shape[1]), np.nan)
    defined = ~np.isnan(resampled).all(axis=0)
    ends[:, defined] = np.nanpercentile(resampled[:, defined], (tail, 100 - tail), axis=0)
    return ends
