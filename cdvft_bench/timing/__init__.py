"""What is measured: clock, traces, memory, environment. Needs torch, numpy and the standard library only."""
