"""docs/questions.md: the reviewers' questions, answered from recorded files alone."""

from collections.abc import Sequence

from cdvft_bench.analysis.questions.evidence import Answer
from cdvft_bench.core.text import markdown

HEAD = """# What reviewers asked

Made by `cdvft-bench dev questions profiles > docs/questions.md`, from recorded files alone; the same answers stand on
the report's page. A word is given by a rule (`cdvft_bench/analysis/questions/answers.py`), not by opinion. "Open" is
what was not measured, with the command that would measure it and what that takes where it is known.
"""


def questions_markdown(answers: Sequence[Answer]) -> str:
    """The questions with their answers, evidence and what is open, as Markdown."""
    return "\n".join([HEAD, *(_section(answer) for answer in answers)])


def _section(answer: Answer) -> str:
    lines = [f"## {answer.id}: {markdown(answer.question)}", "", f"**{answer.word}**: {markdown(answer.plain)}", ""]
    lines += [f"- {markdown(one.text)} ({markdown(one.source)})" for one in answer.evidence]
    if answer.open:
        lines += ["", "Open:", "", *(f"- {markdown(one)}" for one in answer.open)]
    return "\n".join(lines) + "\n"
