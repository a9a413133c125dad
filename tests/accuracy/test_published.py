"""PEFT's two comparisons as they come with the suite, against the formulas, layer by layer."""

from dataclasses import replace

import pytest

from cdvft_bench.accuracy.published.flux import image_linears, image_parameters
from cdvft_bench.accuracy.published.methods import adapted, method_of
from cdvft_bench.accuracy.published.reading import IMAGES, MATHS, campaign
from cdvft_bench.accuracy.published.run import PublishedRun
from cdvft_bench.analytic.models import ModelLinear, model_shape
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import method_names

NOT_HERE = {"ADALORA", "DEFT", "FROD", "GLORA", "LILY", "LN_TUNING", "PEANUT", "PSOFT", "PVERA", "SHIRA", "VBLORA"}
LLAMA = model_shape("llama-3.2-3b").linears


def parameters(chosen) -> int:
    return sum(int(method.parameters(linear.shape)) for linear, method in chosen)


def by_name(which=MATHS) -> dict[str, PublishedRun]:
    return {run.experiment: run for run in campaign(which).runs}


def counted(which, linears: tuple[ModelLinear, ...]) -> tuple[dict[str, int], dict[str, str]]:
    """Trained parameters by closed form of the runs that have one, and why the others have none."""
    found, reasons = {}, {}
    for name, run in by_name(which).items():
        try:
            found[name] = parameters(adapted(run, linears))
        except UserError as error:
            reasons[name] = str(error)
    return found, reasons


def test_the_files_hold_their_runs_on_one_device() -> None:
    for which, n in ((MATHS, 63), (IMAGES, 31)):
        runs = campaign(which).runs
        assert len(runs) == len(by_name(which)) == n
        assert {run.device for run in runs} == {"NVIDIA L40S"}
        assert all(run.train_time_s and run.peak_memory_bytes and run.batch for run in runs)
    images = campaign(IMAGES).runs
    assert sorted(run.steps or 0 for run in images) == [300] + [750] * 30
    assert [run.experiment for run in images if run.drift is None] == ["full-finetuning-default"]


def test_every_published_count_of_image_generation_is_exact_or_named() -> None:
    """The suite gives the number to the last parameter, or has no such method and says so."""
    found, reasons = counted(IMAGES, image_linears())
    runs = by_name(IMAGES)
    assert {runs[name].method for name in reasons} == NOT_HERE
    assert all("is not in the suite" in reason for reason in reasons.values())
    assert not {m.lower() for m in NOT_HERE} & set(method_names())
    exact = {name for name, n in found.items() if n == runs[name].trainable_params}
    assert found.keys() - exact == {"full-finetuning-default"}  # norms are trained too
    assert len(found) == 19
    assert image_parameters() == runs["full-finetuning-default"].trainable_params == 3_875_544_576


def test_every_published_count_on_maths_is_exact_or_named() -> None:
    found, reasons = counted(MATHS, LLAMA)
    runs = by_name(MATHS)
    exact = {name for name, n in found.items() if n == runs[name].trainable_params}
    # The table leaves out where (IA)3 scales inputs, and RoAd's variant; full fine-tuning trains norms too.
    assert {runs[name].method for name in found.keys() - exact} == {"IA3", "ROAD", "FULL"}
    assert len(exact) == 19
    assert runs["full-finetuning-lr_0.00001"].trainable_params == model_shape("llama-3.2-3b").total_parameters
    unknown = {name for name, reason in reasons.items() if "variant" in reason}
    assert unknown >= {"lora-rank32-mica", "lora-rank14-target-mlp-bdlora", "miss-bat", "miss-mini"}
    assert all("is not in the suite" in reason for reason in reasons.values())


def test_a_count_may_differ() -> None:
    """The match is no tautology: other hyperparameters and other layers give other counts."""
    lora = by_name(IMAGES)["lora-default"]
    assert parameters(adapted(lora, image_linears())) == 38_338_560
    other = replace(lora, hyperparameters={**lora.hyperparameters, "r": 31})
    assert parameters(adapted(other, image_linears())) != 38_338_560
    fewer = [x for x in image_linears() if not x.name.startswith("transformer_blocks.4.")]
    assert parameters(adapted(lora, fewer)) != 38_338_560
    ia3 = by_name(IMAGES)["ia3-default"]
    assert parameters(adapted(replace(ia3, hyperparameters={}), image_linears())) == 890_880  # outputs, not inputs


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"hyperparameters": {"r": None}}, "hyperparameter r is null"),
        ({"hyperparameters": {}}, "hyperparameter r is not given"),
        ({"hyperparameters": {"r": "eight"}}, "rank = 'eight'"),
        ({"hyperparameters": {"r": 8, "use_kasa": True}}, "variant use_kasa of LORA is not in the suite"),
        ({"method": "C3A", "hyperparameters": {"block_size": None}}, "hyperparameter block_size is null"),
        ({"method": "FOURIERFT", "hyperparameters": {}}, "hyperparameter n_frequency is not given"),
        ({"method": "BOFT", "hyperparameters": {}}, "hyperparameter boft_block_size is not given"),
        ({"method": "OFT", "hyperparameters": {"r": 7}}, "r = 7 is no number of blocks of 3072 inputs"),
        ({"method": "NEWEST"}, "method NEWEST is not in the suite"),
        ({"optimizer": "riemannian"}, "variant optimizer riemannian of LORA"),
        ({"target_modules": ("nothing",)}, "target_modules select no linear layer"),
        ({"target_modules": "["}, "target_modules select no linear layer"),
    ],
)
def test_what_no_formula_covers_is_said_in_a_line(changed: dict[str, object], message: str) -> None:
    run = replace(PublishedRun("run", "LORA", 0.5, hyperparameters={"r": 8}, target_modules=("q_proj",)), **changed)
    with pytest.raises(UserError, match=message) as caught:
        adapted(run, LLAMA)
    assert "\n" not in str(caught.value)


def test_targets_are_a_list_of_endings_or_a_pattern() -> None:
    run = PublishedRun("run", "LORA", 0.5, hyperparameters={"r": 8}, target_modules=r".*layers\.[01]\..*\.[qv]_proj")
    assert len(adapted(run, LLAMA)) == 4
    assert len(adapted(replace(run, target_modules=("q_proj", "v_proj")), LLAMA)) == 56


def test_a_model_s_name_in_a_run_s_name_is_no_variant() -> None:
    run = PublishedRun("lora/llama-3.2-3B-rank32", "LORA", 0.5, model="meta-llama/Llama-3.2-3B")
    assert method_of(run) == ("lora", "")
    image = replace(run, experiment="lora/flux2-klein-rank64-kasa", model="black-forest-labs/FLUX.2-klein-base-4B")
    assert method_of(image) == ("lora", "kasa")
    assert method_of(replace(run, optimizer="lora-fa")) == ("lora_fa", "")
