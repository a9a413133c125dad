"""Traces of GPU work with known answers, files good and bad."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import asdict
from pathlib import Path

import cuda_trace as made
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cdvft_bench.core.errors import UserError
from cdvft_bench.timing.families import family, short_kernel
from cdvft_bench.timing.trace import analyse_events, export_trace, read_trace, trace_call

US = 1e-6


def test_launches_are_tied_to_operators_and_scopes() -> None:
    s = analyse_events(made.training_step())
    assert s.device == "cuda"
    assert s.launches == 5
    assert s.launch_calls == 5
    assert s.launch_seconds == pytest.approx(37 * US)
    assert s.operators == 6
    assert s.dispatched == 4
    assert s.by_operator == {"addmm": 1, "_fft_r2c": 1, "mul": 1, "mm": 1, "(no operator)": 1}
    assert s.by_kernel["regular_fft"] == 1
    assert s.by_kernel["vectorized_elementwise_kernel"] == 1
    assert s.scopes == {"base": 2, "adapter": 2, "unscoped": 1}
    assert s.scope_seconds == pytest.approx({"base": 150 * US, "adapter": 30 * US, "unscoped": 10 * US})
    assert s.notes == ()


def test_time_is_summed_by_family() -> None:
    s = analyse_events(made.training_step())
    assert s.family_launches == {"matmul": 2, "fft": 1, "elementwise": 1, "copy": 1}
    expected = {"matmul": 150 * US, "fft": 20 * US, "elementwise": 10 * US, "copy": 10 * US}
    assert s.families == pytest.approx(expected)
    assert s.device_seconds == pytest.approx(190 * US)
    # Self time of linear, addmm, _fft_r2c, view, mul and mm, without the launching calls inside.
    assert s.host_seconds == pytest.approx((20 + 40 + 30 + 3 + 25 + 50) * US)


def test_gaps_and_queue_are_exact() -> None:
    s = analyse_events(made.training_step())
    assert s.span_seconds == pytest.approx(480 * US)
    assert s.busy_fraction == pytest.approx(190 / 480)
    assert s.gaps == 4
    assert s.gap_seconds == pytest.approx(250 * US)
    assert s.largest_gap_seconds == pytest.approx(170 * US)
    assert s.starved_seconds == pytest.approx(190 * US)
    assert s.queue_delay_seconds == pytest.approx(20 * US)
    assert s.queue_depth == 0
    assert s.verdict == "launch-bound"
    assert "60%" in s.reason


def test_a_replayed_graph_is_one_call_and_many_launches() -> None:
    s = analyse_events(made.graph_replay())
    assert (s.launches, s.launch_calls) == (3, 1)
    assert s.queue_delay_seconds == pytest.approx(10 * US)
    assert (s.gaps, s.starved_seconds) == (1, 0.0)
    assert s.gap_seconds == pytest.approx(2 * US)
    assert s.verdict == "bandwidth-bound"


def test_overlapping_kernels_are_busy_once() -> None:
    events = [made.launch(0, 1, 1), made.launch(1, 2, 2), made.kernel("a", 10, 50, 1), made.kernel("b", 30, 60, 2)]
    s = analyse_events(events)
    assert s.device_seconds == pytest.approx(70 * US)
    assert s.busy_fraction == pytest.approx(50 / 60)
    assert s.gaps == 0
    assert s.queue_depth == 0.5  # none when the first was launched, one when the second was


@pytest.mark.parametrize(
    ("product", "verdict", "said"),
    [
        ((4096, 4096, 4096, "c10::BFloat16"), "compute-bound", "1.37e+03 FLOPs a byte"),
        ((1, 4096, 4096, "float"), "bandwidth-bound", "0.5 FLOPs a byte"),
        ((256, 4096, 4096, "float"), "unknown", "ridge point"),
        ((4096, 4096, 4096, "float", False), "unknown", "shapes were not recorded"),
        ((4096, 4096, 4096, "novel"), "unknown", "shapes were not recorded"),
    ],
)
def test_products_are_judged_by_their_intensity(product, verdict, said) -> None:
    s = analyse_events(made.one_product(*product))
    assert s.verdict == verdict
    assert said in s.reason


def test_waiting_with_work_in_the_queue_is_not_called_launch_bound() -> None:
    events = [made.launch(t, t + 1, t + 1) for t in (0, 1)]
    events += [made.kernel(made.GEMM, 10, 20, 1), made.kernel(made.GEMM, 90, 100, 2)]
    s = analyse_events(events)
    assert s.verdict == "unknown"
    assert "synchronisation" in s.reason


def test_kernels_without_a_launching_call_are_noted() -> None:
    s = analyse_events([made.kernel(made.MUL, 0, 10, 1), made.kernel(made.GEMM, 10, 20, 2), made.launch(0, 1, 2)])
    assert s.by_operator == {"(no operator)": 2}
    assert any("1 of 2 kernels have no launching call" in n for n in s.notes)


def test_kernels_of_several_devices_are_noted() -> None:
    events = made.graph_replay()
    events[1]["args"]["device"] = 1
    assert any("several devices" in n for n in analyse_events(events).notes)


def test_unfamiliar_kernels_take_the_family_of_their_operator() -> None:
    events = [made.op("aten::mm", 0, 50), made.launch(10, 20, 1), made.kernel("mystery_42", 30, 40, 1)]
    assert analyse_events(events).families == {"matmul": pytest.approx(10 * US)}


def test_malformed_events_are_left_out_and_counted() -> None:
    events = made.training_step()
    broken = [{**events[3], "dur": -1}, {**events[3], "ts": math.nan}, {**events[3], "ts": "now"}, {"ph": "X"}, 7, None]
    s = analyse_events([*events, *broken])
    assert s.notes == ("3 events without a time were left out",)
    assert s.launches == 5


@pytest.mark.parametrize("events", [[], [{"ph": "M"}], made.training_step()[1:3]])
def test_nothing_to_sum_up_is_an_error(events) -> None:
    with pytest.raises(UserError, match="neither operators nor kernels"):
        analyse_events(events)


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=3)
)
names = st.sampled_from(["aten::mm", "aten::add", "AddBackward0", "cudaLaunchKernel", "base", "novel"])
raw_events = st.fixed_dictionaries(
    {
        "ph": st.sampled_from(["X", "i"]),
        "cat": st.sampled_from(["cpu_op", "kernel", "cuda_runtime", "user_annotation", "gpu_memset", "other"]),
    },
    optional={
        "name": st.one_of(names, values),
        "ts": st.one_of(st.floats(0, 100), values),
        "dur": st.one_of(st.floats(0, 100), values),
        "pid": values,
        "tid": values,
        "args": st.one_of(
            values,
            st.dictionaries(
                st.sampled_from(
                    ["correlation", "Sequence number", "Fwd thread id", "Input Dims", "Input type", "device"]
                ),
                st.one_of(values, st.integers(0, 3), st.lists(st.lists(st.integers(0, 9), max_size=3), max_size=3)),
            ),
        ),
    },
)


@given(events=st.lists(st.one_of(raw_events, values), max_size=12))
@settings(max_examples=150, deadline=None)
def test_any_events_give_a_summary_or_a_user_error(events) -> None:
    try:
        s = analyse_events(events)
    except UserError:
        return
    assert s.launches == sum(s.by_operator.values()) == sum(s.scopes.values()) == sum(s.family_launches.values())
    assert s.busy_fraction is None or 0 <= s.busy_fraction <= 1 + 1e-9
    json.dumps(asdict(s), allow_nan=False)


# --- files ---------------------------------------------------------------------------------


def test_plain_compressed_and_bare_files_read_alike(tmp_path: Path) -> None:
    events = made.training_step()
    document = json.dumps({"schemaVersion": 1, "traceEvents": events}).encode()
    (tmp_path / "plain.json").write_bytes(document)
    (tmp_path / "packed.json.gz").write_bytes(gzip.compress(document))
    (tmp_path / "misnamed.json").write_bytes(gzip.compress(document))
    (tmp_path / "bare.json").write_text(json.dumps(events))
    found = [read_trace(p) for p in sorted(tmp_path.iterdir())]
    assert len(found) == 4
    assert all(s == analyse_events(events) for s in found)


WHOLE = gzip.compress(json.dumps({"traceEvents": made.training_step()}).encode())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\x00\xff\x80garbage", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (WHOLE[:200], "cannot be read"),
        (WHOLE[:60] + b"\x00" * 40 + WHOLE[100:], "cannot be read"),
        (b"3", "no list of traceEvents"),
        (b'{"events": []}', "no list of traceEvents"),
        (b'{"traceEvents": {}}', "no list of traceEvents"),
        (b'{"traceEvents": []}', "neither operators nor kernels"),
    ],
)
def test_bad_files_are_user_errors_with_their_path(tmp_path: Path, content, said) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)


def test_missing_files_and_folders_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.json' is not there"):
        read_trace(tmp_path / "missing.json")
    with pytest.raises(UserError, match="is a folder"):
        read_trace(tmp_path)


def test_an_exported_trace_reads_back_and_names_no_machine(tmp_path: Path) -> None:
    x = torch.randn(16, 16)
    path = tmp_path / "new" / "trace.json.gz"
    summary = export_trace(lambda: x @ x, path)
    assert summary == read_trace(path)
    assert summary.by_operator == {"mm": 1}
    document = json.loads(gzip.decompress(path.read_bytes()))
    assert document["traceEvents"]
    assert not {"host_name", "traceName", "distributedInfo"} & set(document)
    assert "/tmp" not in gzip.decompress(path.read_bytes()).decode()


def test_exports_must_be_named_compressed_and_be_writable(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must be named \.json\.gz"):
        export_trace(lambda: torch.ones(2) + 1, tmp_path / "trace.json")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        export_trace(lambda: torch.ones(2) + 1, tmp_path / "file" / "trace.json.gz")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trace_ties_kernels_to_scopes() -> None:
    x = torch.randn(256, 256, device="cuda", requires_grad=True)

    def step() -> None:
        with torch.profiler.record_function("adapter"):
            y = torch.fft.rfft(x).abs().sum() + (x @ x).sum()
        y.backward()

    s = trace_call(step, "cuda")
    assert s.device == "cuda"
    assert s.launches >= s.dispatched > 0
    assert s.families["fft"] > 0
    assert s.families["matmul"] > 0
    assert s.scopes["adapter"] > s.launches / 2
    assert s.queue_delay_seconds is not None
    assert s.queue_delay_seconds > 0


# --- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("mm", "matmul"), ("addmm", "matmul"), ("_scaled_dot_product_flash_attention_for_cpu", "matmul"),
        ("_fft_r2c", "fft"), ("fft_irfft", "fft"), ("add_", "elementwise"), ("mul", "elementwise"),
        ("address", "other"),
        ("_fused_adamw_", "elementwise"), ("_foreach_add_", "elementwise"), ("_conj_physical", "elementwise"),
        ("_to_copy", "copy"), ("clone", "copy"), ("zeros_like", "copy"), ("cat", "copy"), ("constant_pad_nd", "copy"),
        ("slice_backward", "copy"), ("embedding", "copy"), ("sum", "reduction"), ("native_layer_norm", "reduction"),
        ("_softmax", "reduction"), ("view", "other"), ("transpose", "other"), ("empty", "other"),
        (made.GEMM, "matmul"), (made.FFT, "fft"), (made.MUL, "elementwise"),
        ("nvjet_tst_128x256_64x4_2x1_v_bz_TNT", "matmul"), ("void gemv2T_kernel_val<int, float>", "matmul"),
        ("void cutlass::Kernel2<cutlass_80_simt_sgemm_256x128_8x4_nn_align1>(Params)", "matmul"),
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, sum_functor>>(R)", "reduction"),
        ("void at::native::elementwise_kernel<128, 2, direct_copy_kernel_cuda>(int)", "copy"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>(int)", "copy"),
        ("void at::native::(anonymous namespace)::CatArrayBatchedCopy<float, unsigned int, 2>(float*)", "copy"),
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedAdamMathFunctor>(T)", "elementwise"),
        ("Memcpy HtoD (Pageable -> Device)", "copy"), ("triton_poi_fused_add_mul_0", "elementwise"),
        ("triton_red_fused_mm_1", "reduction"), ("triton_tem_fused_mm_2", "matmul"),
        ("void cub::DeviceRadixSortOnesweepKernel<Policy>", "other"), ("my_kernel", "other"),
    ],
)  # fmt: skip
def test_names_tell_families(name, label) -> None:
    assert family(name) == label


def test_kernel_names_are_shortened() -> None:
    assert short_kernel(made.MUL) == "vectorized_elementwise_kernel"
    assert (
        short_kernel("void at::native::(anonymous namespace)::CatArrayBatchedCopy<float>(x)") == "CatArrayBatchedCopy"
    )
    assert short_kernel("Memset (Device)") == "Memset"
    assert short_kernel(made.GEMM) == made.GEMM
