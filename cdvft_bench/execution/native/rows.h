/* Rows of the operands as signals, two at a time, and products of spectra. */
#include "layer.h"

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static num row_at(const Layer *l, num r) { return l->order ? l->order[r] : r; }

/* Row r of an operand as whole blocks of numbers: where it is that, in the operand's own memory, else copied to room. */
static const real *row_of(const Layer *l, const void *rows, num r, num width, num blocks, real *room) {
    const char *row = (const char *)rows + r * width * bytes_of(l->format);
    if (l->format == REALS && width == blocks * l->p) return (const real *)row;
    read_from(l->format, room, row, width);
    memset(room + width, 0, (size_t)(blocks * l->p - width) * sizeof(real));
    return room;
}

INLINE bits larger(bits a, bits b) {
    bits more = a > b;
    return (a & more) | (b & ~more);
}
INLINE bits magnitude(const real *row, const real *scale, num i) {
    vec a = get(row + i);
    return (bits)(scale ? times(a, get(scale + i)) : a) & WITHOUT_SIGN;
}
/* the largest absolute value of a row times a diagonal (or NULL), by its bits: they are in the order of the values, and
 * what is not finite comes last */
static whole peak(const real *row, const real *scale, num n) {
    bits most[4] = {{0}, {0}, {0}, {0}};
    num i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        UNROLL for (int k = 0; k < 4; k++) most[k] = larger(most[k], magnitude(row, scale, i + k * LANES));
    for (; i < n; i += LANES) most[0] = larger(most[0], magnitude(row, scale, i));
    bits m = larger(larger(most[0], most[1]), larger(most[2], most[3]));
    whole found = 0;
    for (num j = 0; j < LANES; j++) found = m[j] > found ? m[j] : found;
    return found;
}
/* whether two rows times a diagonal (or NULL) may share a signal: what rounding makes of the larger stays small beside
 * the other */
static int alike(const real *const rows[2], const real *scale, num n) {
    whole p[2] = {peak(rows[0], scale, n), peak(rows[1], scale, n)};
    real a[2];
    memcpy(a, p, sizeof a);
    return p[0] < INFINITE && p[1] < INFINITE && a[0] <= 64 * a[1] && a[1] <= 64 * a[0];
}
/* The largest of sums of squares; 0 where they say nothing: not finite, or too large to square again. */
static real largest(vec sums) {
    real most = 0;
    for (num j = 0; j < LANES; j++) {
        if (!(sums[j] < (real)1e30)) return 0;
        most = sums[j] > most ? sums[j] : most;
    }
    return most;
}
static int is_zero(const real *row, num n) {
    for (num i = 0; i < n; i++)
        if (get1(row + i) != 0) return 0;
    return 1;
}

/* One row and zeros, or two rows, on their way; outputs are written to `to`, from `out` where that is another place. */
typedef struct { const real *x[2], *g[2]; real *out[2]; void *to[2]; } Signal;
typedef struct {
    const Job *job;
    Fft fft;                       /* the job's, and what it fetches meanwhile */
    Ahead ahead;
    num n;                         /* signals at hand */
    Signal signals[TOGETHER];
    real *x, *g, *out;             /* rows of the signals, where the operands' own memory does not do */
    real *waste, *between;         /* a row for what nobody wants, two rows between factors */
    cvec *inputs, *u, *v;          /* in backward, each factor's input; signals on their way */
    real *outputs, *moments, *sums; /* in backward: rows after factors; sums of moments and for the diagonals */
} Room;

/* Of rows of n bytes each, those from `first` to `end` that were not fetched yet. */
static void look(Lines *lines, const void *rows, num n, num first, num end) {
    const char *start = (const char *)rows + first * n;
    if (lines->at < start) lines->at = start;
    lines->end = (const char *)rows + end * n;
}
/* After rows r and r + 1: as many as go together. */
static void look_ahead(Room *room, num r) {
    const Layer *l = room->job->layer;
    num size = bytes_of(l->format), first = r + 2, end = least(first + 2 * together(l), l->rows);
    Lines *lines = room->ahead.of;
    if (l->order || first >= end) return; /* a mixed batch's rows lie anywhere */
    look(lines++, l->x, l->d_in * size, first, end);
    if (l->g) look(lines++, l->g, l->d_out * size, first, end);
    if (!l->g || l->input_gradient) look(lines, l->out, (l->g ? l->d_in : l->d_out) * size, first, end);
    room->ahead.now = 0;
}

/* The next signal of row r, or of rows r and r + 1. */
static Signal *load(Room *room, num r, num two) {
    const Job *job = room->job;
    const Layer *l = job->layer;
    num size = widest(l), back = l->g != 0, wanted = !back || l->input_gradient, width = back ? l->d_in : l->d_out;
    num at = 2 * room->n * size, whole_rows = l->format == REALS && width == l->p * (back ? l->q_in : l->q_out);
    Signal *s = room->signals + room->n;
    look_ahead(room, r);
    for (num k = 0; k < 2; k++, at += size) {
        int is = k == 0 || two;
        s->x[k] = is ? row_of(l, l->x, row_at(l, r + k), l->d_in, l->q_in, room->x + at) : job->zeros;
        s->g[k] = is && back ? row_of(l, l->g, r + k, l->d_out, l->q_out, room->g + at) : job->zeros;
        s->to[k] = is && wanted ? (char *)l->out + row_at(l, r + k) * width * bytes_of(l->format) : 0;
        s->out[k] = !s->to[k] ? room->waste : whole_rows ? s->to[k] : room->out + at;
    }
    return s;
}
static void finish(const Layer *l, const Signal *s, num width) {
    for (num k = 0; k < 2; k++)
        if (s->to[k] && s->to[k] != (void *)s->out[k]) write_to(l->format, s->to[k], s->out[k], width);
}

/* Rows of `blocks` blocks on their way to spectra, and all the way. */
static void enter(const Fft *f, cvec *u, const real *row0, const real *row1, const real *scale, cvec *squares, num blocks) {
    FIRST[f->radix[0]](blocks, f->columns, f->turns, u, row0, row1, scale, squares);
}
/* The signal that was loaded last enters its transform. 0 where its rows are two that must not share it. */
static int entered(const Room *room, cvec *u, num two) {
    const Job *job = room->job;
    const Signal *s = room->signals + room->n;
    cvec squares = {{0}, {0}};
    enter(&room->fft, u, s->x[0], s->x[1], job->diagonal[0], two ? &squares : 0, job->layer->q_in);
    if (!two) return 1;
    real a = largest(squares.re), b = largest(squares.im);
    if (a > (real)1e-30 && b > (real)1e-30) return a <= 4096 * b && b <= 4096 * a;
    return alike(s->x, job->diagonal[0], job->layer->p * job->layer->q_in);
}

/* ---- products of spectra, each block as its columns ------------------------------------------------------------------ */

typedef struct { num outer, inner, by_outer, by_inner; } Grid; /* blocks of a result, terms of each, steps among factors' blocks */

/* Of n signals: y_i = sum_j c_ij u_j, or with conj(c_ij) */
INLINE void multiply(num n, int conjugate, Grid grid, num columns, const cvec *c, const cvec *u, num step, cvec *y, num y_step) {
    for (num i = 0; i < grid.outer; i++)
        for (num k = 0; k < columns; k++) {
            const cvec *factor = c + i * grid.by_outer * columns + k, *from = u + k;
            cvec sums[TOGETHER];
            for (num s = 0; s < n; s++) sums[s] = cproduct(*factor, from[s * step], conjugate);
            for (num j = 1; j < grid.inner; j++) {
                factor += grid.by_inner * columns, from += columns;
                for (num s = 0; s < n; s++) sums[s] = cplus_times(sums[s], *factor, from[s * step], conjugate);
            }
            for (num s = 0; s < n; s++) y[s * y_step + i * columns + k] = sums[s];
        }
}
/* sum_ij += conj(u_j) v_i, for `outs` outputs i and `ins` inputs j, each read once. Of two rows, the cross terms are
 * imaginary once transformed back. */
INLINE void moment(num n, int outs, int ins, num q_in, num columns, const cvec *u, num u_step, const cvec *v, num v_step, cvec *sums) {
    for (num k = 0; k < columns; k++, u++, v++, sums++) {
        cvec sum[4];
        UNROLL for (int t = 0; t < outs * ins; t++) sum[t] = sums[(t / ins * q_in + t % ins) * columns];
        for (num s = 0; s < n; s++) {
            cvec from[2];
            UNROLL for (int j = 0; j < ins; j++) from[j] = held(u[s * u_step + j * columns]);
            UNROLL for (int i = 0; i < outs; i++) {
                cvec to = held(v[s * v_step + i * columns]);
                UNROLL for (int j = 0; j < ins; j++) sum[i * ins + j] = cplus_times(sum[i * ins + j], from[j], to, 1);
            }
        }
        UNROLL for (int t = 0; t < outs * ins; t++) sums[(t / ins * q_in + t % ins) * columns] = sum[t];
    }
}
#define BESIDE (WIDTH == 64 ? 2 : 1) /* inputs at once: sums of two outputs and two inputs fill half of 32 registers */
INLINE void all_moments(num n, num q_out, num q_in, num columns, const cvec *u, num u_step, const cvec *v, num v_step, cvec *sums) {
    num two = q_out / 2 * 2, beside = q_in / BESIDE * BESIDE;
    for (num i = 0; i < q_out; i += i < two ? 2 : 1)
        for (num j = 0; j < q_in; j += i < two && j < beside ? BESIDE : 1) {
            const cvec *from = u + j * columns, *to = v + i * columns;
            cvec *at = sums + (i * q_in + j) * columns;
            if (i < two && j < beside) moment(n, 2, BESIDE, q_in, columns, from, u_step, to, v_step, at);
            else if (i < two) moment(n, 2, 1, q_in, columns, from, u_step, to, v_step, at);
            else moment(n, 1, 1, q_in, columns, from, u_step, to, v_step, at);
        }
}
static void moments(num n, num q_out, num q_in, num columns, const cvec *u, num u_step, const cvec *v, num v_step, cvec *sums) {
    if (n == TOGETHER) all_moments(TOGETHER, q_out, q_in, columns, u, u_step, v, v_step, sums);
    else for (num s = 0; s < n; s++) all_moments(1, q_out, q_in, columns, u + s * u_step, u_step, v + s * v_step, v_step, sums);
}
/* The products of n signals with a factor (or, conjugate, with its adjoint), transformed back up to the last stage. */
static void through(const Fft *f, num n, int conjugate, Grid grid, const cvec *c, const cvec *u, num step, cvec *y, num y_step) {
    num columns = f->columns;
    if (grid.inner > 1 && n == TOGETHER && conjugate) multiply(TOGETHER, 1, grid, columns, c, u, step, y, y_step);
    else if (grid.inner > 1 && n == TOGETHER) multiply(TOGETHER, 0, grid, columns, c, u, step, y, y_step);
    else
        for (num s = 0; grid.inner > 1 && s < n; s++) {
            if (conjugate) multiply(1, 1, grid, columns, c, u + s * step, step, y + s * y_step, y_step);
            else multiply(1, 0, grid, columns, c, u + s * step, step, y + s * y_step, y_step);
        }
    How how = conjugate ? CONJUGATE_TIMES : TIMES;
    for (num s = 0; s < n; s++)
        if (grid.inner > 1) rest(f, BACK, grid.outer, y + s * y_step, 0, 0, 0);
        else
            for (num i = 0; i < grid.outer; i++)
                rest(f, how, 1, y + s * y_step + i * columns, c + i * grid.by_outer * columns, (cvec *)u + s * step, 0);
}

static Grid grid_of(const Layer *l, num i) { return (Grid){l->q_out, inputs_of(l, i), inputs_of(l, i), 1}; }
static Grid adjoint_grid(const Layer *l, num i) { return (Grid){inputs_of(l, i), l->q_out, 1, inputs_of(l, i)}; }

/* Rows of `blocks` blocks out of their transforms. */
static void to_rows(const Fft *f, const cvec *u, real *row0, real *row1, const real *scale, const real *bias, num blocks) {
    LAST[f->radix[0]](blocks, f->columns, f->turns, u, row0, row1, scale, bias);
}
