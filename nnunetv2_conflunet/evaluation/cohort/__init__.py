"""The evaluation of a folder of cases: pairing of files, results of cases, strata, summary."""
