"""Speed of a forward pass and of a step: one adapted layer of every method and path at two shapes (tox -e bench).

Few rounds on one thread, under names that stay, so that two commits can be compared::

    pytest tests/benchmarks --benchmark-only --benchmark-autosave     # on each commit
    pytest-benchmark compare --group-by=fullname --columns=median,iqr,rounds

One run says little of small differences: for ratios with intervals use ``cdvft-bench time``, which
interleaves the contenders, and for two whole campaigns ``cdvft-bench compare``.
"""

import time
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest

from cdvft_bench.core.case import FROZEN, CasePass
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import method_names
from cdvft_bench.methods.base import method_class
from cdvft_bench.sweep.evaluate import build
from cdvft_bench.sweep.grid import make_case
from cdvft_bench.timing.clock import fixed_threads

SHAPES = {"768x768": 128, "1024x512": 64}
"""Subjects, and tokens: a square layer, and one that narrows."""

ROUNDS, SHORTEST = 7, 2e-3  # seconds a round at least


def paths(method: str) -> list[str]:
    """The ways in which a method can run, the usual one first; none where there is one only."""
    hints = get_type_hints(method_class(method)) if method != FROZEN else {}
    return [path for path in get_args(hints.get("path")) if isinstance(path, str)]


def settings() -> Iterator[tuple[str, dict[str, Any]]]:
    yield FROZEN, {}
    for method in method_names():
        yield method, {}
        for path in paths(method)[1:]:
            yield method, {"path": path}
    for method in ("cdvft", "block_circulant"):
        for path in paths(method):
            yield method, {"block_size": "d/4", "path": path}
    for path in paths("cdvft"):
        yield "cdvft", {"m": 3, "path": path}


def possible(method: str, hyperparameters: dict[str, Any]) -> bool:
    """Whether the method takes such values at all: not every path takes every number of factors."""
    try:
        return bool(make_case(method, hyperparameters, "layer", next(iter(SHAPES))))
    except UserError:
        return False


SETTINGS = [setting for setting in settings() if possible(*setting)]


def title(setting: tuple[str, dict[str, Any]]) -> str:
    return " ".join([setting[0], *(f"{k}={v}" for k, v in setting[1].items())])


@pytest.mark.parametrize("pass_", ["forward", "step"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("setting", SETTINGS, ids=title)
def test_layer(benchmark: Any, setting: tuple[str, dict[str, Any]], shape: str, pass_: CasePass) -> None:
    method, hyperparameters = setting
    subject = build(make_case(method, hyperparameters, "layer", shape, sequence=SHAPES[shape], pass_=pass_))
    call = subject.step if pass_ == "step" else subject.forward
    benchmark.group = f"{shape}, {SHAPES[shape]} tokens, {pass_}"
    with fixed_threads(1):
        try:
            call()  # what is set up once is no part of a call
        except UserError as error:
            pytest.skip(f"not on this machine: {error}")
        call()
        start = time.perf_counter()
        call()
        once = time.perf_counter() - start
        iterations = max(1, min(100, round(SHORTEST / once)))
        benchmark.pedantic(call, rounds=ROUNDS, iterations=iterations, warmup_rounds=1)


def test_every_method_and_path_is_timed_once() -> None:
    names = [title(setting) for setting in SETTINGS]
    assert len(set(names)) == len(names)
    assert {method for method, _ in SETTINGS} == {FROZEN, *method_names()}
    for method in method_names():
        timed = {values.get("path", (paths(method) or [None])[0]) for name, values in SETTINGS if name == method}
        assert timed == set(paths(method) or [None])
    for method, values in SETTINGS:
        for shape, tokens in SHAPES.items():
            make_case(method, values, "layer", shape, sequence=tokens)
