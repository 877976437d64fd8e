"""Lesion-level metrics of one case: overlap, matching, confluence. Arrays only, no files."""
