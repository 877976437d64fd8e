"""Lesion-level evaluation of instance maps: metrics of one case, a folder of cases, comparisons and reports."""

from nnunetv2_conflunet.evaluation.metrics.case import evaluate_case

__all__ = ["evaluate_case"]
