"""The configuration of a CDVFT or block-circulant adapter."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from peft.config import PeftConfig

from cdvft_bench.core.errors import UserError
from cdvft_bench.execution.paths import check_path
from cdvft_bench.tuner.registration import peft_type

INITS = ("zero_diagonal", "zero_circulant", "random")

UNSUPPORTED = {
    "target_parameters": "it adapts layers, not parameters that no layer holds, as experts' stacked weights; adapt "
    "those with PEFT's LoRA",
    "trainable_token_indices": "it trains no single rows of an embedding; give the embedding's name in "
    "modules_to_save to train it whole",
}
"""Options of other methods of PEFT that this one refuses by name, and why."""


def check_supported(config: Any) -> None:
    """See that a configuration asks for nothing that the method does not have.

    Raises:
        UserError: it does.
    """
    for option, reason in UNSUPPORTED.items():
        if getattr(config, option, None):
            raise UserError(f"{option} is not supported by CDVFT: {reason}")


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass
class CdvftConfig(PeftConfig):
    """Configuration of a CDVFT adapter (arXiv 2505.00580), or of a block-circulant one (BCA, arXiv 2505.00582).

    Args:
        m: number of diagonal factors, >= 1; m - 1 circulant factors stand between them. Without diagonals it is 2.
        block_size: circulant block size p, >= 1 and at most the layer's larger width; None is ``min(d_in, d_out)``.
        diagonals: False leaves the diagonals out: the block-circulant adapter, BCA.
        alpha: scale of the weight change.
        convention: "column" or "row": what of the circulant matrix its vector is.
        init: "zero_diagonal", "zero_circulant" (both start at no change, with a gradient) or "random" (starts at one).
            The block-circulant adapter starts at zero, or with "random" at normal entries.
        path: how layers are executed, see ``cdvft_bench.execution``: "auto", "fft", "handwritten", "fused", "stored",
            "merged", "merged_dense", "native", "triton". Several active adapters and quantised bases
            run the change beside the base layer instead of merging it; so do mixed batches, by the compiled kernel for
            them where it can, else by FFTs.
        target_modules: names of the layers to adapt, a regular expression, or "all-linear"; None is PEFT's own choice
            for the architecture.
        exclude_modules: names or a regular expression of layers to leave alone.
        block_size_pattern, m_pattern: block size and m of single layers by name or regular expression.
        layers_to_transform, layers_pattern: indexes of the layers to adapt, and the name of the list that holds them.
        bias: which biases are trained, too: "none", "all" or "cdvft_only".
        modules_to_save: further modules that are trained and saved.

    Raises:
        UserError: a value is not one of these.
    """

    m: int = field(default=2, metadata=_help("Number of diagonal factors."))
    block_size: int | None = field(default=None, metadata=_help("Circulant block size p; None: the smaller width."))
    diagonals: bool = field(default=True, metadata=_help("False: the block-circulant adapter."))
    alpha: float = field(default=1.0, metadata=_help("Scale of the weight change."))
    convention: Literal["column", "row"] = field(default="column", metadata=_help("The circulant vector is a ..."))
    init: Literal["zero_diagonal", "zero_circulant", "random"] = field(
        default="zero_diagonal", metadata=_help("Initial values.")
    )
    path: str = field(default="auto", metadata=_help("How layers are executed."))
    target_modules: list[str] | str | None = field(default=None, metadata=_help("Layers to adapt."))
    exclude_modules: list[str] | str | None = field(default=None, metadata=_help("Layers to leave alone."))
    block_size_pattern: dict[str, int] = field(default_factory=dict, metadata=_help("Block sizes of single layers."))
    m_pattern: dict[str, int] = field(default_factory=dict, metadata=_help("m of single layers."))
    layers_to_transform: list[int] | int | None = field(default=None, metadata=_help("Indexes of layers to adapt."))
    layers_pattern: list[str] | str | None = field(default=None, metadata=_help("The list that holds the layers."))
    bias: str = field(default="none", metadata=_help("Biases to train: none, all or cdvft_only."))
    modules_to_save: list[str] | None = field(default=None, metadata=_help("Further modules to train and save."))
    target_parameters: list[str] | None = field(default=None, metadata=_help("Not supported."))
    trainable_token_indices: Any = field(default=None, metadata=_help("Not supported."))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type()
        check_supported(self)
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            setattr(self, name, set(value) if isinstance(value, list) else value)
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise UserError("layers_to_transform needs target_modules as a list of names, not a regular expression")
        if isinstance(self.target_modules, str) and self.layers_pattern is not None:
            raise UserError("layers_pattern needs target_modules as a list of names, not a regular expression")
        if isinstance(self.layers_to_transform, list | tuple | set) and not self.layers_to_transform:
            raise UserError(
                "layers_to_transform is empty: no layer would be adapted; name some, or leave it out to adapt all"
            )
        if self.layers_pattern and self.layers_to_transform is None:
            raise UserError("layers_pattern says where layers_to_transform counts; give both")
        _positive("m", self.m)
        for name, value in self.m_pattern.items():
            _positive(f"m_pattern[{name!r}]", value)
        if self.block_size is not None:
            _positive("block_size", self.block_size)
        for name, value in self.block_size_pattern.items():
            _positive(f"block_size_pattern[{name!r}]", value)
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, int | float) or not math.isfinite(self.alpha):
            raise UserError(f"alpha = {self.alpha!r} is not a finite number; give a finite scale")
        if self.convention not in ("column", "row"):
            raise UserError(f"convention {self.convention!r} is not known; use 'column' or 'row'")
        if self.init not in INITS:
            raise UserError(f"init {self.init!r} is not known; use one of {', '.join(INITS)}")
        if self.bias not in ("none", "all", "cdvft_only"):
            raise UserError(f"bias {self.bias!r} is not known; use 'none', 'all' or 'cdvft_only'")
        if not self.diagonals and (self.m != 2 or self.m_pattern):
            raise UserError(
                f"without diagonals there is one circulant factor and m has no meaning; leave m = {self.m} "
                "and m_pattern out"
            )
        for m in {self.m, *self.m_pattern.values()}:
            check_path(self.path, m if self.diagonals else 0)
            if self.init == "zero_circulant" and m < 2:
                raise UserError(f"init 'zero_circulant' needs m >= 2, but m = {m} has no circulant factor")

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = super().to_dict()
        # Sets come in no fixed order: sorted, the same configuration gives the same file.
        return {k: sorted(v) if isinstance(v, set) else v for k, v in values.items() if k not in UNSUPPORTED}


def _positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{name} = {value!r} must be an integer >= 1")
