"""Names that are nearly right."""

import pytest

from cdvft_bench.core.names import nearest, not_known

KNOWN = ["lora", "cdvft", "fourierft", "roberta-base", "lora_fa"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("lroa", ["lora"]),
        ("CDVFT", ["cdvft"]),
        ("cdvt", ["cdvft"]),
        ("fourier", ["fourierft"]),
        ("RoBERTa_base", ["roberta-base"]),
        ("rob", ["roberta-base"]),
        ("LoRA-FA", ["lora_fa", "lora"]),
        ("nothing", []),
        ("x", []),
        ("", []),
    ],
)
def test_nearest(name, near) -> None:
    assert nearest(name, KNOWN) == near


def test_an_unknown_name_is_told_with_what_was_near_it_and_what_there_is() -> None:
    assert str(not_known("method", "lroa", KNOWN[:2])) == (
        "method 'lroa' is not known; did you mean lora? use one of lora, cdvft"
    )
    assert str(not_known("preset", "zzz", KNOWN[:2])) == "preset 'zzz' is not known; use one of lora, cdvft"
    assert len(str(not_known("method", "y" * 9000, KNOWN))) < 200
