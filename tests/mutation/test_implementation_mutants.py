"""The faults of ``tox -e implementation-mutants`` fit the sources as they are, and every kind is tried."""

import pytest

from tests.mutation.implementations import Mutant, mutants

KINDS = {
    "wrong sign",
    "conjugate dropped",
    "one transform more",
    "one transform less",
    "change materialised",
    "scale forgotten",
    "row and column swapped",
    "accumulation dropped",
    "ragged blocks off by one",
}


@pytest.mark.parametrize("mutant", mutants(), ids=lambda m: f"{m.file}-{m.fault}".replace("/", "."))
def test_a_fault_stands_once_in_its_file_and_changes_it(mutant: Mutant) -> None:
    changed = mutant.source()
    assert mutant.new in changed
    if mutant.module:
        compile(changed, mutant.file, "exec")


def test_every_kind_of_fault_is_tried_on_every_implementation() -> None:
    tried = {(path, m.fault) for m in mutants() for path in m.paths.split(", ")}
    for path in ("handwritten", "fused", "native"):
        assert {fault for p, fault in tried if p == path} == KINDS, path
    for path in ("stored", "merged"):  # what they share with "fused" is broken there
        assert {fault for p, fault in tried if p == path} >= KINDS - {"change materialised"}, path
