"""``python -m cdvft_bench`` is the console script ``cdvft-bench``."""

from cdvft_bench.cli import main

if __name__ == "__main__":
    main()
