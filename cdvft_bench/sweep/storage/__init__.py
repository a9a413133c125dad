"""Stores of records: reading, merging, importing, tables."""
