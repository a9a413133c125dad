"""The paper's campaigns expand whole: every combination that they promise is a case, and none is left out."""

import itertools
import random
from collections import defaultdict

import pytest

from cdvft_bench.analytic.models import model_shape, target_linears
from cdvft_bench.core.case import FROZEN, Case, Value
from cdvft_bench.methods import method_names
from cdvft_bench.sweep import evaluate as sources
from cdvft_bench.sweep.grid import LeftOut, read_grid

SLICE = 600  # seconds: what a cluster lends at a time
WIDTHS = {
    768: [768, 384, 192, 96, 64],
    1024: [1024, 512, 256, 128, 64],
    2048: [2048, 1024, 512, 256, 128, 64],
    4096: [4096, 2048, 1024, 512, 256, 128, 64],
}
TOKENS = [128, 512, 2048, 8192, 32768]


def expanded(name: str) -> list[Case]:
    entries = list(read_grid(name).expand())
    assert [e for e in entries if isinstance(e, LeftOut)] == []
    cases = [e for e in entries if isinstance(e, Case)]
    assert len({c.key for c in cases}) == len(cases)
    return cases


@pytest.fixture(scope="module")
def layers() -> list[Case]:
    return expanded("paper-layers")


@pytest.fixture(scope="module")
def models() -> list[Case]:
    return expanded("paper-models")


def test_layers_hold_every_method_at_every_point(layers: list[Case]) -> None:
    assert len(layers) == 7520
    methods = defaultdict(set)
    for case in layers:
        methods[case.subject, case.tokens, case.dtype, case.pass_].add(case.method)
    axes = itertools.product((f"{d}x{d}" for d in WIDTHS), TOKENS, ("float32", "bfloat16"), ("forward", "step"))
    assert set(methods) == set(axes)
    assert all(found == {FROZEN, *method_names()} for found in methods.values())
    assert {case.device for case in layers} == {"cuda"}


def test_the_telling_cases_come_first(layers: list[Case]) -> None:
    """Any prefix of a campaign is a result: m = 2 beside its peers at every width, then other workloads."""
    for cases, peers in ((layers, {"fourierft", "c3a"}), (expanded("gpu-first"), {"fourierft", "c3a", "dora", "vera"})):
        assert cases[0].method == "cdvft"
        assert dict(cases[0].hyperparameters)["m"] == 2
        head = cases[: len(cases) // 3]
        first = [c for c in cases[:44] if (c.tokens, c.dtype, c.pass_) == (8192, "bfloat16", "step")]
        assert len(first) >= 40
        assert {c.subject for c in first} == {f"{d}x{d}" for d in WIDTHS}
        assert {*peers, "lora"} <= {c.method for c in first}
        assert {c.dtype for c in cases[: len(cases) // 50 + 40]} == {"bfloat16"}
        assert all(c.device == "cuda" for c in head)
    models = expanded("gpu-first-models")
    assert list(dict.fromkeys((c.subject, c.batch, c.sequence) for c in models)) == [
        ("roberta-base", 32, 128),
        ("vit-base", 32, 197),
        ("llama-3-8b", 1, 512),
    ]
    assert {dict(c.hyperparameters).get("path") for c in models if c.method == "cdvft"} >= {"auto", "merged_dense"}
    for name in ("gpu-first", "gpu-first-models", "paper-layers", "paper-models"):  # compiling takes longer than timing
        assert read_grid(name).limits.modes == ("eager", "graph")
    assert read_grid("gpu-compiled").limits.modes == ("eager", "graph", "compile")


def test_layers_hold_every_m_and_block_size(layers: list[Case]) -> None:
    found: dict[tuple[str, int, str, str], list[tuple[Value | None, ...]]] = defaultdict(list)
    for case in layers:
        if case.method == "cdvft":
            values = dict(case.hyperparameters)
            point = (case.subject, case.tokens, case.dtype, case.pass_)
            found[point].append((values["m"], values.get("block_size"), values.get("path")))
    for (subject, *_), given in found.items():
        sizes = WIDTHS[int(subject.partition("x")[0])]
        expected = [(1, None, None), *itertools.product((2, 3, 4), sizes, ("fft", "handwritten"))]
        expected += itertools.product((2,), sizes, ("fused", "stored", "merged", "merged_dense"))
        assert sorted(given, key=str) == sorted(expected, key=str)


def test_models_are_those_of_the_paper(models: list[Case]) -> None:
    assert len(models) == 892
    by_model = defaultdict(list)
    for case in models:
        by_model[case.subject].append(case)
    assert list(by_model) == [
        "roberta-base",
        "roberta-large",
        "vit-base",
        "vit-large",
        "gpt2-medium",
        "llama-2-7b",
        "llama-3-8b",
    ]
    for name, cases in by_model.items():
        llama = name.startswith("llama")
        assert {c.dtype for c in cases} == ({"bfloat16"} if llama else {"float32", "bfloat16"})
        assert {c.pass_ for c in cases} == {"forward", "step"}
        assert {"frozen", "full", "lora", "fourierft", "c3a", "vera", "cdvft"} <= {c.method for c in cases}
        # BitFit has nothing to train where the projections have no bias: that is why a Llama has no such case.
        biased = all(linear.shape.bias for linear in target_linears(model_shape(name)))
        assert ("bitfit" in {c.method for c in cases}) == biased == (not llama)
        tokens = model_shape(name).image_tokens
        assert tokens is None or {c.sequence for c in cases} == {tokens}


@pytest.mark.parametrize("name", ["paper-layers", "paper-models", "gpu-first", "gpu-first-models"])
def test_every_case_can_be_priced_and_fits_a_slice(name: str, layers: list[Case], models: list[Case]) -> None:
    assert read_grid(name).limits.timeout_s <= SLICE
    cases = {"paper-layers": layers, "paper-models": models}.get(name) or expanded(name)
    for case in random.Random(3).sample(cases, min(60, len(cases))):
        predicted = sources.predict(case)
        assert predicted.forward.macs > 0
        assert (predicted.parameters > 0) == (case.method != FROZEN)
