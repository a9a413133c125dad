"""What a call into a device's runtime or driver does, by its name: the host's time in it is launching, or it is not."""

from __future__ import annotations

import re
from functools import cache

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
