"""A machine whose time passes only where a test says so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


class FakeMachine:
    """``now`` is its timer; ``work`` makes calls that take so long on it."""

    def __init__(self, seed: int = 0) -> None:
        self.seconds = 1000.0
        self.slowness = 1.0
        self.log: list[str] = []
        self.rng = np.random.default_rng(seed)

    def now(self) -> float:
        return self.seconds

    def work(self, seconds: float, name: str = "", noise: float = 0.0) -> Callable[[], None]:
        def call() -> None:
            factor = float(np.exp(self.rng.normal(0, noise))) if noise else 1.0
            self.seconds += seconds * self.slowness * factor
            self.log.append(name)

        return call
