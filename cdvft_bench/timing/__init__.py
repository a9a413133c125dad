"""The third witness: clock, traces, memory, environment. Needs torch, numpy and the standard library only."""
