"""The Triton path: kernels, their variants, their costs and the path itself."""
