"""Grids of cases, their three witnesses, and the store that keeps them."""
