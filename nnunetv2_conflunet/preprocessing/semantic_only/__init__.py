"""Instance maps of datasets with semantic labels only: which connected components look like one lesion."""
