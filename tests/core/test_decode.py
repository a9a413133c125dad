"""JSON comes back as it went, and what is none of the kind is named with its place."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.core.io.decode import decode


@dataclass(frozen=True)
class Leaf:
    name: str
    pairs: tuple[tuple[str, int | float | str | bool | tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Tree:
    word: Literal["yes", "no"]
    share: float | None
    leaves: tuple[Leaf, ...]
    sizes: dict[str, int]
    open: bool = False


texts = st.text(max_size=8)
values = st.one_of(
    st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts, st.booleans(), st.lists(texts).map(tuple)
)
leaves = st.builds(Leaf, texts, st.lists(st.tuples(texts, values), max_size=3).map(tuple))
trees = st.builds(
    Tree,
    st.sampled_from(["yes", "no"]),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.lists(leaves, max_size=3).map(tuple),
    st.dictionaries(texts, st.integers(), max_size=3),
    st.booleans(),
)


@given(trees)
def test_what_was_written_is_read(tree: Tree) -> None:
    assert decode(Tree, json.loads(json.dumps(asdict(tree)))) == tree


GOOD = {"word": "yes", "share": 0.5, "leaves": [{"name": "a"}], "sizes": {"x": 1}}


def test_defaults_stand_in_and_new_fields_do_no_harm() -> None:
    assert decode(Tree, GOOD | {"later": 3}) == Tree("yes", 0.5, (Leaf("a"),), {"x": 1})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"word": "maybe"}, "word = 'maybe' is not one of yes, no"),
        ({"word": ["yes"]}, "word = ['yes'] is not one of yes, no"),
        ({"share": "0.5"}, "share = '0.5' is not a finite number"),
        ({"share": True}, "share = True is not a finite number"),
        ({"share": 10**400}, "is not a finite number"),
        ({"leaves": {}}, "leaves = {} is not a list"),
        ({"leaves": [{"name": 3}]}, "leaves[0].name = 3 is not str"),
        ({"leaves": [{}]}, "leaves[0].name is missing"),
        ({"leaves": [{"name": "a", "pairs": [["x"]]}]}, "leaves[0].pairs[0] = ['x'] is not a list of 2"),
        ({"leaves": [{"name": "a", "pairs": [["x", None]]}]}, "leaves[0].pairs[0][1] = None is not int or"),
        ({"sizes": {"x": 1.5}}, "sizes.x = 1.5 is not int"),
        ({"open": 1}, "open = 1 is not bool"),
    ],
)
def test_what_is_none_of_the_kind_is_named(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=r"not|missing") as caught:
        decode(Tree, GOOD | wrong)
    assert said in str(caught.value)
