"""Sums, gaps, queues and verdicts of a trace."""
