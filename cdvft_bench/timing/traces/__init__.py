"""Chrome traces of anybody's profiler: read them, say by name what ran, sum them up, judge what bound the work.

``files`` makes events of a file's bytes; ``names`` says what names tell; ``events`` holds columns of them, what called
what, what launched what, and of which time busy shares are taken; ``summary`` counts, sums and judges; ``analysis`` is
what others call. Nothing here needs torch: only ``timing.trace`` does, which records.
"""
