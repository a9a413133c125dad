"""What a method is: hyperparameters, a way to adapt a layer or a model, and a closed-form cost.

One file a method. A file defines one frozen dataclass that derives from :class:`Method` (or from
``PeftMethod`` in ``_peft.py``) and is decorated with :func:`register`; that is all it takes to
add a method to every grid, table and figure.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import Count, countable
from cdvft_bench.analytic.linear import LinearShape, check_count
from cdvft_bench.core.errors import UserError

if TYPE_CHECKING:  # torch takes seconds to import, and formulas do not need it
    from torch import nn


def _exact_cost(cost: Callable[..., Cost]) -> Callable[..., Cost]:
    """A method's formula, given a layer and tokens whose products with the method's own numbers do not wrap."""

    @functools.wraps(cost)
    def wrapped(self: Method, layer: LinearShape, tokens: Count, dtype: str = "float32") -> Cost:
        check_count("tokens", tokens)
        return cost(self, *self._countable(layer, tokens), dtype)

    return wrapped


def _exact_parameters(parameters: Callable[..., Count]) -> Callable[..., Count]:
    """The same of the number of parameters."""

    @functools.wraps(parameters)
    def wrapped(self: Method, layer: LinearShape) -> Count:
        return parameters(self, self._countable(layer, 1)[0])

    return wrapped


@dataclasses.dataclass(frozen=True)
class Method(ABC):
    """A parameter-efficient fine-tuning method with its hyperparameters.

    Class attributes:
        name: registry key, the file's name.
        title: how tables and figures write it.
        source: where the method is published.
        not_covered: what neither the formula nor the adapted layer covers of the method; "" for nothing.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    not_covered: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        if "cost" in vars(cls):
            cls.cost = _exact_cost(cls.cost)  # type: ignore[method-assign]
        if "parameters" in vars(cls):
            cls.parameters = _exact_parameters(cls.parameters)  # type: ignore[method-assign]

    def _countable(self, layer: LinearShape, tokens: Count) -> tuple[LinearShape, Count]:
        own = [n for n in vars(self).values() if type(n) is int]
        d_in, d_out, tokens, *_ = countable(layer.d_in, layer.d_out, tokens, *own)
        if d_in is not layer.d_in or d_out is not layer.d_out:
            layer = dataclasses.replace(layer, d_in=d_in, d_out=d_out)
        return layer, tokens

    @abstractmethod
    def parameters(self, layer: LinearShape) -> Count:
        """Trainable parameters on one linear layer."""

    @abstractmethod
    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32") -> Cost:
        """Closed-form cost of the adapted layer, the frozen base included.

        The layer stands inside a network (its input needs a gradient), takes ``tokens`` rows as
        one (1, tokens, d_in) batch, has its dropout off, and holds a base of ``dtype``.

        Raises:
            UserError: the hyperparameters do not fit the layer's shape.
        """

    @abstractmethod
    def adapt_linear(self, base: nn.Linear) -> nn.Module:
        """Wrap one layer: a module (..., d_in) to (..., d_out) whose only trainable parameters are the method's."""

    @abstractmethod
    def adapt_model(self, model: nn.Module, targets: Sequence[str]) -> nn.Module:
        """Adapt the target linear layers of a transformers model (in place; the result may be a wrapper).

        Args:
            model: the model; every parameter that the method does not train is frozen.
            targets: module-name endings, as PEFT's ``target_modules``.

        Raises:
            UserError: no linear layer matches ``targets``.
        """

    def check(self, layer: LinearShape) -> None:
        """Raise UserError where the hyperparameters do not fit the layer's shape."""
        return None

    def resolved(self, layer: LinearShape) -> Mapping[str, object]:
        """Hyperparameters as they apply to ``layer``: defaults that depend on its widths filled in."""
        return dataclasses.asdict(self)

    @property
    def label(self) -> str:
        """Short name with the hyperparameters that are set, e.g. ``LoRA r=8``."""
        values = ", ".join(f"{k}={v}" for k, v in dataclasses.asdict(self).items() if v is not None)
        return f"{self.title} ({values})" if values else self.title


M = TypeVar("M", bound=type[Method])

_REGISTRY: dict[str, type[Method]] = {}


def register(cls: M) -> M:
    """Class decorator: make a method known under its ``name``."""
    _REGISTRY[cls.name] = cls
    return cls


@cache
def _import_all() -> None:
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_") and module.name != "base":
            importlib.import_module(f"{__package__}.{module.name}")


def method_names() -> list[str]:
    """Names of all methods, sorted."""
    _import_all()
    return sorted(_REGISTRY)


def method_class(name: str) -> type[Method]:
    """The dataclass of a method.

    Raises:
        UserError: there is none of that name.
    """
    _import_all()
    if name not in _REGISTRY:
        raise UserError(f"method {name!r} is not known; use one of {', '.join(method_names())}")
    return _REGISTRY[name]


def make_method(name: str, hyperparameters: Mapping[str, Any] | None = None) -> Method:
    """Build a method from its name and hyperparameters.

    Raises:
        UserError: the name or a hyperparameter is unknown, or a value is refused.
    """
    cls = method_class(name)
    given = dict(hyperparameters or {})
    known = [f.name for f in dataclasses.fields(cls)]
    for key in given:
        if key not in known:
            raise UserError(f"{name} has no hyperparameter {key!r}; it has {', '.join(known) or 'none'}")
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: {error}") from error


def linear_targets(model: nn.Module, targets: Sequence[str]) -> list[str]:
    """Names of the ``nn.Linear`` modules of ``model`` that ``targets`` select, in order.

    A module is selected when its name is a target or ends with "." and a target, which is PEFT's
    rule for a list of target modules.

    Raises:
        UserError: none is selected.
    """
    from torch import nn

    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    chosen = [name for name in linears if any(name == t or name.endswith("." + t) for t in targets)]
    if not chosen:
        endings = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linears})) or "none"
        raise UserError(f"targets {list(targets)} match no linear layer; the model's linear layers end in: {endings}")
    return chosen


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` in the place of the submodule called ``name``."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
