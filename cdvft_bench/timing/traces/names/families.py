"""The family of a kernel or operator by the table of rules, and names short enough to print."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Rule:
    """One rule of the table.

    Attributes:
        family: of what it knows. pattern: of the names, a verbose regular expression.
        weight: how much a name tells: 3 for a purpose, 2 for a means, 1 for a form, 0 for nothing.
        examples: real names that this very rule knows.
    """

    family: str
    pattern: str
    weight: int
    examples: tuple[str, ...]

    def compiled(self) -> re.Pattern[str]:
        """The pattern, which is searched for anywhere in a name."""
        return re.compile(self.pattern, re.IGNORECASE | re.VERBOSE)


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("rules.toml").read_text(encoding="utf-8"))


@cache
def families() -> dict[str, str]:
    """Families, and what belongs to each."""
    return dict(_table()["families"])


@cache
def coarse_families() -> dict[str, str]:
    """The families that the closed forms know, by the finer ones."""
    return dict(_table()["coarse"])


@cache
def rules() -> tuple[Rule, ...]:
    """The rules in their order: the first that fits wins."""
    return tuple(Rule(family, pattern, weight, tuple(names)) for family, weight, pattern, names in _table()["rules"])


_UNKNOWN = Rule("other", "", 0, ())
_MEANS = 2  # weight of a name that says by what means something is computed

# Functions that wrap another whose name is among their template arguments.
_WRAPPERS = frozenset(
    (
        *("kernel", "Kernel", "Kernel2", "device_kernel", "kentry", "globalKernel", "elementwise_kernel"),
        *("vectorized_elementwise_kernel", "unrolled_elementwise_kernel", "multi_tensor_apply_kernel"),
        *("elementwise_kernel_manual_unroll", "reduce_kernel", "index_elementwise_kernel", "legacy_elementwise_kernel"),
    )
)
_HELPERS = frozenset({"gpu_kernel_impl", "gpu_kernel_impl_nocast", "ReduceOp", "ReduceOps"})
_TELLING = re.compile(
    r"\w*(?:Functor_?\w*|Ops|_kernel_cuda|_kernel_impl|FlashAttn\w+|Fmha\w+|gemm\w*|Gemm\w*|fprop\w*|dgrad\w*|wgrad\w*|"
    r"MathFunctor|_copy_kernel\w*|KernelImpl)"
)


@cache
def _compiled() -> tuple[tuple[Rule, re.Pattern[str]], ...]:
    return tuple((rule, rule.compiled()) for rule in rules())


@cache
def rule_of(name: str) -> Rule:
    """The rule that knows a name; one of family "other" where none does."""
    return next((rule for rule, pattern in _compiled() if pattern.search(name)), _UNKNOWN)


def family(name: str) -> str:
    """Family of a kernel, or of an operator by its name with its namespace ("aten::mm")."""
    return rule_of(name).family


def operator_family(bare: str) -> str:
    """Family of an ATen operator by its bare name."""
    return rule_of(bare if "::" in bare else f"aten::{bare}").family


@cache
def family_of(kernel: str, operator: str) -> str:
    """Family of a kernel that an operator launched.

    Where the kernel's name says little, the operator's decides; where they disagree, the one that tells more.

    Args:
        kernel: its name. operator: with its namespace, "" for none.
    """
    ours = rule_of(kernel)
    theirs = rule_of(operator) if operator else _UNKNOWN
    # An operator that also communicates launches products of its own.
    if theirs.weight > ours.weight and not (theirs.family == "communication" and ours.weight >= _MEANS):
        return theirs.family
    return ours.family


def coarse(label: str) -> str:
    """The family that closed forms know: fft, matmul, reduction, copy, elementwise, native or other."""
    return coarse_families().get(label, label)


@cache
def short_kernel(name: str) -> str:
    """A kernel's name without return type, namespaces, template arguments and parameters."""
    if name.startswith("_Z"):
        return _unmangled(name)
    text = re.sub(r"\(anonymous namespace\)|<unnamed>|\[clone [^\]]*\]", "", name).removeprefix("void ")
    text = _outside(text).strip()
    if "::" in text:  # a return type stands before
        text = text.rsplit(" ", 1)[-1]
    parts = [part for part in text.split("::") if part]
    if not parts:
        return name
    return parts[-1] if parts[-1] not in ("kernel", "type") or len(parts) == 1 else "::".join(parts[-2:])


@cache
def label(name: str) -> str:
    """A short name that still tells kernels of one wrapper apart: ``vectorized_elementwise_kernel<MulFunctor>``."""
    short = short_kernel(name)
    if short.rsplit("::", 1)[-1] not in _WRAPPERS:
        return short
    inside = name[name.find(short.rsplit("::", 1)[-1]) :]
    found = next((m.group() for m in _TELLING.finditer(inside) if m.group() not in _WRAPPERS | _HELPERS), None)
    return f"{short}<{found}>" if found else short


def _outside(text: str) -> str:
    """What stands outside of angle brackets, up to the parameters; a bracket that stays open ends it."""
    depth, found = 0, []
    for i, sign in enumerate(text):
        if sign == "<":
            depth += 1
        elif sign == ">" and depth and text[i - 1] != "-":
            depth -= 1
        elif not depth:
            if sign == "(":
                if i == 0:
                    return text
                break
            found.append(sign)
    return "".join(found)


def _unmangled(name: str) -> str:
    """The last of the names that an Itanium-mangled one begins with."""
    at = re.match(r"_Z(?:N|L|K)*", name)
    rest, parts = name[at.end() if at else 2 :], []
    while found := re.match(r"L?(\d+)", rest):
        length = int(found.group(1))
        part = rest[found.end() : found.end() + length]
        if part and not part.startswith("_GLOBAL__N"):
            parts.append(part)
        rest = rest[found.end() + length :]
    return parts[-1] if parts else name
