"""The table of GPUs: checked when it is read, with a source for every device."""

import json
from importlib import resources

import pytest

from cdvft_bench.analytic.kernels import mm
from cdvft_bench.analytic.roofline import kernel_seconds
from cdvft_bench.core.errors import UserError
from cdvft_bench.execution.planner import BUILT_IN
from cdvft_bench.predictor.devices import assumptions, by_name, datasheet_rates, devices, find_target, read_devices

TABLE = (resources.files("cdvft_bench.predictor") / "devices.toml").read_text()


def test_every_device_names_its_datasheet() -> None:
    found = devices()
    assert {"a100-40gb", "a100", "h100", "h200", "l40s", "rtx4090", "b200"} <= set(found)
    for device in found.values():
        assert any(word in device.source for word in ("datasheet", "whitepaper", "Brief"))
        assert max(device.flops.values()) > device.flops["float32"] > device.bandwidth > device.link >= device.pcie
        assert device.memory > 16e9


def test_a_datasheet_with_sparsity_is_halved() -> None:
    """Figures as printed, with sparsity: H100 and H200 1,979 TFLOPS, L40S 733 (its dense 362.05), A100 624."""
    printed = {"h100": 1979e12, "h200": 1979e12, "a100": 624e12, "l40s": 724.1e12}
    for key, rate in printed.items():
        assert devices()[key].flops["bfloat16"] == pytest.approx(rate / 2)


def test_the_planner_has_the_same_h200() -> None:
    rates, planned = datasheet_rates(devices()["h200"]), BUILT_IN["cuda"]
    assert rates.launch_s == planned.launch_s == assumptions().launch_s
    for tokens in (1, 64, 100_000):
        for dtype in ("float32", "bfloat16"):
            product = mm(tokens, 4096, 4096, dtype)
            assert kernel_seconds(product, rates, dtype) == pytest.approx(kernel_seconds(product, planned, dtype), 1e-3)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("bandwidth = 4.8e12", "bandwidth = 0", "[h200]: bandwidth = 0 must be a finite number > 0"),
        ("bandwidth = 4.8e12", "bandwidth = inf", "must be a finite number"),
        ("bandwidth = 4.8e12", 'bandwidth = "4.8"', "must be a finite number"),
        ("bandwidth = 4.8e12", "", "bandwidth = None must be"),
        ("memory = 141e9", "memori = 141e9", "unknown key 'memori'"),
        ('name = "NVIDIA H200"', "", "[h200]: name is missing"),
        ('source = "NVIDIA L40S datasheet"', 'source = ""', "[l40s]: source is missing"),
        ("float32 = 80e12, ", "", "float32 at least"),
        ("float32 = 80e12, ", "float32 = 80e12, int4 = 1.0, ", "unknown key 'int4'"),
        ("launch_s = 4e-6", "launch_s = -1", "[assumptions]: launch_s = -1"),
        ("[h200]", "[h200", "is no TOML"),
        ("[assumptions]", "extra = 3\n[assumptions]", "[extra] is not a table"),
    ],
)
def test_a_broken_table_is_told_in_one_line(old: str, new: str, said: str) -> None:
    assert old in TABLE
    with pytest.raises(UserError) as error:
        read_devices(TABLE.replace(old, new))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_gpu_by_key_by_name_or_by_calibrated_rates(tmp_path) -> None:
    assert find_target("H200").name == find_target("nvidia h200").name == "NVIDIA H200"
    assert find_target("v100").dtypes == ("float32", "float16")
    path = tmp_path / "rates.json"
    path.write_text(json.dumps(BUILT_IN["cpu"].to_json()))
    found = find_target(str(path))
    assert found.rates == BUILT_IN["cpu"]
    assert found.device is None
    path.write_text(json.dumps({**BUILT_IN["cuda"].to_json(), "device": "NVIDIA L40S"}))
    assert find_target(str(path)).device == devices()["l40s"]
    path.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        find_target(str(path))
    with pytest.raises(UserError, match=r"neither in the table nor a file .*did you mean h200"):
        find_target("h300")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("RTX 4090", "rtx4090"),
        ("A100-80GB", "a100"),
        ("a100 40GB", "a100-40gb"),
        ("nvidia h200", "h200"),
        ("L40S", "l40s"),
    ],
)
def test_gpus_as_people_write_them(text: str, key: str) -> None:
    assert by_name(text) == devices()[key]


@pytest.mark.parametrize("text", ["a100-24gb", "a", "", "nvidia"])
def test_no_gpu_is_guessed(text: str) -> None:
    assert by_name(text) is None
