"""Methods: one file each. ``make_method("lora", {"rank": 8})`` builds one; see ``base.py``."""

from cdvft_bench.methods._spelling import Spelled, parse_method, parse_methods
from cdvft_bench.methods.base import Method, make_method, method_class, method_names, own_method_names

__all__ = [
    "Method",
    "Spelled",
    "make_method",
    "method_class",
    "method_names",
    "own_method_names",
    "parse_method",
    "parse_methods",
]
