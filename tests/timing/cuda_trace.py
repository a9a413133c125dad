"""Hand-made Chrome traces of GPU work, as torch.profiler writes them, with known answers."""

from __future__ import annotations

from typing import Any

Event = dict[str, Any]
HOST, BACKWARD, GPU = (1, 1), (1, 2), (0, 7)


def event(cat: str, name: str, start: float, end: float, track: tuple[int, int] = HOST, **args: Any) -> Event:
    pid, tid = track
    return {"ph": "X", "cat": cat, "name": name, "pid": pid, "tid": tid, "ts": start, "dur": end - start, "args": args}


def op(
    name: str, start: float, end: float, track: tuple[int, int] = HOST, seq: int | None = None, fwd: int = 0
) -> Event:
    args = {} if seq is None else {"Sequence number": seq, "Fwd thread id": fwd}
    return event("cpu_op", name, start, end, track, **args)


def launch(
    start: float, end: float, correlation: int, track: tuple[int, int] = HOST, name: str = "cudaLaunchKernel"
) -> Event:
    return event("cuda_runtime", name, start, end, track, correlation=correlation)


def kernel(name: str, start: float, end: float, correlation: int, cat: str = "kernel") -> Event:
    return event(cat, name, start, end, GPU, correlation=correlation, stream=7, device=0)


GEMM = "ampere_sgemm_128x64_tn"
FFT = "void regular_fft<768u, EPT<16u>, 32u, 2u, (padding_t)6>(kernel_arguments_t<unsigned int>)"
MUL = (
    "void at::native::vectorized_elementwise_kernel<4, at::native::BinaryFunctor<float, float, float, MulFunctor>>(int)"
)


def training_step() -> list[Event]:
    """A base layer and an adapter, forward and part of the backward; times in microseconds.

    Kernels run 40-90, 140-160, 180-190, 360-460 and 470-480, launched at 20, 120, 170, 340 and 410:
    gaps of 50, 20, 170 and 10, of which 30, 10, 150 and 0 passed before the launch.
    """
    return [
        {"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "args": {"name": "python"}},
        event("user_annotation", "ProfilerStep#3", -5, 495),
        event("user_annotation", "base", 0, 100),
        op("aten::linear", 0, 70, seq=5),
        op("aten::addmm", 10, 60, seq=5),
        launch(20, 30, 1),
        event("user_annotation", "adapter", 100, 200),
        op("aten::_fft_r2c", 110, 150, seq=6),
        launch(120, 130, 2),
        op("aten::view", 152, 155, seq=7),
        op("aten::mul", 160, 190, seq=7),
        launch(170, 175, 3),
        op("autograd::engine::evaluate_function: AddmmBackward0", 300, 400, BACKWARD, seq=5, fwd=1),
        op("AddmmBackward0", 305, 395, BACKWARD, seq=5, fwd=1),
        op("aten::mm", 320, 380, BACKWARD),
        launch(340, 350, 4, BACKWARD, "cuLaunchKernelEx"),
        launch(410, 412, 5, name="cudaMemsetAsync"),
        event("cuda_runtime", "cudaDeviceSynchronize", 420, 900, correlation=99),
        {"ph": "s", "id": 5, "pid": 1, "tid": 1, "ts": 10, "cat": "fwdbwd", "name": "fwdbwd"},
        kernel(GEMM, 40, 90, 1),
        kernel(FFT, 140, 160, 2),
        kernel(MUL, 180, 190, 3),
        kernel("sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n", 360, 460, 4),
        kernel("Memset (Device)", 470, 480, 5, "gpu_memset"),
        event("gpu_user_annotation", "base", 40, 90, GPU),
    ]


def graph_replay() -> list[Event]:
    """One cudaGraphLaunch at 0 for three kernels at 10-20, 20-30 and 32-42."""
    return [
        launch(0, 5, 9, name="cudaGraphLaunch"),
        *(kernel(MUL, start, start + 10, 9) for start in (10, 20, 32)),
    ]


def one_product(rows: int, inner: int, columns: int, dtype: str, shapes: bool = True) -> list[Event]:
    """A matrix product that keeps the device busy for 900 of 950 us."""
    dims = {"Input Dims": [[rows, inner], [inner, columns]], "Input type": [dtype, dtype]} if shapes else {}
    return [event("cpu_op", "aten::mm", 0, 60, **dims), launch(20, 30, 1), kernel(GEMM, 50, 950, 1)]
