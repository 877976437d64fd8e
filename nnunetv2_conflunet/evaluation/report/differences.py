"""Paired differences between two methods over cases, and their tests."""

import math
import warnings

import numpy as np
from scipy import stats

N_RESAMPLES = 10_000
# Decimals of the larger value that are compared: 0.8 - 0.6 and 0.4 - 0.2 are one difference.
DECIMALS = 12


def paired_difference(first: np.ndarray, second: np.ndarray, *, seed: int = 0) -> dict:
    """Compare a metric of two methods over the cases for which it is defined for both.

    Args:
        first: (N,) float, the metric of each case under the first method, NaN where undefined.
        second: (N,) float, of the same cases under the second method.
        seed: of the bootstrap.

    Returns:
        n, the number of cases compared; mean_first and mean_second over them; difference, the mean of first -
        second; low and high, its 95 % percentile bootstrap interval over cases (:func:`scipy.stats.bootstrap`, 10,000
        resamples); p_t of the paired t-test (:func:`scipy.stats.ttest_rel`); p_wilcoxon of the signed-rank test
        (:func:`scipy.stats.wilcoxon`, without cases whose difference is 0). Differences that rounding alone keeps apart
        are equal. With fewer than two cases the interval and the p-values are NaN; without any difference between the
        methods both p-values are 1.

    >>> found = paired_difference(np.array([0.5, 0.7, np.nan]), np.array([0.4, 0.5, 0.3]))
    >>> found["n"], round(found["difference"], 3)
    (2, 0.15)
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    defined = np.isfinite(first) & np.isfinite(second)
    first, second = first[defined], second[defined]
    differences = first - second
    # The ranks of the signed-rank test depend on which differences are equal and which are 0, not on their scale.
    scale = max(np.abs(first).max(initial=0), np.abs(second).max(initial=0)) or 1.0
    ranked = np.round(differences / scale, DECIMALS)
    n = len(differences)
    result = {
        "n": n,
        "mean_first": float(first.mean()) if n else math.nan,
        "mean_second": float(second.mean()) if n else math.nan,
        "difference": float(differences.mean()) if n else math.nan,
        **dict.fromkeys(("low", "high", "p_t", "p_wilcoxon"), math.nan),
    }
    if n < 2:
        return result
    if not ranked.any():
        return result | {"low": 0.0, "high": 0.0, "p_t": 1.0, "p_wilcoxon": 1.0}
    interval = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=N_RESAMPLES,
        confidence_level=0.95,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    with warnings.catch_warnings():
        # If all differences are equal, SciPy warns that they have no variance, but its p-value of 0 is right.
        warnings.simplefilter("ignore", RuntimeWarning)
        p_t, p_wilcoxon = stats.ttest_rel(first, second).pvalue, stats.wilcoxon(ranked).pvalue
    return result | {
        "low": float(interval.low),
        "high": float(interval.high),
        "p_t": float(p_t),
        "p_wilcoxon": float(p_wilcoxon),
    }


def holm(p_values: np.ndarray) -> np.ndarray:
    """P-values adjusted by Holm's step-down method (Holm, 1979); NaN values are ignored and stay NaN.

    Args:
        p_values: (N,) float, the family of tests.

    Returns:
        (N,) float in [0, 1].

    >>> holm(np.array([0.04, 0.01, np.nan, 0.02]))
    array([0.04, 0.03,  nan, 0.04])
    """
    p_values = np.asarray(p_values, float)
    tests = np.flatnonzero(~np.isnan(p_values))
    order = tests[np.argsort(p_values[tests], kind="stable")]
    adjusted = np.full(len(p_values), np.nan)
    stepped = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted
