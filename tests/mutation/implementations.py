"""Break implementations, one place at a time: some verdict of the ledger must change (tox -e implementation-mutants).

Each mutant is a forked process that imports one module, or compiles the kernel's C source, with a few words of it
changed, and judges the claims that have an implementation on one side. It is caught when a verdict is another than that
of the code as it is: another word, or other conditions. Those that are not caught are listed; the exit code is their
number.
"""

import importlib.abc
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
MUTANTS = Path(__file__).with_suffix(".toml")
CLAIMS = (
    "values*",
    "backward-formulas",
    "gradients-*",
    "first-row-or-column",
    "row-is-reversed-column",
    "transforms-*",
)
CLAIMS += ("no-dense-change*", "bca-gradient", "bca-learning-rate")
"""Patterns of the claims that an implementation is one side of."""


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        fault: its kind. file: its path in the repository. paths: of execution that it is about.
        old, new: what is changed; ``old`` stands there once.
    """

    fault: str
    file: str
    paths: str
    old: str
    new: str

    @property
    def module(self) -> str:
        """Name that it is imported by; "" for C."""
        path = Path(self.file)
        if path.suffix != ".py":
            return ""
        parts = path.with_suffix("").parts
        return ".".join(parts[1:] if parts[0] == "reference" else parts)

    def source(self) -> str:
        """The changed source.

        Raises:
            ValueError: what is to be changed does not stand there exactly once.
        """
        text = (ROOT / self.file).read_text()
        found = text.count(self.old)
        if found != 1:
            raise ValueError(f"{self.file} holds {self.old!r} {found} times; bring {MUTANTS.name} up to date")
        return text.replace(self.old, self.new)


def mutants() -> list[Mutant]:
    """All of them."""
    with MUTANTS.open("rb") as file:
        return [Mutant(**entry) for entry in tomllib.load(file)["mutant"]]


class Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module with its source changed."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.mutant.module:
            return None
        return importlib.util.spec_from_file_location(name, ROOT / self.mutant.file, loader=self)

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.mutant.source(), self.mutant.file, "exec"), module.__dict__)


Found = dict[str, str]
"""A verdict's word and conditions, by the claim's id."""


def judged(mutant: Mutant | None) -> Found:
    """Verdicts of the claims, in this process."""
    if mutant is not None and mutant.module:
        sys.meta_path.insert(0, Loader(mutant))
    if mutant is not None and not mutant.module:
        from cdvft_bench.execution.native import build

        changed = Path(tempfile.mkdtemp())
        for name in build.SOURCES:
            shutil.copy(build.FOLDER / name, changed)
        (changed / Path(mutant.file).name).write_text(mutant.source())
        build.FOLDER = changed  # type: ignore[misc]
        os.environ["XDG_CACHE_HOME"] = str(changed)
    from cdvft_bench.claims import verify

    found = verify(only=CLAIMS)
    return {v.claim.id: f"{v.word} {v.needed} {v.hits}/{v.judged}/{v.tried}" for v in found.verdicts}


def outcome(mutant: Mutant | None) -> Found:
    """Verdicts that a mutant leads to, found out in a forked process; an error is one, too."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            found = judged(mutant)
        except BaseException as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        with os.fdopen(write, "w") as pipe:
            json.dump(found, pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return dict(json.loads(text)) if text else {"error": "the process died"}


def main(arguments: Sequence[str]) -> int:
    """Judge all mutants, or those whose file, fault or paths hold a word that is named; print a table."""
    sys.path[:0] = [str(ROOT), str(ROOT / "reference")]
    os.chdir(ROOT)
    import peft  # noqa: F401 - imported once here, so that every fork has it; nothing of the suite is
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)
    chosen = [
        m for m in mutants() if not arguments or any(a in t for a in arguments for t in (m.file, m.fault, m.paths))
    ]
    for mutant in chosen:
        mutant.source()
    start = time.monotonic()
    as_it_is = outcome(None)
    if "error" in as_it_is:
        print(f"the code as it is cannot be judged: {as_it_is['error']}")
        return 1
    print(f"{len(as_it_is)} claims judged in {time.monotonic() - start:.0f} s\n")
    print("| fault | file | paths | verdicts that change |\n|---|---|---|---|")
    alive = 0
    for mutant in chosen:
        found = outcome(mutant)
        changed = [name for name in as_it_is if "error" not in found and found[name] != as_it_is[name]]
        alive += not changed
        said = ", ".join(changed) or f"**none** {found.get('error', '')}"
        print(f"| {mutant.fault} | {Path(mutant.file).name} | {mutant.paths} | {said} |", flush=True)
    print(f"\n{len(chosen) - alive} of {len(chosen)} mutants change a verdict, {time.monotonic() - start:.0f} s")
    return alive


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 99))
