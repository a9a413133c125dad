"""What to choose from: methods at their usual settings, CDVFT and BCA over m, block size and path."""

from __future__ import annotations

from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.errors import UserError
from cdvft_bench.execution.costs import FAST_PATHS
from cdvft_bench.methods import Method, make_method, method_names

BLOCK_SIZES = (None, 1024, 256, 64)
PATHS = ("fft", "handwritten", *(p for p in FAST_PATHS if p not in ("native", "triton")))
"""For a GPU: the compiled kernels of "native" do not run there, and no count can check the closed form of Triton's."""
PEERS: dict[str, tuple[dict[str, int], ...]] = {
    "lora": ({"rank": 8}, {"rank": 16}, {"rank": 32}, {"rank": 64}),
    "dora": ({"rank": 8}, {"rank": 32}),
    "lora_fa": ({"rank": 32},),
    "vera": ({"rank": 256},),
    "randlora": ({"rank": 32},),
    "miss": ({"rank": 64},),
    "c3a": ({"block_size": 64},),
    "fourierft": ({"n_frequency": 1000},),
    "boft": ({"block_size": 4},),
    "oft": ({"block_size": 32},),
    "ia3": ({},),
    "full": ({},),
}


def choices(layers: list[LinearShape], methods: tuple[str, ...] = ()) -> tuple[list[Method], list[tuple[str, str]]]:
    """Methods that fit all ``layers``, and those that do not, with the reason.

    Args:
        layers: shapes of the adapted layers. methods: names to keep; none keeps all.

    Raises:
        UserError: a name is not known.
    """
    for name in methods:
        if name not in method_names():
            raise UserError(f"method {name!r} is not known; use one of {', '.join(method_names())}")
    candidates = _circulant(layers)
    for name, settings in PEERS.items():
        candidates += [(name, dict(values)) for values in settings]
    candidates += [(name, {}) for name in methods if name not in PEERS and name not in ("cdvft", "block_circulant")]
    fitting, left_out = [], []
    for name, values in candidates:
        if methods and name not in methods:
            continue
        made = make_method(name, values)
        try:
            for layer in layers:
                made.check(layer)
                made.cost(layer, 1)
        except UserError as error:
            left_out.append((made.label, str(error)))
        else:
            fitting.append(made)
    return fitting, left_out


def _circulant(layers: list[LinearShape]) -> list[tuple[str, dict[str, int | str]]]:
    narrowest = min(min(int(x.d_in), int(x.d_out)) for x in layers)
    found: list[tuple[str, dict[str, int | str]]] = []
    for size in BLOCK_SIZES:
        if size is not None and size >= narrowest:
            continue
        block: dict[str, int | str] = {} if size is None else {"block_size": size}
        for path in PATHS:
            found += [("cdvft", {"m": m, **block, "path": path}) for m in (2, 3) if m == 2 or path != "merged_dense"]
            found.append(("block_circulant", {**block, "path": path}))
    return found
