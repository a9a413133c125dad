"""A made-up campaign of any size, as varied as a real one: layers, workloads, dtypes, machines, methods."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice, product

from cdvft_bench.core.case import CasePass
from cdvft_bench.core.record import Record
from tests.made_records import ENVIRONMENT, make_records

MACHINES = {
    ENVIRONMENT: {"cpu": "Example CPU", "gpus": ()},
    "f" * 16: {"cpu": "Another CPU", "gpus": ("Example GPU",)},
}
WIDTHS = (96, 192, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 5120, 8192)
BATCHES, SEQUENCES = (1, 2, 4, 8, 16, 32), (16, 32, 64, 128, 256, 512)
START = datetime(2026, 1, 2, 3, 4, 5)
PASSES: tuple[CasePass, ...] = ("step", "forward")


def many_records(n: int) -> list[Record]:
    """``n`` records, one recorded every second; the same every time."""
    return [replace(r, created=f"{START + timedelta(seconds=i):%FT%T}Z") for i, r in enumerate(islice(_records(), n))]


def _records() -> Iterator[Record]:
    workloads = tuple((b, s, p) for b, s, p in product(BATCHES, SEQUENCES, PASSES))
    for seed, (d, extra, dtype, (environment, device)) in enumerate(
        product(WIDTHS, (0, 16), ("float32", "bfloat16"), zip(MACHINES, ("cpu", "cuda"), strict=True))
    ):
        subject = f"{d + extra}x{d + extra}"
        yield from make_records(subject, d + extra, workloads, seed, device, dtype, environment)
