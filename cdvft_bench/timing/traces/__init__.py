"""Chrome traces of anybody's profiler: read them, say by name what ran, sum them up, judge what bound the work.

``reading`` makes columns of a file; ``structure``, ``linking`` and ``windows`` say what called what, what launched
what, and of which time busy shares are taken; ``analysis`` sums up. Nothing here needs torch: only ``timing.trace``,
which records, does.
"""
