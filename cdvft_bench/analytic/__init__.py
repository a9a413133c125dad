"""Closed forms: the analytic source. Exact integers, no tensor touched."""
