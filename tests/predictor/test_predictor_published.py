"""Methods in the order of training times that others published, by datasheet rates alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cdvft_bench.accuracy.published import published_runs
from cdvft_bench.core.errors import UserError
from cdvft_bench.predictor import compare_published
from cdvft_bench.predictor.published_times import as_method, rank_correlation

RUNS = published_runs()


def test_rank_correlation_is_spearmans() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 12, 40).astype(float)  # with ties
    y = x + rng.normal(0, 4, 40)
    found = rank_correlation(x, y)
    assert found.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert rank_correlation(x, x).value == pytest.approx(1)
    noisy = x * (1 + 2.2e-16 * rng.integers(-3, 4, 40))  # added up in another order: ties are ties
    assert rank_correlation(noisy, y) == found


def test_order_ratios_and_memory_of_published_runs() -> None:
    found = compare_published()
    assert len(found.runs) + len(found.left_out) == len(RUNS) == 63
    assert len(found.runs) >= 20
    assert found.rank_correlation.value > 0.85
    assert found.rank_correlation.value > found.flops_rank_correlation.value
    assert found.ratio_median < found.flops_ratio_median
    assert found.memory_median < 0.03
    times = [r.published_s for r in found.runs]
    assert times == sorted(times)
    reference = next(r for r in found.runs if r.experiment == found.reference)
    assert (reference.published_ratio, reference.predicted_ratio, reference.flops_ratio) == (1, 1, 1)
    assert any("not predicted" in text for text in found.assumptions)


def test_a_run_counts_only_with_its_trainable_parameters() -> None:
    lora = next(r for r in RUNS if r.experiment == "lora-rank32")
    odd = dataclasses.replace(lora, experiment="odd", trainable_params=lora.trainable_params + 1)
    found = compare_published([*RUNS, odd])
    (reason,) = (text for name, text in found.left_out if name == "odd")
    assert f"{lora.trainable_params:,} trainable parameters, the run {odd.trainable_params:,}" in reason
    with pytest.raises(UserError, match="'lora-rank32'"):
        compare_published([odd])
    with pytest.raises(UserError, match="1 runs are covered by closed forms; an order needs at least 5"):
        compare_published([lora])


def test_variants_and_strangers_are_left_out() -> None:
    by_name = {r.experiment: r for r in RUNS}
    assert as_method(by_name["lora-rank32-dora"]).label == "DoRA r=32"
    assert as_method(by_name["oft-rank32"]).label == "OFT b=96"
    with pytest.raises(UserError, match="variant bat of MISS has no closed form"):
        as_method(by_name["miss-bat"])
    with pytest.raises(UserError, match="PSOFT has no closed form"):
        as_method(by_name["psoft-fast"])
