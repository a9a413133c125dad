"""What an event of a trace is, whoever recorded it: told by its category, else by its process and thread, else by name.

Profilers of CUDA, ROCm, XPU, MTIA, HPU, NPU and other devices use categories of their own, older ones capital letters,
the legacy profiler and other frameworks none at all. What none of the three tells is named in a note.
"""

import re
from collections import Counter
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.timing.traces.events.columns import Table
from cdvft_bench.timing.traces.files.notes import Notes
from cdvft_bench.timing.traces.names.operators import is_operator, known


class Role(IntEnum):
    """What an event is."""

    UNKNOWN = 0
    OPERATOR = 1
    """On the host: an operator, or a node of the autograd engine."""
    RANGE = 2
    """On the host: a range that the program or a library annotated."""
    RUNTIME = 3
    """On the host: a call into the device's runtime or driver."""
    ACTIVITY = 4
    """On the device: a kernel, copy or fill."""
    PYTHON = 5
    """On the host: a Python function."""
    OVERHEAD = 6
    """On the host: the profiler's own work."""
    PASSED_OVER = 7
    """Known, and no work: ranges as the device saw them, waits of streams, the profiler's own frame."""


_CATEGORIES: dict[str, Role] = {
    name: role
    for role, names in {
        Role.OPERATOR: "cpu_op, operator, cpu op",
        Role.RANGE: "user_annotation, cpu_annotation, annotation, nvtx",
        Role.PYTHON: "python_function, python, module",
        Role.OVERHEAD: "overhead, profiler overhead",
        Role.RUNTIME: "runtime, driver",
        Role.ACTIVITY: ("kernel, memcpy, memset, concurrent_kernel, cuda_op, gpu_op, mtia_ccp_events, hpu_op"),
        Role.PASSED_OVER: (
            "gpu_user_annotation, trace, external_correlation, cpu_instant_event, cuda_sync, cuda_event, sync, "
            "mtia_insight, mtia_counters, cuda_profiler_range, xpu_scope_profiler, ac2g, fwdbwd, async_cpu_to_gpu, "
            "forward_backward, gcs, gc"
        ),
    }.items()
    for name in names.split(", ")
}
"""Categories of torch.profiler, old and new, in lower case."""

_ENDINGS: dict[Role, tuple[str, ...]] = {
    Role.RUNTIME: ("_runtime", "_driver", "_api"),
    Role.ACTIVITY: ("_memcpy", "_memset", "_kernel", "_kernels", "_ccp_events"),
    Role.PASSED_OVER: ("_user_annotation", "_sync", "_profiler_range", "_event", "_counters"),
}
"""Of other devices: <device>_runtime, <device>_memcpy and the like."""

# A call into a runtime or driver: cudaLaunchKernel, hipMemcpyAsync, zeCommandListAppendLaunchKernel, urEnqueue...,
# piEnqueue..., aclrt..., synLaunch, mtiaLaunch, tops..., musa..., cnrt..., cl..., LevelZero's and OpenCL's.
RUNTIME_NAME = re.compile(
    r"^(?:(?:cuda|cu|hip|hsa_?|roctx|ze[st]?|ur|pi|cl|aclrt|acl|rt|syn|mtia|tops|gcu|musa|mu|cnrt|cn|sycl|xpu|npu|ipu|"
    r"nrt|lz)(?=[A-Z_])|__cuda|clEnqueue)\w*$"
)
_DEVICE_PROCESS = re.compile(
    r"(?:^|[\s/:(])(?:GPU|XPU|NPU|HPU|TPU|MTIA|MLU|GCU|IPU|MUSA|DCU)[\s:#]*(?:\d+\b|$)|/device:|"
    r"(?:CUDA|HIP|XPU|HPU|NPU|PrivateUse1|device) functions|Ascend Hardware|^Device \d",
    re.I,
)
_HOST_PROCESS = re.compile(r"\bCPU\b|/host:|CPU functions|CANN", re.I)
_DEVICE_THREAD = re.compile(r"^\s*(?:GPU\s+)?streams?\b|Stream ?#?\d|^XLA Ops$|^Device \d", re.I)
_DERIVED_THREAD = re.compile(
    r"^(?:XLA Modules|Steps|Framework Name Scope|Framework Ops|TensorFlow Name Scope|TensorFlow Ops|Source code|"
    r"XLA TraceMe|Async XLA Ops|Launch Stats|Derived)\b",
    re.I,
)
_DERIVED_PROCESS = re.compile(r"Overlap Analysis|^Communication\b|AI Core Freq|HBM|Spans|Traces|Python GC", re.I)
_NODE = re.compile(r"::|Backward\d*$|AccumulateGrad$")  # an operator, or a node of the autograd engine
_EITHER = frozenset({"hpu_op", "mtia_ccp_events"})  # categories of calls on the host and of work on the device
_FRAME = re.compile(r"^PyTorch Profiler|^Iteration Start|^Record Window End")
STEP = re.compile(r"^ProfilerStep\s*[#*]?\s*(\d*)")


def roles(table: Table, notes: Notes) -> NDArray[np.int8]:
    """The role of every event."""
    width, depth = len(table.tracks), len(table.names)
    keys = (table.category.astype(np.int64) * width + table.track) * depth + table.name
    unique, first, inverse, times = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    by_category = [_by_category(name) for name in table.categories]
    by_track = [_by_track(table, t) for t in range(width)]
    found = np.zeros(len(unique), np.int8)
    unknown: Counter[str] = Counter()
    for i, at in enumerate(first.tolist()):
        c, t, n = int(table.category[at]), int(table.track[at]), int(table.name[at])
        role = _role(table.names[n], table.categories[c], by_category[c], by_track[t])
        found[i] = role
        if role is Role.UNKNOWN:
            unknown[table.categories[c]] += int(times[i])
    for category, count in sorted(unknown.items(), key=lambda item: (-item[1], item[0])):
        said = f"of category {category!r}" if category else "without a category"
        notes.leave_out(f"events {said} that this tool does not understand were", count)
    return found[inverse]


def is_read(category: str) -> bool:
    """Whether the analysis makes use of events of a category of torch.profiler."""
    return _by_category(category) not in (Role.UNKNOWN, Role.PASSED_OVER)


def _by_category(category: str) -> Role:
    name = category.lower()
    known = _CATEGORIES.get(name)
    if known is not None:
        return known
    return next((role for role, endings in _ENDINGS.items() if name.endswith(endings)), Role.UNKNOWN)


def _by_track(table: Table, track: int) -> Role:
    """ACTIVITY for a track of a device, RANGE for one of a host, PASSED_OVER for a summary of other tracks."""
    process, thread = table.tracks[track]
    said = table.processes.get(process, process)
    line = table.threads.get((process, thread), thread)
    if _DERIVED_PROCESS.search(said):
        return Role.PASSED_OVER
    on_device = bool(_DEVICE_PROCESS.search(said)) and not _HOST_PROCESS.search(said)
    if on_device and _DERIVED_THREAD.search(line):
        return Role.PASSED_OVER
    if on_device or _DEVICE_THREAD.search(line):
        return Role.ACTIVITY
    return Role.RANGE if _HOST_PROCESS.search(said) else Role.UNKNOWN


def _role(name: str, category: str, by_category: Role, by_track: Role) -> Role:
    if STEP.match(name):
        return Role.PASSED_OVER if by_track is Role.ACTIVITY or by_category is Role.PASSED_OVER else Role.RANGE
    if _FRAME.match(name):
        return Role.PASSED_OVER
    if by_category is Role.OPERATOR:
        if RUNTIME_NAME.match(name):
            return Role.RUNTIME
        # The first versions wrote "Operator" for ranges, too.
        return Role.RANGE if category == "Operator" and not _NODE.search(name) else Role.OPERATOR
    if by_category is Role.ACTIVITY and category.lower() in _EITHER and by_track is not Role.ACTIVITY:
        return Role.RUNTIME if RUNTIME_NAME.match(name) else Role.ACTIVITY
    if by_category is not Role.UNKNOWN:
        return by_category
    if by_track in (Role.PASSED_OVER, Role.ACTIVITY):
        return by_track
    if RUNTIME_NAME.match(name):
        return Role.RUNTIME
    if is_operator(name) or (not category and known(name)):
        return Role.OPERATOR
    # Without any category, as the legacy profiler writes: nodes of the autograd engine, and the user's ranges.
    if not category and by_track is Role.RANGE:
        return Role.OPERATOR if _NODE.search(name) else Role.RANGE
    return Role.UNKNOWN
