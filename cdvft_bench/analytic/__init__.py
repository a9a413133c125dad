"""Closed forms: the first witness. Exact integers, no tensor touched."""
