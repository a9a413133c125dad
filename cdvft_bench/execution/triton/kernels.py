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
def _part(table, PART: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, REPEATS: tl.constexpr):
    """One part of a table (parts, ROWS, COLUMNS), its columns repeated: (ROWS, REPEATS COLUMNS).

    Tables are read where they are used: kept from one use to the next they would fill the registers.
    """
    row, column = tl.arange(0, ROWS)[:, None], tl.arange(0, REPEATS * COLUMNS)[None, :] % COLUMNS
    return tl.load(table + PART * ROWS * COLUMNS + row * COLUMNS + column)


@triton.jit
def _transform(x, f1, f2, twiddle, P1: tl.constexpr, B: tl.constexpr, P2: tl.constexpr, PRECISION: tl.constexpr):
    """FFT of B real rows, x (P1, B P2): spectra (P1 B, P2), real and imaginary."""
    a_re = tl.dot(_part(f1, 0, P1, P1, 1), x, input_precision=PRECISION)
    a_im = tl.dot(_part(f1, 1, P1, P1, 1), x, input_precision=PRECISION)
    t_re, t_im = _part(twiddle, 0, P1, P2, B), _part(twiddle, 1, P1, P2, B)
    z_re = tl.reshape(a_re * t_re - a_im * t_im, (P1 * B, P2))
    z_im = tl.reshape(a_re * t_im + a_im * t_re, (P1 * B, P2))
    f_re, f_im = _part(f2, 0, P2, P2, 1), _part(f2, 1, P2, P2, 1)
    re = tl.dot(z_re, f_re, input_precision=PRECISION)
    im = tl.dot(z_re, f_im, input_precision=PRECISION)
    re = tl.dot(z_im, _part(f2, 2, P2, P2, 1), re, input_precision=PRECISION)
    return re, tl.dot(z_im, f_re, im, input_precision=PRECISION)


@triton.jit
def _inverse(re, im, f1, f2, twiddle, P1: tl.constexpr, B: tl.constexpr, P2: tl.constexpr, PRECISION: tl.constexpr):
    """The real part of p times the inverse FFT: (P1 B, P2) to (P1, B P2). The DFT matrices are symmetric."""
    f_re, f_im = _part(f2, 0, P2, P2, 1), _part(f2, 1, P2, P2, 1)
    z_re = tl.dot(re, f_re, input_precision=PRECISION)
    z_im = tl.dot(re, _part(f2, 2, P2, P2, 1), input_precision=PRECISION)
    z_re = tl.reshape(tl.dot(im, f_im, z_re, input_precision=PRECISION), (P1, B * P2))
    z_im = tl.reshape(tl.dot(im, f_re, z_im, input_precision=PRECISION), (P1, B * P2))
    t_re, t_im = _part(twiddle, 0, P1, P2, B), _part(twiddle, 1, P1, P2, B)
    y = tl.dot(_part(f1, 0, P1, P1, 1), z_re * t_re + z_im * t_im, input_precision=PRECISION)
    return tl.dot(_part(f1, 1, P1, P1, 1), z_im * t_re - z_re * t_im, y, input_precision=PRECISION)


@triton.jit
def filter_kernel(
    x,
    base,
    other,
    before,
    after,
    spectrum,
    f1,
    f2,
    twiddle,
    out,
    sums,
    rows,
    d_x,
    d_y,
    p1,
    p2,
    scale,
    tiles,
    DIAGONALS: tl.constexpr,
    ADJOINT: tl.constexpr,
    BASE: tl.constexpr,
    STORE: tl.constexpr,
    SUM: tl.constexpr,
    P1: tl.constexpr,
    P2: tl.constexpr,
    B: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """y = IFFT(spectrum * FFT(before * x)) of rows x (d_x entries) to d_y; ``tiles`` tiles of B rows a program.

    STORE: out = base + scale * after * y: the output, or with the ADJOINT spectrum the gradient of the input.
    SUM: scale * other * y, summed over a program's rows into ``sums`` (programs, p1 p2): a diagonal's gradient, where
    ``other`` is the gradient of what that diagonal multiplies, or that which it multiplies. ``scale`` holds alpha / p.
    No atomic addition: the same result every time.
    """
    n1 = tl.arange(0, P1)[:, None]
    column = tl.arange(0, B * P2)[None, :]
    line, n2 = column // P2, column % P2
    n = n1 * p2 + n2
    in_block = (n1 < p1) & (n2 < p2)
    total = tl.zeros((P1, B * P2), tl.float32)
    for tile in tl.range(tiles, num_stages=1):
        start = (tl.program_id(0) * tiles + tile) * B
        valid = in_block & (start + line < rows)
        in_x, in_y = valid & (n < d_x), valid & (n < d_y)
        from_x, from_y = start.to(tl.int64) * d_x, start.to(tl.int64) * d_y
        u = tl.load(x + from_x + (line * d_x + n), mask=in_x, other=0.0).to(tl.float32)
        if DIAGONALS:
            u *= tl.load(before + n, mask=in_x, other=0.0)
        u_re, u_im = _transform(u, f1, f2, twiddle, P1, B, P2, PRECISION)
        k = (tl.arange(0, P1 * B)[:, None] // B) * P2 + tl.arange(0, P2)[None, :]
        c_re, c_im = tl.load(spectrum + k), tl.load(spectrum + P1 * P2 + k)
        if ADJOINT:
            c_im = -c_im
        y_re, y_im = u_re * c_re - u_im * c_im, u_re * c_im + u_im * c_re
        y = _inverse(y_re, y_im, f1, f2, twiddle, P1, B, P2, PRECISION)
        if SUM:
            total += y * tl.load(other + from_y + (line * d_y + n), mask=in_y, other=0.0).to(tl.float32)
        if STORE:
            y *= scale
            if DIAGONALS:
                y *= tl.load(after + n, mask=in_y, other=0.0)
            if BASE:
                y += tl.load(base + from_y + (line * d_y + n), mask=in_y, other=0.0).to(tl.float32)
            tl.store(out + from_y + (line * d_y + n), y.to(out.dtype.element_ty), mask=in_y)
    if SUM:
        i1, i2 = tl.arange(0, P1)[:, None], tl.arange(0, P2)[None, :]
        here = tl.program_id(0) * p1 * p2 + i1 * p2 + i2
        summed = tl.sum(tl.reshape(total, (P1, B, P2)), 1)
        tl.store(sums + here, summed * scale, mask=(i1 < p1) & (i2 < p2))


@triton.jit
def moment_kernel(
    x,
    g,
    first,
    last,
    f1,
    f2,
    twiddle,
    moment,
    rows,
    d_in,
    d_out,
    p1,
    p2,
    tiles,
    DIAGONALS: tl.constexpr,
    P1: tl.constexpr,
    P2: tl.constexpr,
    B: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Sums of conj(FFT(first * x)) FFT(last * g) over a program's ``tiles`` tiles of B rows: (programs, 2, P1, P2)."""
    n1 = tl.arange(0, P1)[:, None]
    column = tl.arange(0, B * P2)[None, :]
    line, n2 = column // P2, column % P2
    n = n1 * p2 + n2
    in_block = (n1 < p1) & (n2 < p2)
    sum_re = tl.zeros((P1 * B, P2), tl.float32)
    sum_im = tl.zeros((P1 * B, P2), tl.float32)
    for tile in tl.range(tiles, num_stages=1):
        start = (tl.program_id(0) * tiles + tile) * B
        valid = in_block & (start + line < rows)
        in_x, in_g = valid & (n < d_in), valid & (n < d_out)
        u = tl.load(x + start.to(tl.int64) * d_in + (line * d_in + n), mask=in_x, other=0.0).to(tl.float32)
        if DIAGONALS:
            u *= tl.load(first + n, mask=in_x, other=0.0)
        u_re, u_im = _transform(u, f1, f2, twiddle, P1, B, P2, PRECISION)
        v = tl.load(g + start.to(tl.int64) * d_out + (line * d_out + n), mask=in_g, other=0.0).to(tl.float32)
        if DIAGONALS:
            v *= tl.load(last + n, mask=in_g, other=0.0)
        v_re, v_im = _transform(v, f1, f2, twiddle, P1, B, P2, PRECISION)
        sum_re += u_re * v_re + u_im * v_im
        sum_im += u_re * v_im - u_im * v_re
    i1, i2 = tl.arange(0, P1)[:, None], tl.arange(0, P2)[None, :]
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
    block = tl.program_id(0)  # of which there may be more than the 65,535 that CUDA's other axes take
    i, j = block // q_in, block % q_in
    band, piece = tl.program_id(1) % bands, tl.program_id(1) // bands
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
