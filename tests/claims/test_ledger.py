"""A ledger that is not as it should be is refused in one line that names the entry and the rule."""

from pathlib import Path

import pytest

from cdvft_bench.claims.ledger.read import parse_ledger, read_ledger
from cdvft_bench.core.errors import UserError

HEAD = '[ledger]\ntitle = "t"\nversion = 1\n'
GOOD = {
    "id": '"x"',
    "statement": '"s"',
    "origin": '{ paper = "p", section = "s" }',
    "quantity": '"parameters"',
    "subject": '{ method = "cdvft", m = 2 }',
    "layer": '"64x64"',
    "law": '{ kind = "equals", expected = 192 }',
    "sources": '["formula"]',
}


def ledger_text(**changes: str | None) -> str:
    entry = {**GOOD, **changes}
    return HEAD + "[[claim]]\n" + "".join(f"{k} = {v}\n" for k, v in entry.items() if v is not None)


def test_the_entry_that_the_others_are_made_from_is_good() -> None:
    claim = parse_ledger(ledger_text(), "a.toml", Path()).claims[0]
    assert claim.point.place == "64x64"
    assert list(claim.settings()) == [()]


N_LOG_N = '{ kind = "n_log_n", over = "d", values = [64] }'
BAD = {
    "unknown quantity": ({"quantity": '"beauty"'}, "quantity 'beauty' is not known"),
    "no quantity": ({"quantity": None}, "'quantity' is missing"),
    "no origin": ({"origin": None}, "'origin' is missing"),
    "no section": ({"origin": '{ paper = "p" }'}, "needs 'section'"),
    "no statement": ({"statement": None}, "needs 'statement'"),
    "bad id": ({"id": '"a b"'}, "id 'a b' must be of letters"),
    "no law": ({"law": None}, "'law' is missing"),
    "unknown law": ({"law": '{ kind = "murphy" }'}, "law 'murphy' is not known"),
    "no sources": ({"sources": None}, "'sources' is missing"),
    "unknown source": ({"sources": '["oracle"]'}, "source 'oracle' is not known"),
    "unable source": ({"sources": '["clock"]'}, "source 'clock' gives no 'parameters'"),
    "source twice": ({"sources": '["count", "count"]'}, "each once"),
    "old and new name": ({"witnesses": '["count"]'}, "'witnesses' is the old name of 'sources'"),
    "for all nothing": ({"for_all": '""'}, "for_all = '' must be a text"),
    "impossible tolerance": ({"tolerance": "-0.1"}, "tolerance = -0.1 is impossible"),
    "tolerance of all": ({"tolerance": "1.0"}, "must lie between 0 and 1"),
    "tolerance no number": ({"tolerance": '"small"'}, "tolerance = 'small' is impossible"),
    "tolerance nan": ({"tolerance": "nan"}, "is impossible"),
    "no tolerance": (
        {"law": '{ kind = "linear", over = "d", values = [1, 2, 3, 4] }', "layer": None},
        "'tolerance' is",
    ),
    "law over one point": ({"law": N_LOG_N, "tolerance": "0.1"}, "law 'n_log_n' over 1 point; it needs at least 4"),
    "law over two counted": (
        {"law": '{ kind = "linear", over = "d", values = [1, 2, 3, 4], counted = [1, 2] }', "tolerance": "0.1"},
        "counted = [1, 2] must be at least 4",
    ),
    "law over falling values": (
        {"law": '{ kind = "linear", over = "d", values = [4, 3, 2, 1] }', "tolerance": "0.1"},
        "increasing order",
    ),
    "law without a range": ({"law": '{ kind = "linear" }', "tolerance": "0.1"}, "give 'over'"),
    "module that does not import": ({"subject": '{ module = "nowhere.at_all:Thing" }'}, "does not import"),
    "module that is no path": ({"subject": '{ module = "nowhere" }'}, 'must be "package.module:name"'),
    "module lacks the name": ({"subject": '{ module = "json:Thing" }'}, "does not import"),
    "wrong arguments": (
        {"subject": '{ module = "json:JSONDecoder", arguments = { depth = 3 } }'},
        "cannot be called as Class(linear, depth)",
    ),
    "unknown method": ({"subject": '{ method = "magic" }'}, "method 'magic' is not known"),
    "unknown hyperparameter": ({"subject": '{ method = "cdvft", q = 3 }'}, "no hyperparameter 'q'"),
    "no subject": ({"subject": None}, "give 'subject'"),
    "no place": ({"layer": None}, "does not say where"),
    "unknown layer": ({"layer": '"wide"'}, "'wide'"),
    "layer and model": ({"model": '"minilm"'}, "not both"),
    "unknown key": ({"colour": '"red"'}, "no key 'colour'"),
    "unknown verdict": ({"verdict": '"maybe"'}, "verdict 'maybe' is not known"),
    "assumption missing": ({"verdict": '"holds only if"'}, "needs 'assumption'"),
    "assumption to spare": ({"assumption": '"a"'}, "'assumption'"),
    "unknown axis": ({"open": "{ mood = [1] }"}, "axis 'mood' is not known"),
    "bad value on an axis": ({"open": '{ "subject.m" = [2, 0] }'}, "m = 0"),
    "axis value twice": ({"open": '{ "subject.m" = [2, 2] }'}, "twice"),
    "too many settings": (
        {"open": f'{{ tokens = {list(range(1, 400))}, "subject.m" = {list(range(1, 300))} }}'},
        "more than 100,000 combinations",
    ),
    "ratio of one": ({"law": '{ kind = "ratio", expected = 2, digits = 1 }'}, "give 'against'"),
    "ratio without figure": (
        {"law": '{ kind = "ratio" }', "against": '{ method = "lora" }'},
        "needs 'expected', or bounds",
    ),
    "bounds crossed": (
        {"law": '{ kind = "ratio", low = 2, high = 1 }', "against": '{ method = "lora" }'},
        "low below high",
    ),
    "absent of parameters": ({"law": '{ kind = "absent" }'}, "is about allocations"),
    "infinite": ({"law": '{ kind = "equals", expected = inf }'}, "must be a finite number"),
    "option unknown": ({"quantity": '{ name = "flops", colour = "red" }'}, "no option 'colour'"),
    "option missing": ({"quantity": '"flops"'}, "needs 'convention'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_entries(name: str) -> None:
    changes, rule = BAD[name]
    with pytest.raises(UserError) as caught:
        parse_ledger(ledger_text(**changes), "a.toml", Path())
    message = str(caught.value)
    label = "number 1" if name == "no id" else changes.get("id", '"x"').strip('"')
    assert message.startswith(f"a.toml, claim {label!r}: "), message
    assert rule in message
    assert "\n" not in message


def test_an_earlier_ledger_s_words_are_still_read() -> None:
    old = ledger_text(sources=None, origin=None, source=GOOD["origin"], witnesses=GOOD["sources"])
    assert parse_ledger(old, "a.toml", Path()) == parse_ledger(ledger_text(), "a.toml", Path())


def test_bad_files(tmp_path: Path) -> None:
    cases = {
        "x": "is no TOML",
        '[ledger]\ntitle = "t"\nversion = 1': "at least one [[claim]]",
        '[ledger]\ntitle = "t"\nversion = 2\n': "version = 2 must be 1",
        "[[claim]]\n": "needs a [ledger] table",
        ledger_text() + ledger_text().removeprefix(HEAD): "stands twice",
    }
    for text, rule in cases.items():
        path = tmp_path / "l.toml"
        path.write_text(text)
        with pytest.raises(UserError) as caught:
            read_ledger(path)
        assert str(path) in str(caught.value)
        assert rule in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_ledger(tmp_path / "none.toml")


def test_an_entry_without_an_id_is_named_by_its_number() -> None:
    with pytest.raises(UserError, match="claim 'number 1': a claim needs 'id'"):
        parse_ledger(ledger_text(id=None), "a.toml", Path())
