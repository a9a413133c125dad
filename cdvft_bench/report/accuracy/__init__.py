"""The pages of fine-tuning runs."""
