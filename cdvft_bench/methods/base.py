"""What a method is: hyperparameters, a way to adapt a layer or a model, and a closed-form cost.

One file a method. A file defines one frozen dataclass that derives from :class:`Method` (or from
``PeftMethod`` in ``_peft.py``) and is decorated with :func:`register`; that is all it takes to add a method
to every command, grid, table and figure, and to the checks of formula against count.

A method of another package is found by its entry point of the group ``cdvft_bench.methods``, whose value is
the module that registers it.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import pkgutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import Count, countable
from cdvft_bench.analytic.linear import LinearShape, check_count
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.names import not_known
from cdvft_bench.methods._values import check_value, hints, short

if TYPE_CHECKING:  # torch takes seconds to import, and formulas do not need it
    from torch import nn

ENTRY_POINTS = "cdvft_bench.methods"
"""The group of entry points by which other packages bring methods."""

Settings = Mapping[str, int | float | str | bool]


def _exact_cost(cost: Callable[..., Cost]) -> Callable[..., Cost]:
    """A method's formula, given a layer and tokens whose products with the method's own numbers do not wrap."""

    @functools.wraps(cost)
    def wrapped(self: Method, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        check_count("tokens", tokens)
        check_value("device", device, Literal["cpu", "cuda"])
        return cost(self, *self._countable(layer, tokens), dtype, device=device)

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

    A field's annotation says what it takes, and is checked when a method is made: ``int`` an integer >= 1,
    ``float`` a finite number, ``bool``, ``Literal``, and unions of them with None.

    Class attributes:
        name: registry key, the file's name.
        title: how tables and figures write it.
        source: where the method is published.
        not_covered: what neither the formula nor the adapted layer covers of the method; "" for nothing.
        writes_base: whether it trains or overwrites the base's own weights, so that they cannot be shared.
        trains_all: whether it trains every parameter of a model, whatever the target layers.
        usual: the settings that advice weighs, as hyperparameters that differ from the defaults.
        short: names of hyperparameters in labels, where they are not written out.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    not_covered: ClassVar[str] = ""
    writes_base: ClassVar[bool] = False
    trains_all: ClassVar[bool] = False
    usual: ClassVar[tuple[Settings, ...]] = ({},)
    short: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        for name, hint in hints(type(self)).items():
            check_value(name, getattr(self, name), hint)

    @classmethod
    @abstractmethod
    def examples(cls, rng: Random, layer: LinearShape) -> Iterable[Self]:
        """Settings that fit ``layer``, drawn at random; none where none does.

        Formula and count are compared on them, so every field must take several values over many draws, and
        every branch of the formula must come up.
        """

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
    def cost(self, layer: LinearShape, tokens: Count, dtype: str = "float32", *, device: str) -> Cost:
        """Closed-form cost of the adapted layer, the frozen base included.

        The layer stands inside a network (its input needs a gradient), takes ``tokens`` rows as
        one (1, tokens, d_in) batch, has its dropout off, and holds a base of ``dtype``.

        Args:
            layer, tokens, dtype: see above.
            device: the kind that runs it, "cpu" or "cuda": work is split by it, and some layers copy to it.

        Raises:
            UserError: the hyperparameters do not fit the layer's shape.
        """

    @abstractmethod
    def adapt_linear(self, base: nn.Linear) -> nn.Module:
        """Wrap one layer: a module (..., d_in) to (..., d_out) whose only trainable parameters are the method's."""

    def adapt_model(self, model: nn.Module, targets: Sequence[str]) -> nn.Module:
        """Adapt the target linear layers of a transformers model (in place; the result may be a wrapper).

        Args:
            model: the model; every parameter that the method does not train is frozen.
            targets: module-name endings, as PEFT's ``target_modules``.

        Raises:
            UserError: no linear layer matches ``targets``, or one that does is refused.
        """
        names = linear_targets(model, targets)
        model.requires_grad_(False)
        for name in names:
            base: nn.Linear = model.get_submodule(name)  # type: ignore[assignment]
            try:
                adapted = self.adapt_linear(base)
            except UserError as error:
                raise UserError(f"layer {name!r}: {error}") from error
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, adapted)
        return model

    @classmethod
    def advised(cls, layers: Sequence[LinearShape], device: str) -> Iterable[Settings]:
        """Settings to weigh for a model with these layers on a kind of device; ``usual`` unless they depend on it."""
        return cls.usual

    @classmethod
    def paths(cls, device: str) -> tuple[str, ...]:
        """Ways to execute the method on a kind of device, of which the fastest is to be chosen; none for one alone."""
        return ()

    def check(self, layer: LinearShape) -> None:
        """Raise UserError where the hyperparameters do not fit the layer's shape."""
        return None

    @property
    def covers_quantised(self) -> bool:
        """Whether the closed form holds on a weight that is held in int8: it adds to what the base returns."""
        return False

    def resolved(self, layer: LinearShape) -> Mapping[str, object]:
        """Hyperparameters as they apply to ``layer``: defaults that depend on its widths filled in."""
        return dataclasses.asdict(self)

    @property
    def label(self) -> str:
        """Short name: the title, the first hyperparameter, and the others that are not at their defaults."""
        told = [self.title]
        for i, field in enumerate(dataclasses.fields(self)):
            value = getattr(self, field.name)
            if i == 0 or value != field.default:
                told.append(f"{self.short.get(field.name, field.name)}={short(value)}")
        return " ".join(told)


M = TypeVar("M", bound=type[Method])

_REGISTRY: dict[str, type[Method]] = {}


def register(cls: M) -> M:
    """Class decorator: make a method known under its ``name``.

    Raises:
        TypeError: it is no frozen dataclass, or lacks its name, title or source.
        ValueError: another class has that name.
    """
    if "__dataclass_params__" not in vars(cls):  # a dataclass of its own, which its frozen base makes frozen
        raise TypeError(f"{cls.__qualname__} is no frozen dataclass: write @register above @dataclass(frozen=True)")
    for attribute in ("name", "title", "source"):
        if not getattr(cls, attribute, ""):
            raise TypeError(f"{cls.__qualname__} has no {attribute}")
    hints(cls)
    known = _REGISTRY.get(cls.name)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        one, other = (f"{c.__module__}.{c.__qualname__}" for c in (cls, known))
        raise ValueError(f"{one} and {other} are both called {cls.name!r}")
    _REGISTRY[cls.name] = cls
    return cls


@cache
def _import_all() -> None:
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_") and module.name != "base":
            importlib.import_module(f"{__package__}.{module.name}")
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:  # another package's fault must not take this one's methods away
            said = f"{type(error).__name__}: {error}"
            warnings.warn(f"methods of the entry point {point.name} = {point.value} are left out: {said}", stacklevel=2)


def method_names() -> list[str]:
    """Names of all methods, sorted."""
    _import_all()
    return sorted(_REGISTRY)


def own_method_names() -> list[str]:
    """Names of the methods that have their file in this package, sorted."""
    return [name for name in method_names() if _REGISTRY[name].__module__.startswith(f"{__package__}.")]


def method_class(name: str) -> type[Method]:
    """The dataclass of a method.

    Raises:
        UserError: there is none of that name.
    """
    _import_all()
    if name not in _REGISTRY:
        raise not_known("method", name, method_names())
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
            raise not_known(f"{name} has no hyperparameter", key, known, "", "it has")
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
