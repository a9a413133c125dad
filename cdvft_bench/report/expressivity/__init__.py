"""The page of what the factorisation can express."""
