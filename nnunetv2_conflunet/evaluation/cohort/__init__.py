"""Evaluation of a folder of cases: pairing of files, results per case, strata, summary."""
