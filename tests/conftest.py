"""Of all tests: properties are held to what they say, not to how long the machine takes over an example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from cdvft_bench.claims.verdict import Verification

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def verification() -> Verification:
    """The suite's own ledger, judged once a test run."""
    from cdvft_bench.claims import verify

    return verify()
