"""Detection over confidence: the lesions of a case at every threshold, FROC and average precision of a cohort."""
