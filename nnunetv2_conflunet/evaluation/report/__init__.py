"""Presentation of evaluations: tables, comparisons of methods, figures and an HTML page."""
