"""Fast ways to execute CDVFT and the block-circulant adapter, and the planner that picks one."""

from cdvft_bench.execution.layer import FastBlockCirculantLinear, FastCDVFTLinear
from cdvft_bench.execution.merged import merged_weight, release_buffers
from cdvft_bench.execution.paths import PATHS, Path, adapted_linear, change, check_path

__all__ = [
    "PATHS",
    "FastBlockCirculantLinear",
    "FastCDVFTLinear",
    "Path",
    "adapted_linear",
    "change",
    "check_path",
    "merged_weight",
    "release_buffers",
]
