"""Grids of cases, their three sources, and the store that keeps them."""
