"""Of all tests: properties are held to what they say, not to how long the machine takes over an example."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.fresh import Fresh

if TYPE_CHECKING:
    from cdvft_bench.claims.verdict import Verification

LONGEST = (
    "fuzz/test_commands.py",
    "sweep/test_grouped.py",
    "sweep/test_engine.py",
    "test_types.py",
    "browser/test_page_in_browser.py",
    "timing/test_record_gpu.py",
    "predictor/test_answer_training.py",
    "accuracy/test_trials.py",
    "timing/test_slice.py",
    "test_cli.py",
    "test_cli_campaigns.py",
    "claims/test_own_ledger.py",
    "test_guide.py",
)
"""Files that take half a minute and more: begun first, so that no process is left with one at the end."""

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    rank = {tests / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


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
