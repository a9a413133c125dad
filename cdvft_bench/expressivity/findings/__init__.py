"""Findings: what follows from algebra and from a recorded profile."""
