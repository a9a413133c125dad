"""What to choose from: every method at its usual settings, CDVFT and BCA over m, block size and path."""

from __future__ import annotations

from collections.abc import Sequence

from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import Method, make_method, method_class, method_names


def choices(
    layers: Sequence[LinearShape], device: str, methods: Sequence[str] = ()
) -> tuple[list[Method], list[tuple[str, str]]]:
    """Methods that fit all ``layers``, and those that do not, with the reason.

    Args:
        layers: shapes of the adapted layers. device: kind that runs them. methods: names to keep; none keeps all.

    Raises:
        UserError: a name is not known.
    """
    fitting, left_out = [], []
    for name in methods or method_names():
        for settings in method_class(name).advised(layers, device):
            made = make_method(name, settings)
            try:
                for layer in layers:
                    made.check(layer)
                    made.cost(layer, 1, device=device)
            except UserError as error:
                left_out.append((made.label, str(error)))
            else:
                fitting.append(made)
    return fitting, left_out
