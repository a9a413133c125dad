"""One question, answered: which adapter to train on a model and GPU."""
