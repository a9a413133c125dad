"""Parameters and FLOPs of the families that are compared, by the suite's closed forms."""

from collections.abc import Mapping

from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import make_method

TOKENS = 512
"""Tokens over which FourierFT's and the merged paths' cost of building ``dW`` is spread."""

TITLES = {
    "cdvft": "CDVFT",
    "block_circulant": "BCA",
    "lora": "LoRA",
    "fourierft_best": "FourierFT, best positions",
    "fourierft_random": "FourierFT, random positions",
    "vera": "VeRA",
}
"""Families as tables name them, and in their order. FourierFT's two differ in which frequencies they train."""

FAMILIES = tuple(TITLES)


def method_of(family: str) -> str:
    """A family's method, by its name in the suite."""
    return family.removesuffix("_best").removesuffix("_random")


def cost_of(family: str, options: Mapping[str, int], d_in: int, d_out: int, tokens: int = TOKENS) -> tuple[int, float]:
    """Trained parameters, and forward FLOPs a token that the adapter adds (convention ``flop``).

    Args:
        family: one of :data:`FAMILIES`.
        options: the method's hyperparameters, such as ``{"m": 2, "block_size": 16}``.
        d_in, d_out: layer widths.
        tokens: tokens of the forward pass.

    Raises:
        UserError: the family or an option is not known.
    """
    if family not in TITLES:
        raise UserError(f"family {family!r} is not known; use one of {', '.join(FAMILIES)}")
    method = make_method(method_of(family), dict(options))
    cost = method.cost(LinearShape(d_in, d_out, bias=False), tokens, device="cpu")
    return int(cost.parameters), float(cost.flops("forward", "flop", scope="adapter")) / tokens
