"""Scratch memory: one piece a thread on a CPU, the allocator's own elsewhere."""

from __future__ import annotations

import threading

import torch

from cdvft_bench.execution.scratch import buffer, release_buffers

CPU, META = torch.device("cpu"), torch.device("meta")


def test_a_cpus_thread_has_one_piece_that_grows() -> None:
    release_buffers()
    first = buffer("a", 100, torch.float32, CPU)
    assert buffer("a", 50, torch.float32, CPU).data_ptr() == first.data_ptr()
    assert buffer("b", 50, torch.float32, CPU).data_ptr() != first.data_ptr()
    assert buffer("a", 100, torch.bfloat16, CPU).data_ptr() != first.data_ptr()
    assert buffer("a", 200, torch.float32, CPU).numel() == 200
    there: list[int] = []
    thread = threading.Thread(target=lambda: there.append(buffer("a", 50, torch.float32, CPU).data_ptr()))
    thread.start()
    thread.join()
    assert there[0] not in (first.data_ptr(), buffer("a", 50, torch.float32, CPU).data_ptr())


def test_elsewhere_nothing_is_shared_that_threads_streams_or_graphs_could_write_over() -> None:
    first, second = (buffer("a", 100, torch.float32, META) for _ in range(2))
    assert first.untyped_storage()._cdata != second.untyped_storage()._cdata
    assert first.shape == second.shape == (100,)
