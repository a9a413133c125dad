"""What is measured beside a sweep's cases: exactness, kernels without a GPU, vector widths."""
