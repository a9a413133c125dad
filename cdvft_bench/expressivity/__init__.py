"""What CDVFT's factorisation can and cannot express: approximation, dimension, the theorem behind it.

``cdvft-bench expressivity run --output DIR`` measures, ``... report DIR --output DIR2`` writes the page.
"""
