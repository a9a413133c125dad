"""Benchmark, profile and judge parameter-efficient fine-tuning methods."""

__version__ = "0.1.0"
