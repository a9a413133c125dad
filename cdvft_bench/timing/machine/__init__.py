"""The machine under the clock: environment, GPU state, memory and self-test."""
