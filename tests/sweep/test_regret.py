"""What the planner's picks lose against the fastest path, measured and told."""

from cdvft_bench.sweep.probes.regret import ROWS, Found, Row, measure_here, table


def test_the_table() -> None:
    rows = [Row(64, 64, 8), Row(64, 64, 9, m=0)]

    def found(row: Row, target: str, pick: str, **seconds: float) -> Found:
        return Found(str(row), target, pick, seconds)

    told = table(
        [
            found(rows[0], "native", "native", native=1.0, fused=1.5),
            found(rows[0], "native", "native", native=3.3, fused=3.0),
            found(rows[0], "native", "native", native=2.0, fused=4.0),
            found(rows[0], "avx2", "native", native=1.2, fused=1.0),
            found(rows[1], "native", "fused", native=2.0, fused=2.0),
            found(rows[1], "avx2", "fused", native=1.0, fused=1.0),
            found(rows[1], "avx2", "native", native=1.1, fused=1.0),
        ],
        rows,
    ).splitlines()
    assert told[2] == "| 64x64, 8 tokens | native | native | 0.0 % | native | fused | 20.0 % |"
    assert told[3].startswith("| 64x64, 9 tokens, m=0 | fused | ")
    assert told[3].endswith(" | fused or native | fused | 5.0 % |")
    assert told[-1].startswith("native: median 0.0 % (aim 3 %), worst 0.0 % (aim 10 %); avx2: median 12.5 % (aim 3 %)")
    assert len({len(line.split("|")) for line in told[:4]}) == 1


def test_rows_are_told_apart() -> None:
    assert len({str(row) for row in ROWS}) == len(ROWS)


def test_a_row_is_measured() -> None:
    (found,) = measure_here([Row(32, 48, 8, p=16, dtype="bfloat16", training=False)], 0.05, 1)
    assert found.pick in found.seconds
    assert len(found.seconds) > 2
    assert min(found.seconds.values()) > 0
