"""Hostile input to every command: a result, or exit 2 and one line; never a traceback, a crash or half a file.

Sixty tries by default; ``CDVFT_FUZZ_TRIES`` asks for more, which the tox environment ``fuzz`` does, and
``CDVFT_FUZZ_ONLY=report,pareto`` for these commands alone.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.calls import CALLS, commands, tries
from tests.fuzz.damage import make_good
from tests.fuzz.faults import Outcome, Server, outcomes, places

TRIES = int(os.environ.get("CDVFT_FUZZ_TRIES", "60"))
ONLY = os.environ.get("CDVFT_FUZZ_ONLY", "").split(",") if os.environ.get("CDVFT_FUZZ_ONLY") else []
SEED = int(os.environ.get("CDVFT_FUZZ_SEED", "1"))
MANY = TRIES > 100
SECONDS = float(os.environ.get("CDVFT_FUZZ_SECONDS", "20"))
"""Of a call, after which it is stopped: it got past its input."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_good(tmp_path_factory.mktemp("good"))


def test_every_command_has_a_call() -> None:
    known = dict(commands())
    assert set(known) == set(CALLS)
    for path, call in CALLS.items():
        assert set(call.values) <= {parameter.name for parameter in known[path].params}, path


@pytest.mark.timeout(24 * 3600)
def test_hostile_input_is_one_line(server: Server, good: dict[str, Path], tmp_path: Path) -> None:
    found: list[Outcome] = []
    for outcome in outcomes(server, tmp_path, good, tries(SEED, TRIES, not MANY, ONLY), SECONDS):
        found.append(outcome)
        if MANY and outcome.fault:
            print(f"\n{'=' * 20} {outcome.made.told}\n{outcome.made.arguments}\n{outcome.fault}", flush=True)
    print(f"{len(found)} tries: {Counter((o.outcome, o.code) for o in found)}")
    faults = places(found)
    told = "\n".join(
        f"{len(all_)} x {place}\n    such as {all_[0].made.told}: {' '.join(all_[0].made.arguments)!a:.400}"
        for place, all_ in sorted(faults.items(), key=lambda item: -len(item[1]))
    )
    assert not faults, f"{sum(map(len, faults.values()))} of {len(found)} tries:\n{told}"
