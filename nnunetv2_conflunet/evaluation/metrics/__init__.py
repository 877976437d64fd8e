"""Lesion-level metrics of one case: overlaps, matching, confluence. Arrays only, no files."""
