"""Lesion-level metrics of instance maps: overlaps, matching, confluence, folders, comparison and report."""

from nnunetv2_conflunet.evaluation.metrics.case import evaluate_case

__all__ = ["evaluate_case"]
