"""Events as columns: their roles, what encloses and what launched what, ranges and windows of time."""
