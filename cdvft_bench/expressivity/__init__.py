"""What CDVFT's factorisation can and cannot express: approximation, dimension, the theorem behind it.

``python -m cdvft_bench.expressivity run --output DIR`` measures, ``... report DIR --output DIR2`` writes the page.
"""
