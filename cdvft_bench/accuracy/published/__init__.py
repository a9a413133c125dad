"""Runs that others published, or that a user keeps in a table: read, checked, and found in this suite's methods."""
