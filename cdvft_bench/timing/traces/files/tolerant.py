"""One JSON object that strict JSON refuses, read by what its writer must have meant.

For single events that a strict reader has refused: quotes and backslashes that should have been escaped, ``inf``,
``nan`` and ``N/A`` where a number was due, a comma too many or too few, single quotes, an end that is missing.
"""

import re
from typing import Any

from cdvft_bench.timing.traces.files.notes import Notes

_DEPTH = 64  # of nested values: no event is deeper
_SPACE = re.compile(r"[\s\x00]*")
_WORD = re.compile(r"[^\s,:{}\[\]\"']+")
_PLAIN = {'"': re.compile(r'[^"\\]*'), "'": re.compile(r"[^'\\]*")}
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([\"\\/bfnrt]))")
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
# What may follow the quote that ends a string: after a key a colon; after a member's value another key or the end of
# its object; after an element another element or the end of its list.
_AFTER_KEY = re.compile(r"\s*:")
_AFTER_MEMBER = re.compile(r"\s*(?:,?\s*[\"'](?:[^\"'\\]|\\.)*[\"']\s*:|,?\s*\}|$)")
_AFTER_ELEMENT = re.compile(r"\s*(?:,\s*[\"'\[{\]\w-]|\]|$)")
_NUMBERS = {"true": True, "false": False, "null": None}


class HopelessError(ValueError):
    """Not even this reader makes an object of it."""


def parse_object(text: str, start: int, limit: int, notes: Notes) -> tuple[dict[str, Any], int, bool]:
    """Read the object that begins at ``text[start]``, a ``{``, and ends before ``limit``.

    Returns:
        Its members, where it ends, and whether its end was there.

    Raises:
        HopelessError: it is nested too deep.
    """
    reader = _Reader(text, limit, notes)
    value, end = reader.members(start + 1, 0)
    return value, end, not reader.cut


class _Reader:
    def __init__(self, text: str, limit: int, notes: Notes) -> None:
        self.text, self.limit, self.notes = text, limit, notes
        self.cut = False

    def _skip(self, at: int) -> int:
        found = _SPACE.match(self.text, at, self.limit)
        return found.end() if found else at

    def members(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        if depth > _DEPTH:
            raise HopelessError("nested too deep")
        value: dict[str, Any] = {}
        while True:
            at = self._skip(at)
            if at >= self.limit:
                self.cut = True
                return value, self.limit
            sign = self.text[at]
            if sign == "}":
                return value, at + 1
            if sign == ",":
                at += 1
                continue
            if sign in "\"'":
                key, at = self._string(at, _AFTER_KEY)
            else:
                key, at = self._bare(at)
            at = self._skip(at)
            if at < self.limit and self.text[at] == ":":
                value[key], at = self._value(at + 1, depth, _AFTER_MEMBER)
            elif at >= self.limit:
                self.cut = True

    def _elements(self, at: int, depth: int) -> tuple[list[Any], int]:
        if depth > _DEPTH:
            raise HopelessError("nested too deep")
        value: list[Any] = []
        while True:
            at = self._skip(at)
            if at >= self.limit:
                self.cut = True
                return value, self.limit
            sign = self.text[at]
            if sign == "]":
                return value, at + 1
            if sign in ",:":
                at += 1
            elif sign == "}":  # the list's end is missing
                return value, at
            else:
                one, at = self._value(at, depth, _AFTER_ELEMENT)
                value.append(one)

    def _value(self, at: int, depth: int, after: re.Pattern[str]) -> tuple[Any, int]:
        at = self._skip(at)
        if at >= self.limit:
            self.cut = True
            return None, self.limit
        sign = self.text[at]
        if sign == "{":
            return self.members(at + 1, depth + 1)
        if sign == "[":
            return self._elements(at + 1, depth + 1)
        if sign in "\"'":
            return self._string(at, after)
        if sign in ",}]":
            self.notes.mend("a value was missing")
            return None, at
        word, end = self._bare(at)
        return self._number(word), end

    def _bare(self, at: int) -> tuple[str, int]:
        found = _WORD.match(self.text, at, self.limit)
        if found is None:  # a stray bracket or colon
            return "", at + 1
        return found.group(), found.end()

    def _number(self, word: str) -> Any:
        if word in _NUMBERS:
            return _NUMBERS[word]
        for kind in (int, float):
            try:
                number = kind(word)
            except ValueError:
                continue
            if kind is int or abs(number) < float("inf"):
                return number
        self.notes.mend(f"{word[:20]!r} in place of a number")
        return None

    def _string(self, at: int, after: re.Pattern[str]) -> tuple[str, int]:
        """A string from its opening quote on; a quote that cannot end it belongs to it."""
        quote = self.text[at]
        found: list[str] = []
        at += 1
        plain = _PLAIN[quote]
        while at < self.limit:
            piece = plain.match(self.text, at, self.limit)
            if piece and piece.end() > at:
                found.append(piece.group())
                at = piece.end()
                continue
            sign = self.text[at]
            if sign == quote:
                if after.match(self.text, at + 1, self.limit):
                    if quote == "'":
                        self.notes.mend("strings in single quotes")
                    return "".join(found), at + 1
                self.notes.mend("a quote that was not escaped")
                found.append(sign)
                at += 1
                continue
            if sign == "\\":
                escape = _ESCAPE.match(self.text, at, self.limit)
                closing = self.text.startswith("\\" + quote, at) and after.match(self.text, at + 2, self.limit)
                if escape is None or closing:
                    self.notes.mend("a backslash that was not escaped")
                    found.append("\\")
                    at += 1
                    continue
                code, letter = escape.groups()
                found.append(chr(int(code, 16)) if code else _ESCAPED.get(letter, letter))
                at = escape.end()
        self.cut = True
        return "".join(found), self.limit
