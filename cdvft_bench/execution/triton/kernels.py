"""Triton kernels: merged weight and fold, one pass each, and diagonal-circulant-diagonal with the FFT held on chip.

The transform of p = p1 * p2 points is two products with small DFT matrices and a twiddle between them
(Cooley and Tukey), so that matrix units do it and nothing leaves the chip::

    X[k1 + p1 k2] = sum_n2 ( w_p^(n2 k1) sum_n1 x[p2 n1 + n2] w_p1^(n1 k1) ) w_p2^(n2 k2)

A program holds a tile of B rows as a (p1, B p2) matrix; viewed as (p1 B, p2) the second product needs no transposition.
p1, p2 and the (k1, k2) spectra are padded with zeros to powers of two, ``P1`` and ``P2``. All arithmetic is float32.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def merged_weight_kernel(
    weight,
    first,
    last,
    c,
    out,
    d_out,
    d_in,
    p,
    q_in,
    alpha,
    weight_row,
    weight_column,
    DIAGONALS: tl.constexpr,
    ROW: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """out = W + alpha diag(last) C diag(first), tile by tile; reads W once, writes once, keeps the vectors in cache.

    ``weight_row`` and ``weight_column`` are the strides of W; all else is contiguous.
    """
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    s = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (r < d_out) & (s < d_in)
    step = (s % p) - (r % p) if ROW else (r % p) - (s % p)
    step = tl.where(step < 0, step + p, step)
    block = (r // p).to(tl.int64) * q_in + s // p
    change = tl.load(c + block * p + step, mask=inside, other=0.0).to(tl.float32)
    if DIAGONALS:
        change *= tl.load(first + s, mask=s < d_in, other=0.0) * tl.load(last + r, mask=r < d_out, other=0.0)
    place = r.to(tl.int64) * d_in + s
    w = tl.load(weight + r.to(tl.int64) * weight_row + s.to(tl.int64) * weight_column, mask=inside, other=0.0).to(
        tl.float32
    )
    tl.store(out + place, (w + alpha * change).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _transform(
    x,
    f1_re,
    f1_im,
    t_re,
    t_im,
    f2_re,
    f2_im,
    P1: tl.constexpr,
    B: tl.constexpr,
    P2: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """FFT of B real rows, x (P1, B P2): spectra (P1 B, P2), real and imaginary."""
    a_re = tl.dot(f1_re, x, input_precision=PRECISION)
    a_im = tl.dot(f1_im, x, input_precision=PRECISION)
    z_re = tl.reshape(a_re * t_re - a_im * t_im, (P1 * B, P2))
    z_im = tl.reshape(a_re * t_im + a_im * t_re, (P1 * B, P2))
    re = tl.dot(z_re, f2_re, input_precision=PRECISION) - tl.dot(z_im, f2_im, input_precision=PRECISION)
    im = tl.dot(z_re, f2_im, input_precision=PRECISION) + tl.dot(z_im, f2_re, input_precision=PRECISION)
    return re, im


@triton.jit
def _inverse(
    re,
    im,
    f1_re,
    f1_im,
    t_re,
    t_im,
    f2_re,
    f2_im,
    P1: tl.constexpr,
    B: tl.constexpr,
    P2: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The real part of p times the inverse FFT: (P1 B, P2) to (P1, B P2). The DFT matrices are symmetric."""
    z_re = tl.dot(re, f2_re, input_precision=PRECISION) + tl.dot(im, f2_im, input_precision=PRECISION)
    z_im = tl.dot(im, f2_re, input_precision=PRECISION) - tl.dot(re, f2_im, input_precision=PRECISION)
    z_re = tl.reshape(z_re, (P1, B * P2))
    z_im = tl.reshape(z_im, (P1, B * P2))
    a_re = z_re * t_re + z_im * t_im
    a_im = z_im * t_re - z_re * t_im
    return tl.dot(f1_re, a_re, input_precision=PRECISION) + tl.dot(f1_im, a_im, input_precision=PRECISION)


@triton.jit
def _tables(f1, f2, twiddle, P1: tl.constexpr, B: tl.constexpr, P2: tl.constexpr):
    """DFT matrices (P1, P1) and (P2, P2), the twiddle as (P1, B P2); each real part before the imaginary."""
    i1, i2, n2 = tl.arange(0, P1), tl.arange(0, P2), tl.arange(0, B * P2) % P2
    at1 = i1[:, None] * P1 + i1[None, :]
    at2 = i2[:, None] * P2 + i2[None, :]
    at = i1[:, None] * P2 + n2[None, :]
    return (
        tl.load(f1 + at1),
        tl.load(f1 + P1 * P1 + at1),
        tl.load(twiddle + at),
        tl.load(twiddle + P1 * P2 + at),
        tl.load(f2 + at2),
        tl.load(f2 + P2 * P2 + at2),
    )


@triton.jit
def forward_kernel(
    x,
    base,
    first,
    last,
    spectrum,
    f1,
    f2,
    twiddle,
    out,
    rows,
    d_in,
    d_out,
    p1,
    p2,
    scale,
    DIAGONALS: tl.constexpr,
    BASE: tl.constexpr,
    P1: tl.constexpr,
    P2: tl.constexpr,
    B: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """out = base + scale * last * IFFT(spectrum * FFT(first * x)) on B rows; ``scale`` holds alpha / p."""
    f1_re, f1_im, t_re, t_im, f2_re, f2_im = _tables(f1, f2, twiddle, P1, B, P2)
    n1 = tl.arange(0, P1)[:, None]
    column = tl.arange(0, B * P2)[None, :]
    row, n2 = tl.program_id(0) * B + column // P2, column % P2
    n = n1 * p2 + n2
    valid = (n1 < p1) & (n2 < p2) & (row < rows)
    place = row.to(tl.int64) * d_in + n
    u = tl.load(x + place, mask=valid & (n < d_in), other=0.0).to(tl.float32)
    if DIAGONALS:
        u *= tl.load(first + n, mask=valid & (n < d_in), other=0.0)
    u_re, u_im = _transform(u, f1_re, f1_im, t_re, t_im, f2_re, f2_im, P1, B, P2, PRECISION)
    k = (tl.arange(0, P1 * B)[:, None] // B) * P2 + tl.arange(0, P2)[None, :]
    c_re, c_im = tl.load(spectrum + k), tl.load(spectrum + P1 * P2 + k)
    y_re, y_im = u_re * c_re - u_im * c_im, u_re * c_im + u_im * c_re
    y = scale * _inverse(y_re, y_im, f1_re, f1_im, t_re, t_im, f2_re, f2_im, P1, B, P2, PRECISION)
    kept = valid & (n < d_out)
    if DIAGONALS:
        y *= tl.load(last + n, mask=kept, other=0.0)
    place = row.to(tl.int64) * d_out + n
    if BASE:
        y += tl.load(base + place, mask=kept, other=0.0).to(tl.float32)
    tl.store(out + place, y.to(out.dtype.element_ty), mask=kept)


@triton.jit
def backward_kernel(
    x,
    g,
    base,
    first,
    last,
    spectrum,
    f1,
    f2,
    twiddle,
    grad_x,
    grad_first,
    grad_last,
    moment,
    rows,
    d_in,
    d_out,
    p1,
    p2,
    scale,
    tiles,
    DIAGONALS: tl.constexpr,
    INPUT: tl.constexpr,
    BASE: tl.constexpr,
    P1: tl.constexpr,
    P2: tl.constexpr,
    B: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """All gradients of the change in one pass over x and g; each program sums over ``tiles`` tiles of B rows.

    Partial sums of the diagonals' gradients (programs, p1 p2) and of ``conj(U) V`` (programs, 2, P1, P2) are written
    once a program: no d by d buffer, no atomic addition, the same result every time.
    """
    f1_re, f1_im, t_re, t_im, f2_re, f2_im = _tables(f1, f2, twiddle, P1, B, P2)
    n1 = tl.arange(0, P1)[:, None]
    column = tl.arange(0, B * P2)[None, :]
    n2 = column % P2
    n = n1 * p2 + n2
    in_block = (n1 < p1) & (n2 < p2)
    k = (tl.arange(0, P1 * B)[:, None] // B) * P2 + tl.arange(0, P2)[None, :]
    c_re, c_im = tl.load(spectrum + k), tl.load(spectrum + P1 * P2 + k)
    sum_first = tl.zeros((P1, B * P2), tl.float32)
    sum_last = tl.zeros((P1, B * P2), tl.float32)
    sum_re = tl.zeros((P1 * B, P2), tl.float32)
    sum_im = tl.zeros((P1 * B, P2), tl.float32)
    for tile in range(tiles):
        row = (tl.program_id(0) * tiles + tile) * B + column // P2
        valid = in_block & (row < rows)
        at_in, at_out = row.to(tl.int64) * d_in + n, row.to(tl.int64) * d_out + n
        in_x, in_g = valid & (n < d_in), valid & (n < d_out)
        xs = tl.load(x + at_in, mask=in_x, other=0.0).to(tl.float32)
        gs = tl.load(g + at_out, mask=in_g, other=0.0).to(tl.float32)
        u, v = xs, gs
        if DIAGONALS:
            u = xs * tl.load(first + n, mask=in_x, other=0.0)
            v = gs * tl.load(last + n, mask=in_g, other=0.0)
        u_re, u_im = _transform(u, f1_re, f1_im, t_re, t_im, f2_re, f2_im, P1, B, P2, PRECISION)
        v_re, v_im = _transform(v, f1_re, f1_im, t_re, t_im, f2_re, f2_im, P1, B, P2, PRECISION)
        sum_re += u_re * v_re + u_im * v_im
        sum_im += u_re * v_im - u_im * v_re
        if DIAGONALS:
            y_re, y_im = u_re * c_re - u_im * c_im, u_re * c_im + u_im * c_re
            y = _inverse(y_re, y_im, f1_re, f1_im, t_re, t_im, f2_re, f2_im, P1, B, P2, PRECISION)
            sum_last += gs * y
        if DIAGONALS or INPUT:
            b_re, b_im = v_re * c_re + v_im * c_im, v_im * c_re - v_re * c_im
            back = _inverse(b_re, b_im, f1_re, f1_im, t_re, t_im, f2_re, f2_im, P1, B, P2, PRECISION)
            if DIAGONALS:
                sum_first += xs * back
                back *= tl.load(first + n, mask=in_x, other=0.0)
            if INPUT:
                back *= scale
                if BASE:
                    back += tl.load(base + at_in, mask=in_x, other=0.0).to(tl.float32)
                tl.store(grad_x + at_in, back.to(grad_x.dtype.element_ty), mask=in_x)
    i1, i2 = tl.arange(0, P1)[:, None], tl.arange(0, P2)[None, :]
    if DIAGONALS:
        first_total = tl.sum(tl.reshape(sum_first, (P1, B, P2)), 1)
        last_total = tl.sum(tl.reshape(sum_last, (P1, B, P2)), 1)
        here = tl.program_id(0) * p1 * p2 + i1 * p2 + i2
        there = (i1 < p1) & (i2 < p2)
        tl.store(grad_first + here, first_total * scale, mask=there)
        tl.store(grad_last + here, last_total * scale, mask=there)
    at = tl.program_id(0) * 2 * P1 * P2 + i1 * P2 + i2
    tl.store(moment + at, tl.sum(tl.reshape(sum_re, (P1, B, P2)), 1))
    tl.store(moment + P1 * P2 + at, tl.sum(tl.reshape(sum_im, (P1, B, P2)), 1))


@triton.jit
def fold_kernel(
    dense,
    first,
    last,
    c,
    part_first,
    part_last,
    part_c,
    d_out,
    d_in,
    p,
    q_in,
    tiles,
    pieces,
    DIAGONALS: tl.constexpr,
    ROW: tl.constexpr,
    TILE: tl.constexpr,
):
    """Sums of ``dense = g^T x`` (d_out, d_in) for the gradients of a_1, a_3 and c; reads it once, adds nothing twice.

    A program walks ``tiles`` square tiles of one block that lie along a wrapped diagonal, ``r - s`` the same from tile
    to tile: what belongs to c stays in registers until the end. A tile is skewed on chip, such that the entries of one
    diagonal stand in one column: entry (r, k) of the skewed tile is (r, (r - k) mod TILE), of diagonal k where r >= k
    and k - TILE where not.

    Partial sums, written once each: ``part_first`` (q_out bands, d_in), ``part_last`` (q_in bands, d_out), and
    ``part_c`` (q_out q_in, pieces, 2 bands, 2, TILE), by diagonals of tiles (from -bands), then k >= 0 and k < 0.
    """
    bands = tl.cdiv(p, TILE)
    block = tl.program_id(1)
    i, j = block // q_in, block % q_in
    band, piece = tl.program_id(0) % bands, tl.program_id(0) // bands
    kind = part_c.dtype.element_ty
    entry = tl.arange(0, TILE)
    r_tile, k_tile = entry[:, None], entry[None, :]
    skew = (r_tile - k_tile) & (TILE - 1)
    ahead = tl.zeros((TILE,), kind)  # of tiles that wrap around, which lie above the block's diagonal
    ahead_low = tl.zeros((TILE,), kind)
    behind = tl.zeros((TILE,), kind)
    behind_low = tl.zeros((TILE,), kind)
    for step in range(tiles):
        down = piece * tiles + step
        across = tl.where(down < band, down - band + bands, down - band)
        r, s = down * TILE + entry, across * TILE + entry
        row, column = i * p + r, j * p + s
        in_rows, in_columns = (r < p) & (row < d_out), (s < p) & (column < d_in)
        inside = in_rows[:, None] & in_columns[None, :]
        value = tl.load(dense + row.to(tl.int64)[:, None] * d_in + column[None, :], mask=inside, other=0.0).to(kind)
        weighted = value
        if DIAGONALS:
            a = tl.load(first + column, mask=in_columns, other=0.0)
            b = tl.load(last + row, mask=in_rows, other=0.0)
            lag = s[None, :] - r[:, None] if ROW else r[:, None] - s[None, :]
            lag = tl.where(lag < 0, lag + p, lag)
            entries = value * tl.load(c + block.to(tl.int64) * p + lag, mask=inside, other=0.0)
            tl.store(
                part_first + (i * bands + down).to(tl.int64) * d_in + column,
                tl.sum(entries * b[:, None], 0),
                mask=in_columns & (0 * entry + down < bands),
            )
            tl.store(
                part_last + (j * bands + across).to(tl.int64) * d_out + row,
                tl.sum(entries * a[None, :], 1),
                mask=in_rows,
            )
            weighted = value * a[None, :] * b[:, None]
        skewed = tl.gather(weighted, skew, 1)
        high = tl.sum(tl.where(r_tile >= k_tile, skewed, 0.0), 0)
        low = tl.sum(tl.where(r_tile < k_tile, skewed, 0.0), 0)
        wraps = down < band
        ahead += tl.where(wraps, high, 0.0)
        ahead_low += tl.where(wraps, low, 0.0)
        behind += tl.where(wraps, 0.0, high)
        behind_low += tl.where(wraps, 0.0, low)
    at = part_c + ((block * pieces + piece).to(tl.int64) * 2 * bands + band) * 2 * TILE + entry
    tl.store(at, ahead)
    tl.store(at + TILE, ahead_low)
    tl.store(at + bands * 2 * TILE, behind)
    tl.store(at + bands * 2 * TILE + TILE, behind_low)


@triton.jit
def _summed(parts, out, width, lines, alpha, index, COLUMNS: tl.constexpr):
    """out = alpha times the sum of the ``lines`` lines of ``parts`` (lines, width), for COLUMNS columns."""
    at = index * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS,), parts.dtype.element_ty)
    place = at.to(tl.int64)
    for _ in range(lines):
        total += tl.load(parts + place, mask=at < width, other=0.0)
        place += width
    tl.store(out + at, total * alpha, mask=at < width)


@triton.jit
def fold_sums_kernel(
    part_first,
    part_last,
    part_c,
    grad_first,
    grad_last,
    grad_c,
    d_out,
    d_in,
    p,
    lines_first,
    lines_last,
    pieces,
    size_c,
    alpha,
    programs_first,
    programs_last,
    ROW: tl.constexpr,
    TILE: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The three gradients from ``fold_kernel``'s partial sums, times alpha; each entry by one program, in order."""
    program = tl.program_id(0)
    if program < programs_first:
        _summed(part_first, grad_first, d_in, lines_first, alpha, program, COLUMNS)
    elif program < programs_first + programs_last:
        _summed(part_last, grad_last, d_out, lines_last, alpha, program - programs_first, COLUMNS)
    else:
        at = (program - programs_first - programs_last) * COLUMNS + tl.arange(0, COLUMNS)
        valid = at < size_c
        block, k = at // p, at % p
        if ROW:
            k = tl.where(k == 0, 0, p - k)
        bands = tl.cdiv(p, TILE)
        total = tl.zeros((COLUMNS,), part_c.dtype.element_ty)
        for piece in range(pieces):
            line = (block.to(tl.int64) * pieces + piece) * 2 * bands
            for wrapped in tl.static_range(2):
                lag = k - wrapped * p + bands * TILE  # from the first diagonal of tiles, never negative
                tile, e = lag // TILE, lag % TILE
                total += tl.load(part_c + (line + tile) * 2 * TILE + e, mask=valid, other=0.0)
                below = valid & (tile + 1 < 2 * bands)
                total += tl.load(part_c + ((line + tile + 1) * 2 + 1) * TILE + e, mask=below, other=0.0)
        tl.store(grad_c + at, total * alpha, mask=valid)
