"""The counted source: what the program really does. Shares no code with ``analytic``."""
