"""A trace of 186 MB, as torch.profiler writes it, through the command: time, and the memory of its process.

``pytest tests/benchmarks/test_traces.py --benchmark-only``
"""

import random
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SIZE = 186_000_000
MEMORY = 125_000_000
"""Bytes: a tenth of what a reader takes that makes an object of every event."""

OPERATORS = ("aten::mm", "aten::add", "aten::mul", "aten::linear", "aten::copy_", "aten::native_layer_norm")
KERNELS = (
    "ampere_sgemm_128x64_tn",
    "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, at::detail::Array<char*, 3> "
    ">(int, at::native::CUDAFunctor_add<float>, at::detail::Array<char*, 3>)",
    "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>(int, float, float const*, "
    "float const*, float const*, float*, float*, float*)",
)
HEAD = """{
  "schemaVersion": 1,
  "deviceProperties": [
    {
      "id": 0, "name": "NVIDIA A100-SXM4-80GB", "totalGlobalMem": 84987740160, "computeMajor": 8, "numSms": 108
    }
  ],
  "displayTimeUnit": "ms",
  "baseTimeNanoseconds": 1727744542000000000,
  "traceEvents": [
"""
OPERATOR = """  {{
    "ph": "X", "cat": "cpu_op", "name": "{name}", "pid": 4242, "tid": 4242,
    "ts": {ts:.3f}, "dur": {dur:.3f},
    "args": {{
      "External id": {id},"Record function id": 0, "Concrete Inputs": ["", "", ""], "Input type": ["float", "float", "Scalar"], "Input Strides": [[768, 1], [1, 768], []], "Input Dims": [[1024, 768], [768, {width}], []], "Ev Idx": {id}
    }}
  }}"""  # noqa: E501
LAUNCH = """  {{
    "ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 4242, "tid": 4242,
    "ts": {ts:.3f}, "dur": 4.123,
    "args": {{
      "External id": {id}, "cbid": 211, "correlation": {correlation}
    }}
  }},
  {{
    "ph": "s", "id": {correlation}, "pid": 4242, "tid": 4242, "ts": {ts:.3f},
    "cat": "ac2g", "name": "ac2g"
  }}"""
KERNEL = """  {{
    "ph": "X", "cat": "kernel", "name": "{name}", "pid": 0, "tid": 7,
    "ts": {ts:.3f}, "dur": {dur:.3f},
    "args": {{
      "External id": {id},
      "queued": 0, "device": 0, "context": 1,
      "stream": 7, "correlation": {correlation},
      "registers per thread": 32,
      "shared memory": 0,
      "blocks per SM": 0.118518,
      "warps per SM": 0.474074,
      "grid": [{grid}, 1, 1],
      "block": [128, 1, 1],
      "est. achieved occupancy %": 1
    }}
  }},
  {{
    "ph": "f", "id": {correlation}, "pid": 0, "tid": 7, "ts": {ts:.3f},
    "cat": "ac2g", "name": "ac2g", "bp": "e"
  }}"""
STEP = """  {{
    "ph": "X", "cat": "user_annotation", "name": "ProfilerStep#{number}", "pid": 4242, "tid": 4242,
    "ts": {ts:.3f}, "dur": {dur:.3f},
    "args": {{
      "External id": {number}, "Ev Idx": {number}
    }}
  }}"""
PER_STEP = 2000


def write_trace(path: Path, size: int, seed: int = 1) -> int:
    """A trace of eager steps, three nested operators a kernel; returns the number of kernels."""
    chance = random.Random(seed)
    now = free = begin = 3_000_000_000.0
    written, kernels = 0, 0
    with path.open("w") as file:
        file.write(HEAD)
        while written < size:
            kernels += 1
            length, runs = chance.uniform(15, 30), chance.uniform(2, 20)
            free = max(free, now + 8)
            shared = {"id": 4 * kernels + 2, "correlation": kernels}
            events = [
                OPERATOR.format(name=name, ts=now + depth, dur=length - 2 * depth, id=4 * kernels + depth, width=width)
                for depth, name in enumerate((chance.choice(OPERATORS), *OPERATORS[1:3]))
                for width in (chance.choice((768, 3072)),)
            ]
            events.append(LAUNCH.format(ts=now + 3, **shared))
            events.append(KERNEL.format(name=chance.choice(KERNELS), ts=free, dur=runs, grid=kernels % 77, **shared))
            free, now = free + runs + 1, now + length + 2
            if not kernels % PER_STEP:
                events.append(STEP.format(number=kernels // PER_STEP, ts=begin - 1, dur=now - begin))
                begin = now
            text = ",\n".join(events)
            file.write(",\n" + text if written else text)
            written += len(text)
        file.write('\n  ],\n  "traceName": "trace.json"\n}\n')
    return kernels


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("big") / "trace.json"
    write_trace(path, SIZE)
    return path


def analyse(path: Path) -> None:
    command = [sys.executable, "-m", "cdvft_bench", "trace", str(path), "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def test_a_trace_of_186_mb(benchmark: Any, big: Path) -> None:
    benchmark.pedantic(analyse, (big,), rounds=3)
    # Of all children of this process the largest; the others that a benchmark run starts are smaller.
    benchmark.extra_info["peak memory"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def test_reading_alone(benchmark: Any, big: Path) -> None:
    from cdvft_bench.timing.traces.events.model import read

    benchmark.pedantic(read, (big,), rounds=3)
