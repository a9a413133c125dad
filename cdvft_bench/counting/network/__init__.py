"""Whole networks built on the meta device and counted by module."""
