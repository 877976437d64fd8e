"""Contact sheets: what a prediction looks like, without a reference."""
