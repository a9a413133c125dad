"""Word problems of several steps, with worked answers: a generation task that needs no download.

A problem tells of things gained and lost; its worked answer writes one equation a step and ends in ``#### N``, the
form of GSM8K's answers. The same seed gives the same problems everywhere.
"""

import random
import re
from dataclasses import dataclass

_NAMES = (
    *("Ada", "Ben", "Chloe", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jonas"),
    *("Lena", "Mia", "Noah", "Olga", "Paul", "Ruth", "Sam", "Tara", "Vera", "Will"),
)
_THINGS = (
    *("apples", "books", "cards", "coins", "cups", "eggs"),
    *("keys", "marbles", "pencils", "shells", "stamps", "stones"),
)
_BOXES = ("bags", "baskets", "boxes", "crates", "packs")
_FINAL = re.compile(r"####\s*(-?\d+)")
_SAID = re.compile(r"(?:####|The answer is:?)\s*\$?(-?\d[\d,]*)(?:\.0*)?\.?\s*(?:$|The answer is)", re.IGNORECASE)
_CALCULATOR = re.compile(r"<<[^>]*>>")


@dataclass(frozen=True)
class Problem:
    """A word problem: its text, and its worked answer, which ends in ``#### N``."""

    text: str
    answer: str


def make_problems(n: int, seed: int = 0, steps: tuple[int, int] = (2, 3)) -> list[Problem]:
    """Different problems, drawn with a seed.

    Args:
        n: how many. seed: of the draws. steps: least and most steps of a problem, one equation each at least.
    """
    generator = random.Random(seed)
    found: dict[str, Problem] = {}
    while len(found) < n:
        problem = _problem(generator, generator.randint(*steps))
        found.setdefault(problem.text, problem)
    return list(found.values())


def _problem(generator: random.Random, steps: int) -> Problem:
    name, thing, box = generator.choice(_NAMES), generator.choice(_THINGS), generator.choice(_BOXES)
    have = generator.randint(3, 40)
    told, worked = [f"{name} has {have} {thing}."], []
    for _ in range(steps):
        kind = generator.choice(("buys", "gives", "boxes", "doubles") if have > 2 else ("buys", "boxes"))
        if kind == "buys":
            k = generator.randint(2, 30)
            told.append(f"{name} finds {k} more.")
            worked.append(f"{have} + {k} = {have + k}.")
            have += k
        elif kind == "gives":
            k = generator.randint(1, have - 1)
            told.append(f"{name} gives {k} away.")
            worked.append(f"{have} - {k} = {have - k}.")
            have -= k
        elif kind == "boxes":
            a, b = generator.randint(2, 9), generator.randint(2, 9)
            told.append(f"{name} buys {a} {box} of {b} {thing} each.")
            worked += [f"{a} * {b} = {a * b}.", f"{have} + {a * b} = {have + a * b}."]
            have += a * b
        else:
            told.append(f"Then {name} doubles what is there.")
            worked.append(f"{have} * 2 = {have * 2}.")
            have *= 2
    told.append(f"How many {thing} does {name} have now?")
    return Problem(" ".join(told), " ".join([*worked, f"#### {have}"]))


def worked_answer(text: str) -> str | None:
    """A worked answer of GSM8K or MetaMathQA in the form of these; None where it does not end in a whole number.

    GSM8K's marks for a calculator are left out, as are signs within the final number.
    """
    plain = _CALCULATOR.sub("", text).strip()
    said = _SAID.search(plain)
    if said is None:
        return None
    return f"{plain[: said.start()].strip()} #### {said.group(1).replace(',', '')}".strip()


def final_answer(text: str) -> int | None:
    """The number after the first ``####`` of an answer; None where there is none."""
    found = _FINAL.search(text)
    return int(found.group(1)) if found else None
