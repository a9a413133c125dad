"""What ATen operators do, by name: launch nothing, stand for others, or run a kernel. Needs no torch.

A composite (linear, matmul, reshape) is only a name for the operators inside it, which are the ones that a dispatch
mode sees; views and bare allocations launch nothing. ``operators.txt`` lists them; a test compares it with the registry
of the installed torch. A name that it lacks is taken for an operator that runs a kernel.
"""

import re
from functools import cache
from pathlib import Path
from typing import Literal

from cdvft_bench.timing.traces.names.families import operator_family

Kind = Literal["none", "composite", "kernel", "either"]
NAMESPACES = ("aten::", "cdvft::")
"""Of the operators that a dispatch mode sees."""


@cache
def _table() -> dict[str, Kind]:
    found: dict[str, Kind] = {}
    sections: dict[str, Kind] = {"[composite]": "composite", "[either]": "either", "[none]": "none"}
    kind: Kind = "kernel"
    for line in Path(__file__).with_name("operators.txt").read_text(encoding="utf-8").splitlines():
        first, *_ = words = line.split()
        if first in sections:
            kind = sections[first]
        elif first != "#":
            found.update(dict.fromkeys(words, kind))
    return found


def is_operator(name: str) -> bool:
    """Whether an event's name is that of an operator that a dispatch mode sees."""
    return name.startswith(NAMESPACES)


def bare(name: str) -> str:
    """An operator's name without its namespace."""
    for namespace in NAMESPACES:
        name = name.removeprefix(namespace)
    return name


def kind(name: str) -> Kind:
    """What an operator (by its bare name) does."""
    return _table().get(name, "kernel")


def known(name: str) -> bool:
    """Whether a bare name is surely an operator's: the legacy profiler writes none of their namespaces."""
    return kind(name) != "kernel" or operator_family(name) != "other"


# --- calls into a runtime or driver ----------------------------------------------------------


LAUNCH, GRAPH, FILL, COPY = "launch", "graph launch", "fill", "copy"
SYNC, RECORDING, HOST_FUNCTION, MEMORY, OTHER = "wait", "graph recording", "host function", "memory", "other"
LAUNCHING = frozenset({LAUNCH, GRAPH, FILL})
"""Calls whose host time is launching. A copy launches, too, but may wait in the call for the host's memory."""
ENQUEUING = LAUNCHING | {COPY}
"""Calls that put work on a device."""

_RULES: tuple[tuple[str, str], ...] = (
    (HOST_FUNCTION, r"LaunchHostFunc|StreamAddCallback|AddCallback"),
    (GRAPH, r"GraphLaunch|GraphExecLaunch|ModelExecute|executeGraph|CommandGraph\w*Enqueue|EnqueueCommandBuffer"),
    (
        RECORDING,
        r"StreamBeginCapture|StreamEndCapture|Graph(?:Add|Instantiate|Create|Clone|Exec|Destroy|Kernel|Node|"
        r"Memcpy|Memset|Upload|Conditional|Retain|Release)|CommandBuffer(?:Create|Finalize)",
    ),
    (
        SYNC,
        r"Synchronize|(?:Device|Stream|Event|Context|Ctx|Queue|Host)_?Sync(?![a-z])|EventQuery|StreamQuery|"
        r"EventWait(?!ed)|FenceHost|QueueFinish|urEventWait|zeEventHost|clFinish|clWaitFor|WaitForCompletion",
    ),
    (
        MEMORY,
        r"Malloc|Free|MemAlloc|HostAlloc|HostRegister|HostUnregister|MemPool|MemMap|MemUnmap|MemCreate|"
        r"MemRelease|MemAddress|MemGetInfo|MemSetAccess|USM\w*Alloc",
    ),
    (
        COPY,
        r"mem_?cpy|memcopy|USMMemcpy|MemBufferCopy|MemBufferRead|MemBufferWrite|MemoryCopy|PrefetchAsync|"
        r"(?:Read|Write|Copy)Buffer|MemPrefetch",
    ),
    (FILL, r"memset|MemFill|MemoryFill|MemBufferFill|USMFill|FillBuffer"),
    (LAUNCH, r"launch|EnqueueNDRange|EnqueueKernel|KernelExec|submit_kernel"),
)
_COMPILED = tuple((kind, re.compile(pattern, re.I)) for kind, pattern in _RULES)


@cache
def call_kind(name: str) -> str:
    """What a runtime call does: one of the kinds above."""
    return next((kind for kind, pattern in _COMPILED if pattern.search(name)), OTHER)


def begins_capture(name: str) -> bool:
    """Whether the calls after this one on its thread are recorded into a graph and not launched."""
    return "StreamBeginCapture" in name


def ends_capture(name: str) -> bool:
    """Whether they are launched again."""
    return "StreamEndCapture" in name
