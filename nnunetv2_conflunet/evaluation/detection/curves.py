"""FROC and average precision of a cohort, from the steps of its cases."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_conflunet.evaluation.detection.steps import COUNTED, CaseSteps

# False positives per patient at which the sensitivity is read (LUNA16; Setio et al., Med Image Anal 2017).
FALSE_POSITIVE_RATES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)


@dataclass(frozen=True, eq=False)
class CohortSteps:
    """The steps of all patients, by falling confidence.

    Attributes:
        n_reference: (N,) int64, lesions of each patient's reference.
        n_clu: (N,) int64, those of them that are confluent.
        confidence: (T,) float64, the different confidences, descending.
        patient: (E,) int64, the patient of each step.
        counts: (E, 6) int64, what it adds to the counts of :data:`.steps.COUNTED`.
        last: (T,) int64, the last step of each confidence: equal ones of several patients are one point of the curve.
    """

    n_reference: np.ndarray
    n_clu: np.ndarray
    confidence: np.ndarray
    patient: np.ndarray
    counts: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, cases: Sequence[CaseSteps]) -> "CohortSteps":
        """The steps of a cohort; a case without predictions or without lesions is a patient like every other.

        >>> one = CaseSteps(1, 0, np.array([0.9, 0.2]), np.array([[1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]]))
        >>> CohortSteps.of([one, one]).last
        array([1, 3])
        """
        confidence = np.concatenate([np.zeros(0), *(case.confidence for case in cases)])
        counts = np.concatenate([np.zeros((0, len(COUNTED)), np.int64), *(case.counts for case in cases)])
        patient = np.repeat(np.arange(len(cases)), [len(case.confidence) for case in cases])
        order = np.argsort(-confidence, kind="stable")
        confidence = confidence[order]
        last = np.flatnonzero(np.append(confidence[1:] != confidence[:-1], True)[: len(confidence)])
        n_reference, n_clu = (
            np.array([getattr(case, n) for case in cases], np.int64) for n in ("n_reference", "n_clu")
        )
        return cls(n_reference, n_clu, confidence[last], patient[order], counts[order], last)

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return len(self.n_reference)

    def curves(self, weights: np.ndarray) -> "Curves":
        """The curves of resampled cohorts.

        Args:
            weights: (B, N), how often each patient is in each of B cohorts.
        """
        # Only patients with a weight count, which for whole numbers are those of the resample.
        at = self.patient, self.last
        sums = [np.cumsum(weights[:, at[0]] * self.counts[:, i], axis=1)[:, at[1]] for i in range(len(COUNTED))]
        cumulated = dict(zip(COUNTED, sums, strict=True))
        return Curves(weights.sum(axis=1), weights @ self.n_reference, weights @ self.n_clu, cumulated)


@dataclass(frozen=True, eq=False)
class Curves:
    """The curves of B cohorts over T confidences.

    Attributes:
        n_patients: (B,) in each cohort.
        n_reference: (B,) lesions of their references.
        n_clu: (B,) those of them that are confluent.
        counts: (B, T) of each of :data:`.steps.COUNTED`, without the predictions below each confidence.
    """

    n_patients: np.ndarray
    n_reference: np.ndarray
    n_clu: np.ndarray
    counts: dict[str, np.ndarray]

    def sensitivity(self, suffix: str = "") -> np.ndarray:
        """(B, T) share of the references that are found, with ``"_CLU"`` of the confluent ones; NaN without any."""
        total = self.n_clu if suffix else self.n_reference
        return self.counts[f"found{suffix}"] / np.where(total, total, np.nan)[:, None]

    def false_positives(self) -> np.ndarray:
        """(B, T) predictions without a match, per patient."""
        return self.counts["false"] / self.n_patients[:, None]

    def precision(self, suffix: str = "") -> np.ndarray:
        """(B, T) share of the predictions that match; NaN without any."""
        true, false = (self.counts[f"{name}{suffix}"] for name in ("true", "false"))
        return true / np.where(true + false, true + false, np.nan)

    def sensitivity_at(self, rates: Sequence[float] = FALSE_POSITIVE_RATES, suffix: str = "") -> np.ndarray:
        """(B, rates) FROC: the highest sensitivity with at most so many false positives per patient.

        0 if even the highest confidence has more of them. A curve that ends earlier keeps its last value.

        >>> one = CaseSteps(2, 0, np.array([0.9, 0.2]), np.array([[1, 1, 0, 0, 0, 0], [1, 1, 3, 0, 0, 0]]))
        >>> CohortSteps.of([one]).curves(np.ones((1, 1))).sensitivity_at((1, 8))
        array([[0.5, 1. ]])
        """
        sensitivity, false = self.sensitivity(suffix), self.false_positives()
        undefined = np.where(self.n_clu if suffix else self.n_reference, 0.0, np.nan)[:, None]
        reached = [np.where(false <= rate, sensitivity, 0.0).max(axis=1, initial=0.0) for rate in rates]
        return np.stack(reached, axis=1) + undefined

    def average_precision(self, suffix: str = "") -> np.ndarray:
        """(B,) area under the steps of precision over sensitivity; 0 without predictions, NaN without references.

        The sum over the confidences of the gain in sensitivity times the precision, without interpolation (as
        :func:`sklearn.metrics.average_precision_score`).

        >>> one = CaseSteps(2, 0, np.array([0.9, 0.2]), np.array([[1, 1, 0, 0, 0, 0], [1, 1, 2, 0, 0, 0]]))
        >>> CohortSteps.of([one]).curves(np.ones((1, 1))).average_precision()
        array([0.75])
        """
        sensitivity = self.sensitivity(suffix)
        gain = np.diff(sensitivity, axis=1, prepend=0.0)
        return (gain * np.nan_to_num(self.precision(suffix))).sum(axis=1) + np.where(
            self.n_clu if suffix else self.n_reference, 0.0, np.nan
        )
