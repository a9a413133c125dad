"""Figures, drawn from what analysis says."""
