"""Solvers, gradients and training runs that measure what an adapter can represent."""
