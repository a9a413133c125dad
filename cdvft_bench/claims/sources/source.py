"""How a witness declines."""

from __future__ import annotations


class Silent(Exception):  # noqa: N818 - no error: a witness that has nothing to say
    """A witness cannot speak of a figure.

    Attributes:
        reason: why. remedy: what would let it speak.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason, self.remedy = reason, remedy
