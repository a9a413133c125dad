"""What fine-tuning runs say: costs beside accuracy, maps, starts, published runs."""
