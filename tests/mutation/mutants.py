"""Change every constant of every formula, one at a time: some test must notice (tox -e mutants).

Each mutant is a forked process that imports the formulas with one number raised by one, and
compares them with the counts on random layers, then runs the formulas' own tests. The mutant dies
when anything differs. Survivors are listed; the exit code is their number.
"""

import ast
import importlib.abc
import importlib.util
import io
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
SEEDS = range(60)
EXECUTED = ("fused", "stored", "merged", "merged_dense", "native")
"""Paths with closed forms in execution/: each is drawn for itself, so that none waits for its turn among all."""
OWN_TESTS = [
    "tests/analytic/test_cost.py",
    "tests/analytic/test_exact_counts.py",
    "tests/methods/test_peers.py",
    "tests/methods/test_exact.py::test_degenerate_layers",
    "tests/methods/test_exact.py::test_more_rows_than_one_batch_of_the_merged_weight",
    "tests/execution/test_floors.py",
    "tests/execution/test_pieces.py::test_closed_forms_count_every_piece",
    "tests/sweep/test_quantised.py::test_formula_equals_count",
]

# Functions that hold no formula: they check input, keep integers exact, describe, or build the adapter.
NO_FORMULA = {
    "__post_init__",
    "_adapt",
    "_peak",
    "adapt_linear",
    "adapt_model",
    "added",
    "advised",
    "check",
    "check_blocks",
    "check_count",
    "config",
    "convention",
    "countable",
    "divisors",
    "environment",
    "exact",
    "examples",
    "first_misfit",
    "itemsize",
    "label",
    "no_extension",
    "options",
    "product",
    "resolved",
}
WITHOUT_FORMULA = {"__init__", "base", "_values", "_circulant", "_spelling"}
SHARED = {
    "circulant": ["cdvft", "block_circulant"],
    "costs": ["cdvft", "block_circulant"],
    "spectral_costs": ["cdvft", "block_circulant"],
    "native_costs": ["cdvft", "block_circulant"],
    "kernels": ["cdvft", "lora", "fourierft", "boft", "c3a", "dora"],
    "cost": ["cdvft", "full"],
    "linear": ["lora", "full", "cdvft"],
    "conventions": ["cdvft", "fourierft"],
}


@dataclass(frozen=True)
class Mutant:
    """The ``index``-th number of a file, raised by one."""

    path: Path
    index: int
    line: int
    text: str

    @property
    def module(self) -> str:
        return ".".join(self.path.relative_to(ROOT).with_suffix("").parts)

    @property
    def methods(self) -> list[tuple[str, str | None]]:
        """Methods to count, and the path that executes them where the file is about paths."""
        stem = self.path.stem
        names = users(stem) if stem.startswith("_") else SHARED.get(stem, [stem])
        paths = EXECUTED if self.path.parent.name == "execution" else (None,)
        return [(name, path) for name in names for path in paths]


def numbers(tree: ast.AST) -> Iterator[ast.Constant]:
    """Numbers inside functions that hold formulas, their defaults, and tables of prices and sizes, in order."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and node.name in NO_FORMULA:
            continue
        if isinstance(node, ast.FunctionDef):
            inside = [n for n in ast.walk(node) if isinstance(n, ast.Constant)]
            yield from (n for n in inside if type(n.value) in (int, float))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and not isinstance(tree, ast.ClassDef):
            yield from (n for n in ast.walk(node) if isinstance(n, ast.Constant) and type(n.value) in (int, float))
        elif isinstance(node, ast.ClassDef):
            yield from numbers(node)


def files() -> list[Path]:
    methods = sorted((ROOT / "cdvft_bench" / "methods").glob("*.py"))
    analytic = [
        ROOT / "cdvft_bench" / "analytic" / f"{name}.py"
        for name in ("kernels", "cost", "linear", "conventions", "circulant")
    ] + [ROOT / "cdvft_bench" / "execution" / f"{name}.py" for name in ("costs", "native_costs", "spectral_costs")]
    return [p for p in methods if p.stem not in WITHOUT_FORMULA] + analytic


def users(stem: str) -> list[str]:
    """Methods whose files import a module of the same folder, or one that does."""
    found = set()
    for path in (ROOT / "cdvft_bench" / "methods").glob("*.py"):
        if f"import {stem}\n" in (text := path.read_text()) or f"methods.{stem} import" in text:
            found |= {path.stem} if not path.stem.startswith("_") else set(users(path.stem))
    return sorted(found)


def mutants(path: Path) -> list[Mutant]:
    source = path.read_text()
    found = numbers(ast.parse(source))
    return [Mutant(path, i, n.lineno, source.splitlines()[n.lineno - 1].strip()) for i, n in enumerate(found)]


class Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module with one number changed."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.mutant.module:
            return None
        return importlib.util.spec_from_file_location(name, self.mutant.path, loader=self)

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        tree = ast.parse(self.mutant.path.read_text())
        number = list(numbers(tree))[self.mutant.index]
        assert isinstance(number.value, int | float)
        number.value += 1
        exec(compile(tree, str(self.mutant.path), "exec"), module.__dict__)


def survives(mutant: Mutant | None, methods: Sequence[tuple[str, str | None]] = ()) -> bool:
    """Run the tests against a mutant (None: against the formulas as they are), in this process."""
    if mutant is not None:
        sys.meta_path.insert(0, Loader(mutant))
        methods = mutant.methods
    import pytest

    from cdvft_bench.sweep.probes.exactness import check_case

    if any(check_case(name, seed, path) for seed in SEEDS for name, path in methods):
        return False
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return pytest.main(["-q", "-x", "-p", "no:cacheprovider", *OWN_TESTS]) == 0


def run(mutant: Mutant | None, methods: Sequence[tuple[str, str | None]] = ()) -> bool:
    """Whether a mutant dies, found out in a forked process; an error kills it too. None must not: see ``survives``."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if survives(mutant, methods) else 1
        except BaseException:
            code = 1
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] != 0


def main(arguments: Sequence[str]) -> int:
    """Run the mutants of all files, or of those named (``cdvft kernels``); print a line a file."""
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    import peft  # noqa: F401 - imported once here, so that every fork has it
    import pytest  # noqa: F401
    import torch
    import transformers  # noqa: F401

    import cdvft_bench.counting.count  # noqa: F401

    torch.set_num_threads(1)
    chosen = [p for p in files() if not arguments or p.stem in arguments]
    if run(None, list(dict.fromkeys(pair for path in chosen for pair in Mutant(path, 0, 0, "").methods))):
        print("the formulas as they are do not pass: run tests/methods/test_exact.py first")
        return 1
    alive: list[Mutant] = []
    total, start = 0, time.monotonic()
    for path in chosen:
        made = mutants(path)
        left = [m for m in made if not run(m)]
        alive += left
        total += len(made)
        print(f"{path.stem}: {len(made) - len(left)} of {len(made)} died", flush=True)
        for mutant in left:
            print(f"  alive: line {mutant.line}: {mutant.text}", flush=True)
    print(f"{total - len(alive)} of {total} mutants died, {time.monotonic() - start:.0f} s")
    return len(alive)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 99))
