"""Which point of a grid is best, and whether it is better than the default beyond the noise."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

N_RESAMPLES = 10_000
CONFIDENCE = 0.95
# Values of a piece of the resamples, so that memory does not grow with the cohort.
CHUNK_VALUES = 10**6
# Means and deviations that differ by less are equal: the rounding of a sum over patients.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Choice:
    """The best point of a grid beside the default.

    Attributes:
        best: position of the point of highest mean.
        chosen: position of the point to use: `best`, or the default where that is as good within the noise.
        difference: mean of the best minus mean of the default.
        low, high: its 95 % interval, see :func:`difference_interval`; NaN with fewer than two patients.
        held_out: mean over patients of the metric at the point that is best for all the other patients: what the
            choice itself may be expected to give for new patients.
    """

    best: int
    chosen: int
    difference: float
    low: float
    high: float
    held_out: float

    def record(self) -> dict[str, Any]:
        """What a record says of how good the best point is."""
        return {"difference": self.difference, "interval_95": [self.low, self.high], "held_out": self.held_out}


def choose(scores: np.ndarray, default: int, preference: list[int], seed: int = 0) -> Choice:
    """Choose the point of highest mean, unless the default is as good within the noise.

    Args:
        scores: (patients, points) float64, the metric, NaN where undefined; means leave NaN out.
        default: position of the default point.
        preference: positions of all points, the one to take first among equally good ones first.
        seed: of the bootstrap.

    >>> scores = np.array([[0.5, 0.7], [0.4, 0.6], [0.6, 0.9], [0.5, 0.7]])
    >>> choose(scores, default=0, preference=[0, 1]).chosen
    1
    """
    best = int(_best(means(scores)[None], preference)[0])
    low, high = difference_interval(scores, best, default, seed)
    # NaN is no proof either.
    chosen = best if low > 0 else default
    difference = float(means(scores)[best] - means(scores)[default])
    return Choice(best, chosen, difference, low, high, _held_out(scores, default, preference))


def means(scores: np.ndarray) -> np.ndarray:
    """(points,) mean over patients, NaN left out; NaN where no patient has a value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(scores, axis=0)


def difference_interval(scores: np.ndarray, point: int, default: int, seed: int = 0) -> tuple[float, float]:
    """95 % interval of mean(point) - mean(default) that holds whichever of the points was picked.

    Of many points that are as good as the default the best always looks better, and an interval of that point alone
    leaves out 0 far too often. So this one is wide enough to hold the differences of all points at once: by a bootstrap
    over patients, with the largest deviation among the points in units of their standard errors (Westfall and Young,
    1993; Romano and Wolf, Econometrica 2005). Student's factor widens it for few patients.

    Args:
        scores: (patients, points) float64, NaN where undefined.
        point: position of the point that was picked.
        default: position of the default point.
        seed: of the draws of patients.

    Returns:
        Lower and upper end; NaN with fewer than two patients that are defined at `point` or `default`.
    """
    n = len(scores)
    # Patients that are undefined at both do not make the others any surer.
    n_defined = np.count_nonzero(np.isfinite(scores[:, [point, default]]).any(axis=1))
    if n_defined < 2:
        return np.nan, np.nan
    difference = float(means(scores)[point] - means(scores)[default])
    shares = _shares(scores) - _shares(scores[:, [default]])
    error = shares.std(axis=0, ddof=1) / np.sqrt(n)
    varying = error > ROUNDING
    shares = shares[:, varying] / error[varying]
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK_VALUES // max(scores.shape))
    largest = [np.zeros(1)]
    for start in range(0, N_RESAMPLES, step):
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=min(step, N_RESAMPLES - start))
        largest.append(np.abs(drawn @ shares / n).max(axis=1, initial=0))
    quantile = np.quantile(np.concatenate(largest), CONFIDENCE)
    two_sided = (1 + CONFIDENCE) / 2
    # The bootstrap's deviations have the variance of a population, not of a sample.
    student = stats.t.ppf(two_sided, n_defined - 1) / stats.norm.ppf(two_sided) * np.sqrt(n_defined / (n_defined - 1))
    half = float(quantile * student * error[point])
    return difference - half, difference + half


def _shares(scores: np.ndarray) -> np.ndarray:
    """(patients, points): what each patient moves the mean of a point by, times the number of patients; sums to 0.

    A patient may be defined at some points only: one without lesions is undefined where nothing is found and 0 where
    something is. Undefined values do not move a mean, and the defined ones move it the more.
    """
    defined = np.isfinite(scores)
    weight = len(scores) / np.maximum(defined.sum(axis=0), 1)
    return np.where(defined, (scores - means(scores)) * weight, 0)


def _best(points_means: np.ndarray, preference: list[int]) -> np.ndarray:
    """Of each row of means the position of the highest, the preferred one of equal ones."""
    ordered = np.nan_to_num(points_means[:, preference], nan=-np.inf)
    equal = ordered >= ordered.max(axis=1, keepdims=True) - ROUNDING
    return np.asarray(preference)[equal.argmax(axis=1)]


def _held_out(scores: np.ndarray, default: int, preference: list[int]) -> float:
    defined = np.isfinite(scores)
    filled = np.where(defined, scores, 0)
    n_others = defined.sum(axis=0) - defined
    with np.errstate(invalid="ignore"):
        of_others = (filled.sum(axis=0) - filled) / n_others
    # A patient without others leaves nothing but the default.
    points = np.where(n_others.any(axis=1), _best(of_others, preference), default)
    return float(means(scores[np.arange(len(scores)), points][:, None])[0])
