"""CDVFT and block-circulant adapters as their papers write them. Needs torch alone."""

from .cdvft import FactorShapes, cdvft_dense, cdvft_fft, cdvft_handwritten
from .circulant import (
    BlockCirculantFunction,
    Convention,
    block_circulant_fft,
    block_circulant_handwritten,
    block_circulant_shape,
    block_count,
    compute_dtype,
    dense_block_circulant,
    dense_circulant,
)
from .layer import AdaptedLinear, BlockCirculantLinear, CDVFTLinear, Init, Path, default_block_size

__all__ = [
    "AdaptedLinear",
    "BlockCirculantFunction",
    "BlockCirculantLinear",
    "CDVFTLinear",
    "Convention",
    "FactorShapes",
    "Init",
    "Path",
    "block_circulant_fft",
    "block_circulant_handwritten",
    "block_circulant_shape",
    "block_count",
    "cdvft_dense",
    "cdvft_fft",
    "cdvft_handwritten",
    "compute_dtype",
    "default_block_size",
    "dense_block_circulant",
    "dense_circulant",
]
