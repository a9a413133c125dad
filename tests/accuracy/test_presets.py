"""The suite's own presets: they read, and every method fits every layer that it would adapt."""

from importlib import resources

import pytest

from cdvft_bench.accuracy.preset import Preset, read_presets
from cdvft_bench.accuracy.search import left, pending
from cdvft_bench.accuracy.training.trial import BASE, HEAD
from cdvft_bench.analytic.models import model_shape, target_linears
from cdvft_bench.methods import make_method

PRESETS = sorted(
    path.name.removesuffix(".toml") for path in (resources.files("cdvft_bench.accuracy") / "presets").iterdir()
)


@pytest.mark.parametrize("name", PRESETS)
def test_every_method_fits(name: str) -> None:
    presets = read_presets(name)
    assert name in [preset.name for preset in presets] or name == "gpu-full"
    for preset in presets:
        _check(preset)


def _check(preset: Preset) -> None:
    name = preset.name
    labels = [(c.trial.label, c.trial.optimizer, c.trial.hyperparameters) for c in preset.contenders]
    assert len(labels) == len(set(labels))
    named = {label.removesuffix(" auto").removesuffix(" fft") for label, *_ in labels}
    if preset.map:
        assert {"LoRA r=8", "CDVFT m=2 p=128"} <= named
    elif preset.trials and name not in ("tweets-minilm", "cpu-small"):
        fourier = "FourierFT n=384" if name == "clothes-vit" else "FourierFT n=1000"
        assert {"Full fine-tuning", "LoRA r=8", "LoRA r=1", "CDVFT m=2 p=d", fourier} <= named
        assert any(label.startswith("C3A") for label in named)
        assert len(preset.seeds) >= (10 if name == "problems-smollm2" else 5)
    else:
        assert len(preset.seeds) >= (3 if name.startswith("cpu") else 5)
        assert len(named) == len(labels)
        ranks = {f"LoRA r={r}" for r in (1, 4, 8, 16)}
        assert {"Full fine-tuning", *ranks, *(f"CDVFT m={m} p=d" for m in (1, 2, 3, 4))} <= named
    layers = {linear.shape for linear in target_linears(model_shape(preset.contenders[0].trial.model))}
    trained = [contender for contender in preset.contenders if contender.trial.method != BASE]
    for contender in trained:
        if contender.trial.method != HEAD:
            method = make_method(contender.trial.method, dict(contender.trial.hyperparameters))
            for layer in layers:
                method.check(layer)
                assert int(method.cost(layer, 8, device="cpu").parameters) > 0
    tuned = {len(contender.lrs) for contender in trained}
    assert len(tuned) == 1  # the same budget for all
    assert len({len(contender.factors) for contender in trained}) == 1
    if preset.trials:  # the pilot comes first, and the first rates of its grids
        assert (preset.gain is None) == (name == "cpu-small")
        assert (preset.gain or 0.05) >= 0.05
        asked = preset.contenders[:2] if preset.gain else preset.contenders
        assert len(list(pending(preset, {}))) == sum(3 if c.grid else 1 for c in asked)
        runs = preset.trials + preset.full_length + preset.repeated + len(preset.seeds)
        assert left(preset, {}) == len(trained) * runs + len(preset.contenders) - len(trained)
        return
    first = tuned.pop() * len(trained) * (len(preset.seeds) if preset.map else 1)
    assert len(list(pending(preset, {}))) == first + len(preset.contenders) - len(trained)
