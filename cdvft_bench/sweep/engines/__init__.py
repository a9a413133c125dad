"""Ways to run the cases of a sweep."""
