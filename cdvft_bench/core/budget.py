"""A budget of wall time for a run of many jobs, shared by sweeps, bare-node slices, fine-tuning and studies."""

import math
import time
from dataclasses import dataclass, field

from cdvft_bench.core.errors import UserError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass
class Budget:
    """Seconds that a run may take: no job begins that would end later, were it as long as the longest so far.

    The first job always begins, so a run that is resumed again and again gets on; of no time at all, none does.

    Attributes:
        seconds: None for no end, 0 for no job.
        longest: seconds of the longest job so far.
        begun: ``time.monotonic()`` when the run began.
        ran: whether a job has ended.
    """

    seconds: float | None = None
    longest: float = 0.0
    begun: float = field(default_factory=lambda: time.monotonic())
    ran: bool = False

    @property
    def left(self) -> float:
        """Seconds that are left; infinite without an end, negative once it is exceeded."""
        return math.inf if self.seconds is None else self.begun + self.seconds - time.monotonic()

    @property
    def spent(self) -> bool:
        """Whether no further job may begin."""
        if self.seconds is not None and self.seconds <= 0:
            return True
        return self.ran and self.longest > self.left

    def took(self, seconds: float) -> None:
        """Note how long a job took."""
        self.longest = max(self.longest, seconds)
        self.ran = True


def parse_seconds(text: str) -> float:
    """Seconds from "540", "540s", "9m" or "0.5h".

    Raises:
        UserError: it is none of these, or no time > 0.
    """
    number, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 1.0)
    try:
        value = float(number) * unit
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"{text!r} is no time > 0; write 540s, 9m or 0.5h")
    return value
