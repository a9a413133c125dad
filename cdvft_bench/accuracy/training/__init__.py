"""One fine-tuning run: models, tasks, data, the training loop and what of it is kept."""
