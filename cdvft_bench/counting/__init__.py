"""The second witness: what the program really does. Shares no code with ``analytic``."""
