"""Of all tests: properties are held to what they say, not to how long the machine takes over an example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.fresh import Fresh

if TYPE_CHECKING:
    from cdvft_bench.claims.verdict import Verification

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def fresh() -> Iterator[Fresh]:
    """Runs programs in processes of their own."""
    made = Fresh()
    yield made
    made.close()


@pytest.fixture(scope="session")
def verification() -> Verification:
    """The suite's own ledger, judged once a test run."""
    from cdvft_bench.claims import verify

    return verify()
