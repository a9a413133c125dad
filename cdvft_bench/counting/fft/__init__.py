"""FFT operations counted from the algorithms that libraries run."""
