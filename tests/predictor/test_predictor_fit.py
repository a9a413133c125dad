"""Efficiencies are found again where they were put in; the prior decides where there is nothing to find."""

import dataclasses

import numpy as np
import pytest

from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.roofline import at, kernel_parts, predict_seconds
from cdvft_bench.execution.planner import BUILT_IN
from cdvft_bench.methods import make_method
from cdvft_bench.predictor.fit import PRIOR, Work, fit, interval, make_terms, predict

SETTINGS = [
    (name, values, width, tokens)
    for name, values in (
        ("lora", {"rank": 8}),
        ("cdvft", {"m": 2}),
        ("cdvft", {"m": 3, "block_size": 32}),
        ("c3a", {"block_size": 64}),
        ("fourierft", {"n_frequency": 500}),
        ("block_circulant", {"path": "merged"}),
    )
    for width in (256, 1024, 2048)
    for tokens in (16, 256, 4096, 65_536)
]


IN_PLACE = {"_fused_adamw_", "_foreach_add_", "mul_", "add_", "addcmul_", "conj_physical_"}


def works(device: str, dtype: str = "float32") -> list[Work]:
    rates = BUILT_IN[device]
    return [
        Work(make_method(n, v).cost(LinearShape(d, d), t, dtype, device="cpu").kernels("step"), rates, dtype)
        for n, v, d, t in SETTINGS
    ]


def summed(work: Work) -> float:
    """Arithmetic, traffic and launch of every kernel, one after the other."""
    seconds = 0.0
    for kernel in work.kernels:
        bytes_ = float(kernel.read + kernel.written)
        like = {"matmul": "reduction", "fft": "elementwise"}.get(kernel.kind, kernel.kind)
        like = "copy" if kernel.op in IN_PLACE else like
        traffic = bytes_ / at(work.rates.bandwidth[like], bytes_)
        arithmetic = kernel_parts(kernel, work.rates, work.dtype).arithmetic
        seconds += (arithmetic + traffic + work.rates.launch_s) * float(kernel.launches)
    return seconds


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_at_full_rates_it_is_the_roofline_on_a_gpu_and_the_sum_on_a_cpu(device: str, dtype: str) -> None:
    made = works(device, dtype)
    terms = make_terms(made)
    found = predict(terms, np.zeros(len(terms.kinds)))
    expected = [summed(w) if device == "cpu" else predict_seconds(w.kernels, w.rates, dtype) for w in made]
    assert found.seconds == pytest.approx(expected)
    assert found.by_kind.sum(1) == pytest.approx(expected)
    assert found.bounds.sum(1) == pytest.approx(expected)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_slopes_are_those_of_finite_differences(device: str) -> None:
    """d log T / d log e = -(seconds that depend on e) / T, away from the kinks of the maximum."""
    terms = make_terms(works(device))
    theta = np.random.default_rng(0).normal(0, 0.3, len(terms.kinds))
    found = predict(terms, theta)
    for i in range(len(theta)):
        up, down = theta.copy(), theta.copy()
        up[i] += 1e-7
        down[i] -= 1e-7
        slope = (np.log(predict(terms, up).seconds) - np.log(predict(terms, down).seconds)) / 2e-7
        assert slope == pytest.approx(-found.by_kind[:, i] / found.seconds, abs=1e-5)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_efficiencies_are_found_again_in_spite_of_outliers(device: str) -> None:
    terms = make_terms(works(device))
    rng = np.random.default_rng(1)
    truth = rng.uniform(-0.8, 0.2, len(terms.kinds))
    seconds = predict(terms, truth).seconds * np.exp(rng.normal(0, 0.03, terms.calls))
    busy = rng.permutation(terms.calls)[:6]
    seconds[busy] *= 5
    found = fit(terms, seconds)
    deviation = np.sqrt(np.diag(found.covariance))
    known = deviation < 0.1 * PRIOR
    assert known.sum() >= 3
    for i in np.flatnonzero(known):
        assert found.log_efficiency[i] == pytest.approx(truth[i], abs=3 * deviation[i]), terms.kinds[i]
    assert np.median(np.abs(np.delete(found.residuals, busy))) < 0.05
    assert np.min(np.abs(found.residuals[busy])) > 1


def test_the_prior_decides_without_data() -> None:
    terms = make_terms(works("cpu"))
    found = fit(terms.of(np.arange(0)), np.zeros(0))
    assert found.log_efficiency == pytest.approx(np.zeros(len(terms.kinds)))
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx(np.full(len(terms.kinds), PRIOR))


def test_left_out_errors_are_those_of_fits_without_the_call() -> None:
    terms = make_terms(works("cpu"))
    rng = np.random.default_rng(2)
    seconds = predict(terms, np.full(len(terms.kinds), -0.5)).seconds * np.exp(rng.normal(0, 0.1, terms.calls))
    whole = fit(terms, seconds)
    for i in range(0, terms.calls, 6):
        others = np.delete(np.arange(terms.calls), i)
        without = fit(terms.of(others), seconds[others], start=whole.log_efficiency)
        missed = np.log(seconds[i] / without.predict(terms.of(np.array([i]))).seconds[0])
        assert whole.left_out[i] == pytest.approx(missed, abs=0.03)


def test_groups_left_out_are_those_of_fits_without_the_group() -> None:
    terms = make_terms(works("cpu"))
    rng = np.random.default_rng(2)
    seconds = predict(terms, np.full(len(terms.kinds), -0.5)).seconds * np.exp(rng.normal(0, 0.1, terms.calls))
    whole = fit(terms, seconds)
    groups = [str(d) for _, _, d, _ in SETTINGS]  # of one width
    found = whole.left_out_by(groups)
    for name in set(groups):
        rows = np.flatnonzero(np.array(groups) == name)
        others = np.flatnonzero(np.array(groups) != name)
        without = fit(terms.of(others), seconds[others], start=whole.log_efficiency)
        missed = np.log(seconds[rows] / without.predict(terms.of(rows)).seconds)
        assert found[rows] == pytest.approx(missed, abs=0.06)
    assert whole.left_out_by([str(i) for i in range(terms.calls)]) == pytest.approx(whole.left_out, abs=1e-9)


def test_intervals_hold_95_percent_of_new_calls() -> None:
    terms = make_terms(works("cpu"))
    rng = np.random.default_rng(3)
    inside = []
    for _ in range(20):
        truth = predict(terms, rng.normal(0, 0.3, len(terms.kinds))).seconds
        seconds, new = (truth * np.exp(rng.normal(0, 0.15, terms.calls)) for _ in range(2))
        found = fit(terms, seconds)
        low, high = interval(found.left_out) or (np.nan, np.nan)
        predicted = found.predict(terms).seconds
        inside.append(np.mean((predicted * low <= new) & (new <= predicted * high)))
    assert 0.92 <= np.mean(inside) <= 0.995
    assert interval(np.zeros(9)) is None


def test_a_kind_that_was_not_fitted_keeps_its_full_rate() -> None:
    plain = make_terms([w for w, s in zip(works("cpu"), SETTINGS, strict=True) if s[0] == "lora"])
    assert "fft" not in plain.kinds
    found = fit(plain, predict(plain, np.full(len(plain.kinds), -0.7)).seconds)
    new = make_terms(works("cpu"), found.kinds)
    assert new.kinds[: len(found.kinds) - 1] == found.kinds[:-1]
    logs = dict(zip(found.kinds, found.log_efficiency, strict=True))
    expected = predict(new, np.array([logs.get(kind, 0.0) for kind in new.kinds])).seconds
    assert found.predict(new).seconds == pytest.approx(expected)


def test_without_launches_they_cost_nothing() -> None:
    work = works("cpu")[0]
    free = dataclasses.replace(work, rates=dataclasses.replace(work.rates, launch_s=1e-30))
    terms = make_terms([work])
    zeros = np.zeros(len(terms.kinds))
    assert predict(terms, zeros, launches=False).seconds == pytest.approx(predict(make_terms([free]), zeros).seconds)
