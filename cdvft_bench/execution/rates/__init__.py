"""What a device can do, measured: by which the planner plans."""
