"""A batch of requests that each have an adapter of their own, behind one frozen layer: CDVFT beside LoRA.

Every request is one token, as in decoding, and draws its adapter at random. All contenders of a row run in the same
rounds: the frozen layer alone; CDVFT by the compiled kernel for mixed batches, and by gathered factors and FFTs; LoRA
r = 8 by gathered factors and batched products (what serving systems do in one kernel); and both as PEFT's own layers
with ``adapter_names``, which take adapters as separate parameters, where so many can be made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cdvft_bench.core.text import markdown_table
from cdvft_bench.execution.mixed import mixed_change
from cdvft_bench.timing.clock import Contender, time_interleaved
from cdvft_bench.tuner.config import CdvftConfig

RANK = 8
AS_PEFT = 256
"""Adapters up to which PEFT's layers are made: they hold each as parameters of its own."""


@dataclass(frozen=True)
class Row:
    """So many requests and adapters behind a square layer of width d."""

    d: int
    requests: int
    adapters: int


ROWS = (*(Row(768, 256, k) for k in (1, 16, 256, 1024, 4096)), *(Row(4096, 64, k) for k in (1, 16, 256)))
QUICK = (Row(768, 256, 16), Row(768, 256, 1024))


@dataclass(frozen=True)
class Found:
    """Seconds a batch (median), by contender; bytes of all adapters. ``warnings``: what makes the times doubtful."""

    d: int
    requests: int
    adapters: int
    seconds: dict[str, float]
    cdvft_bytes: int
    lora_bytes: int
    threads: int
    warnings: tuple[str, ...]


def _peft_layer(config: Any, linear: nn.Linear, adapters: int) -> Any:
    """A layer of PEFT's over ``linear`` with so many random adapters, "0" and on."""
    from peft import get_peft_model

    model: Any = get_peft_model(nn.ModuleDict({"linear": linear}), config, adapter_name="0")
    for k in range(1, adapters):
        model.add_adapter(str(k), config)
    return model.base_model.model["linear"].eval()


def contenders(row: Row, only: Sequence[str] = ()) -> dict[str, Callable[[], Tensor]]:
    """The whole layer's output of one batch, by each contender (or those ``only``); makes its operands here."""
    from peft import LoraConfig

    generator = torch.Generator().manual_seed(row.adapters)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    linear = nn.Linear(row.d, row.d).requires_grad_(False)
    x, k = normal(row.requests, row.d), torch.randint(row.adapters, (row.requests,), generator=generator)
    diagonals, circulants = [normal(row.adapters, row.d) for _ in range(2)], [normal(row.adapters, 1, 1, row.d)]
    down, up = normal(row.adapters, RANK, row.d), normal(row.adapters, row.d, RANK)

    def cdvft(path: str) -> Callable[[], Tensor]:
        return lambda: linear(x) + mixed_change(x, k, diagonals, circulants, row.d, path=path)

    found: dict[str, Callable[[], Tensor]] = {
        "cdvft native": cdvft("native"),
        "frozen": lambda: linear(x),
        "cdvft fft": cdvft("fft"),
        "lora bmm": lambda: linear(x) + torch.bmm(up[k], torch.bmm(down[k], x[:, :, None]))[:, :, 0],
    }
    if row.adapters <= AS_PEFT:
        names = [str(i) for i in k.tolist()]
        configs = {
            "cdvft peft": CdvftConfig(target_modules=["linear"], init="random"),
            "lora peft": LoraConfig(r=RANK, target_modules=["linear"], init_lora_weights=False),
        }
        for name, config in configs.items():
            if only and name not in only:
                continue
            layer = _peft_layer(config, nn.Linear(row.d, row.d), row.adapters)
            found[name] = lambda layer=layer: layer(x, adapter_names=names)  # type: ignore[misc]
    return {name: call for name, call in found.items() if not only or name in only}


def measure(rows: Sequence[Row], budget_s: float, threads: int) -> list[Found]:
    """Each row's contenders by turns, in this process.

    Args:
        budget_s: seconds of measuring in all; making thousands of adapters comes on top.

    Raises:
        UserError: there are no compiled kernels.
    """
    found = []
    for row in rows:
        share = budget_s / len(rows)
        with torch.no_grad():
            calls = [Contender(name, call) for name, call in contenders(row).items()]
            timing = time_interleaved(calls, precision=0.01, budget_s=share, min_rounds=5, threads=threads)
        seconds = {sample.name: sample.median for sample in timing.samples}
        one = 4 * row.adapters * row.d
        doubts = tuple(timing.warnings)
        found.append(Found(row.d, row.requests, row.adapters, seconds, 3 * one, 2 * RANK * one, threads, doubts))
    return found


def table(found: Sequence[Found]) -> str:
    """Markdown: thousands of requests a second through the layer, by the number of adapters."""
    names = list(dict.fromkeys(name for f in found for name in f.seconds))
    head = ["d", "requests", "adapters", "MB: CDVFT, LoRA", *names]
    rows = []
    for f in found:
        rates = [f"{f.requests / f.seconds[name] / 1e3:.1f}" if name in f.seconds else "not measured" for name in names]
        held = f"{f.cdvft_bytes / 1e6:.3g}, {f.lora_bytes / 1e6:.3g}"
        rows.append([f.d, f.requests, f"{f.adapters:,}", held, *rates])
    return "\n".join(markdown_table(head, rows))
