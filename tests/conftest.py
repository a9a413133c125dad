"""Of all tests: properties are held to what they say, not to how long the machine takes over an example."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
