"""Lists of methods that stand elsewhere name methods that there are, and leave none out where they mean all."""

from dataclasses import fields

import pytest

from cdvft_bench.accuracy.published.methods import spellings
from cdvft_bench.accuracy.training.trial import BASE, HEAD
from cdvft_bench.expressivity.budget import FAMILIES, method_of
from cdvft_bench.methods import method_class, own_method_names
from cdvft_bench.methods._peft import PeftMethod
from cdvft_bench.report.palette import KNOWN
from cdvft_bench.sweep.grid import FROZEN
from cdvft_bench.timing.bare import _BUILDERS as BARE
from tests.mutation import mutants


@pytest.mark.parametrize(
    "names",
    [
        set(KNOWN) - {HEAD, BASE},
        set(BARE),
        set(map(method_of, FAMILIES)),
        {n for names in mutants.SHARED.values() for n in names},
    ],
)
def test_names_are_of_methods(names) -> None:
    assert names - {FROZEN} <= set(own_method_names())


def test_the_bare_node_takes_hyperparameters_that_the_methods_have() -> None:
    for name, (_, hyperparameters) in BARE.items():
        if name != FROZEN:
            assert hyperparameters <= set(method_class(name).__dataclass_fields__)


def test_published_runs_find_the_hyperparameters_of_every_method_of_peft() -> None:
    import peft

    for name in own_method_names():
        cls = method_class(name)
        if issubclass(cls, PeftMethod):
            known = set(getattr(peft, cls.peft.config).__dataclass_fields__)
            found = {f: spellings(name, f)[0] for f in (one.name for one in fields(cls))}
            assert {f for f, theirs in found.items() if theirs not in known} <= {"feedforward"}, name


def test_a_shared_file_is_checked_by_the_methods_that_use_it() -> None:
    assert mutants.users("_shared") == ["delora", "fourierft", "hra", "loha", "lokr", "waveft"]
    assert {"lora", "fourierft", "dora"} <= set(mutants.users("_peft"))
    shared = [path for path in mutants.files() if path.stem.startswith("_")]
    assert shared
    assert all(mutants.users(path.stem) for path in shared)
