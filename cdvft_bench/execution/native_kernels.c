/* Diagonal-circulant-diagonal products of rows, forward and backward: one pass over x (and g), all between in cache.
 *
 * Two rows are transformed at once: one is the real, the other the imaginary part of one complex signal of p points,
 * which a circulant product keeps apart. A signal is p / LANES columns of LANES neighbouring entries; a transform goes
 * over the columns first (any radix of RADICES, by whole vectors), then across the lanes of each vector. Frequencies
 * stay in the order in which that leaves them: a product of spectra does not care.
 *
 * In GNU C's vector extension, which gcc and clang lower to any CPU; native.py compiles it for float and for double.
 * A block (i, j) of a factor maps block j of the input to block i of the output; "pair" is two rows, as blocks of
 * (real p, imaginary p); a lone row leaves the imaginary part zero. Rows of very different size, or that are not
 * finite, go alone: what one rounds away or spoils, the other would feel. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifndef M_PI
#define M_PI 3.14159265358979323846
#endif
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (bits){__VA_ARGS__})
#endif

#ifdef DOUBLE
typedef double real;
#define LANES 8
#define WITHOUT_SIGN INT64_MAX
typedef int64_t bits __attribute__((vector_size(64)));
#define EACH_LANE(f, h) f(0, h), f(1, h), f(2, h), f(3, h), f(4, h), f(5, h), f(6, h), f(7, h)
#else
typedef float real;
#define LANES 16
#define WITHOUT_SIGN INT32_MAX
typedef int32_t bits __attribute__((vector_size(64)));
#define EACH_LANE(f, h) f(0, h), f(1, h), f(2, h), f(3, h), f(4, h), f(5, h), f(6, h), f(7, h), \
                        f(8, h), f(9, h), f(10, h), f(11, h), f(12, h), f(13, h), f(14, h), f(15, h)
#endif
typedef real vec __attribute__((vector_size(LANES * sizeof(real)), may_alias));
typedef real loose __attribute__((vector_size(LANES * sizeof(real)), aligned(sizeof(real)), may_alias));
typedef int64_t num;

#define MOST 16 /* radices, diagonals, circulants */

/* One layer and what to do with it; native.py has the same structure. Pointers are to contiguous memory. */
typedef struct {
    num rows, d_in, d_out, p, q_in, q_out; /* q_in: blocks of the input, q_out: of the output */
    num diagonals, circulants, threads, stages;
    num row_convention, input_gradient;
    num radices[MOST]; /* their product is p / LANES */
    double alpha;
    const real *tables;            /* by make_tables */
    real *workspace;               /* forward_workspace or backward_workspace entries, aligned to 64 bytes */
    void *parallel;                /* GOMP_parallel of the pool that torch uses, or NULL */
    const real *x, *g, *bias;      /* (rows, d_in), (rows, d_out), (d_out) or NULL */
    real *out;                     /* forward: (rows, d_out); backward: gradient of x, (rows, d_in) */
    const real *diagonal[MOST], *circulant[MOST];
    real *grad_diagonal[MOST], *grad_circulant[MOST];
    num transforms;                /* counted: transforms of p complex points */
} Layer;

/* ---- tables ---------------------------------------------------------------------------------------------------- */

typedef struct {
    num columns, stages;
    const num *radix;
    const real *turns, *turns_end;         /* of the column stages: (re, im) each */
    const vec *twist_re, *twist_im;        /* between columns and lanes */
    const vec *lane;                       /* re, im of the turn within the lanes */
} Fft;

static num aligned(num n) { return (n + LANES - 1) / LANES * LANES; }

static num column_turns(num columns, const num *radices, num stages) {
    num size = 0;
    for (num s = 0, length = columns; s < stages; length /= radices[s++]) size += 2 * (length / radices[s]) * (radices[s] - 1);
    return size;
}

num table_size(num p, const num *radices, num stages) {
    return aligned(column_turns(p / LANES, radices, stages)) + 2 * p + 2 * LANES;
}

static void turn(num part, num of, real *re, real *im) {
    *re = (real)cos(2 * M_PI * (double)part / (double)of);
    *im = (real)-sin(2 * M_PI * (double)part / (double)of);
}

void make_tables(num p, const num *radices, num stages, real *out) {
    num columns = p / LANES;
    real *o = out;
    for (num s = 0, length = columns; s < stages; length /= radices[s++])
        for (num j = 0; j < length / radices[s]; j++)
            for (num k = 1; k < radices[s]; k++, o += 2) turn(j * k, length, o, o + 1);
    o = out + aligned(o - out);
    for (num at = 0; at < columns; at++) {
        num k = 0; /* the frequency that the column stages leave at this place: digits reversed */
        for (num s = 0, weight = 1, rest = at, length = columns; s < stages; s++) {
            length /= radices[s];
            k += weight * (rest / length);
            rest %= length;
            weight *= radices[s];
        }
        for (num j = 0; j < LANES; j++) turn(j * k % p, p, o + at * LANES + j, o + p + at * LANES + j);
    }
    o += 2 * p;
    for (num j = 0; j < LANES; j++) /* what the first radix across the lanes leaves to turn; a lane's radix 2 is bit 2 */
        turn((j % 4) * ((j >> 3 & 1) * (LANES == 16) + (j >> 2 & 1) * (LANES / 8)), LANES, o + j, o + LANES + j);
}

static Fft tables_of(const Layer *l) {
    num columns = l->p / LANES, turns = column_turns(columns, l->radices, l->stages);
    const vec *twist = (const vec *)(l->tables + aligned(turns));
    return (Fft){columns, l->stages, l->radices, l->tables, l->tables + turns, twist, twist + columns, twist + 2 * columns};
}

/* ---- transforms, in place, without a scale --------------------------------------------------------------------- */

typedef struct { vec re, im; } cvec;
#define INLINE static inline __attribute__((always_inline))
INLINE cvec add(cvec a, cvec b) { return (cvec){a.re + b.re, a.im + b.im}; }
INLINE cvec sub(cvec a, cvec b) { return (cvec){a.re - b.re, a.im - b.im}; }
INLINE cvec turned(cvec a, real re, real im) { return (cvec){a.re * re - a.im * im, a.re * im + a.im * re}; }
INLINE cvec turned_back(cvec a, real re, real im) { return (cvec){a.re * re + a.im * im, a.im * re - a.re * im}; }

/* r points; r is a constant where this is inlined */
INLINE void dft(int r, cvec *v, int back) {
    if (r == 2) {
        cvec a = v[0];
        v[0] = add(a, v[1]);
        v[1] = sub(a, v[1]);
    } else if (r == 4) {
        cvec a = add(v[0], v[2]), b = sub(v[0], v[2]), c = add(v[1], v[3]), d = sub(v[1], v[3]);
        cvec e = back ? (cvec){-d.im, d.re} : (cvec){d.im, -d.re};
        v[0] = add(a, c), v[1] = add(b, e), v[2] = sub(a, c), v[3] = sub(b, e);
    } else { /* odd: by pairs of conjugate roots */
        cvec sum[4], dif[4], first = v[0];
#pragma GCC unroll 3
        for (int k = 1; k <= r / 2; k++) {
            sum[k] = add(v[k], v[r - k]), dif[k] = sub(v[k], v[r - k]);
            v[0] = add(v[0], sum[k]);
        }
#pragma GCC unroll 3
        for (int k = 1; k <= r / 2; k++) {
            cvec a = first, b = {{0}, {0}};
#pragma GCC unroll 3
            for (int j = 1; j <= r / 2; j++) {
                double angle = 2 * M_PI * (j * k % r) / r;
                real c = (real)__builtin_cos(angle), s = (real)__builtin_sin(back ? -angle : angle);
                a.re += sum[j].re * c, a.im += sum[j].im * c, b.re += dif[j].im * s, b.im -= dif[j].re * s;
            }
            v[k] = add(a, b), v[r - k] = sub(a, b);
        }
    }
}

#define COLUMN_STAGE(R)                                                                                               \
    static void columns_##R(num length, num columns, const real *turns, vec *restrict re, vec *restrict im) {         \
        num m = length / R;                                                                                           \
        for (num at = 0; at < columns; at += length) {                                                                \
            const real *t = turns;                                                                                    \
            for (num j = at; j < at + m; j++, t += 2 * (R - 1)) {                                                     \
                cvec v[R];                                                                                            \
                _Pragma("GCC unroll 7") for (int k = 0; k < R; k++) v[k] = (cvec){re[j + k * m], im[j + k * m]};      \
                dft(R, v, 0);                                                                                         \
                re[j] = v[0].re, im[j] = v[0].im;                                                                     \
                _Pragma("GCC unroll 7") for (int k = 1; k < R; k++) {                                                 \
                    cvec o = turned(v[k], t[2 * k - 2], t[2 * k - 1]);                                                \
                    re[j + k * m] = o.re, im[j + k * m] = o.im;                                                       \
                }                                                                                                     \
            }                                                                                                         \
        }                                                                                                             \
    }                                                                                                                 \
    static void columns_back_##R(num length, num columns, const real *turns, vec *restrict re, vec *restrict im) {    \
        num m = length / R;                                                                                           \
        for (num at = 0; at < columns; at += length) {                                                                \
            const real *t = turns;                                                                                    \
            for (num j = at; j < at + m; j++, t += 2 * (R - 1)) {                                                     \
                cvec v[R];                                                                                            \
                v[0] = (cvec){re[j], im[j]};                                                                          \
                _Pragma("GCC unroll 7") for (int k = 1; k < R; k++)                                                   \
                    v[k] = turned_back((cvec){re[j + k * m], im[j + k * m]}, t[2 * k - 2], t[2 * k - 1]);             \
                dft(R, v, 1);                                                                                         \
                _Pragma("GCC unroll 7") for (int k = 0; k < R; k++) re[j + k * m] = v[k].re, im[j + k * m] = v[k].im; \
            }                                                                                                         \
        }                                                                                                             \
    }
COLUMN_STAGE(2) COLUMN_STAGE(3) COLUMN_STAGE(4) COLUMN_STAGE(5) COLUMN_STAGE(7)

typedef void (*Stage)(num, num, const real *, vec *restrict, vec *restrict);
static const Stage FORTH[8] = {0, 0, columns_2, columns_3, columns_4, columns_5, 0, columns_7};
static const Stage BACK[8] = {0, 0, columns_back_2, columns_back_3, columns_back_4, columns_back_5, 0, columns_back_7};

/* A transform over the lanes of a vector, radix 4 and then 4 (float) or 2 and then 4 (double). A butterfly of radix 2
 * takes lane j and lane j ^ h; two of them with -i on a quarter of the lanes between make one of radix 4. */
#define PARTNER(j, h) (j) ^ (h)
#define SIGN(j, h) (j) & (h) ? -1 : 1
#define QUARTER(j, h) ((j) & (h)) == (h) ? (j) + LANES : (j) /* lanes with all bits of h from the second vector */
#define BUTTERFLY(h)                                                                                                  \
    r = r * (vec){EACH_LANE(SIGN, h)} + SHUFFLE(r, r, EACH_LANE(PARTNER, h));                                         \
    m = m * (vec){EACH_LANE(SIGN, h)} + SHUFFLE(m, m, EACH_LANE(PARTNER, h));
#define BLEND(a, b, h) SHUFFLE(a, b, EACH_LANE(QUARTER, h))
#define MINUS_I(h) { vec a = BLEND(r, m, h); m = BLEND(m, -r, h), r = a; }
#define PLUS_I(h) { vec a = BLEND(r, -m, h); m = BLEND(m, r, h), r = a; }
#define TWIST(re, im) { vec a = r * (re) - m * (im); m = r * (im) + m * (re), r = a; }
#define TWIST_BACK(re, im) { vec a = r * (re) + m * (im); m = m * (re) - r * (im), r = a; }
#ifdef DOUBLE
#define ACROSS BUTTERFLY(4) TWIST(lane[0], lane[1]) BUTTERFLY(2) MINUS_I(3) BUTTERFLY(1)
#define ACROSS_BACK BUTTERFLY(1) PLUS_I(3) BUTTERFLY(2) TWIST_BACK(lane[0], lane[1]) BUTTERFLY(4)
#else
#define ACROSS BUTTERFLY(8) MINUS_I(12) BUTTERFLY(4) TWIST(lane[0], lane[1]) BUTTERFLY(2) MINUS_I(3) BUTTERFLY(1)
#define ACROSS_BACK BUTTERFLY(1) PLUS_I(3) BUTTERFLY(2) TWIST_BACK(lane[0], lane[1]) BUTTERFLY(4) PLUS_I(12) BUTTERFLY(8)
#endif

/* Stages from s on of a part of the signal: as soon as a part fits the first cache, all that is left of it. */
#define IN_CACHE (8192 / (num)sizeof(vec))

static void forth(const Fft *f, num s, num length, const real *turns, num at, vec *re, vec *im) {
    num r = s < f->stages ? f->radix[s] : 1, shorter = length / r;
    if (length > IN_CACHE && r > 1) {
        FORTH[r](length, length, turns, re + at, im + at);
        for (num k = 0; k < r; k++) forth(f, s + 1, shorter, turns + 2 * shorter * (r - 1), at + k * shorter, re, im);
        return;
    }
    num end = at + length;
    for (; s < f->stages; s++, length = shorter) {
        r = f->radix[s], shorter = length / r;
        FORTH[r](length, end - at, turns, re + at, im + at);
        turns += 2 * shorter * (r - 1);
    }
    const vec *lane = f->lane;
    for (num j = at; j < end; j++) {
        vec r = re[j], m = im[j];
        TWIST(f->twist_re[j], f->twist_im[j])
        ACROSS
        re[j] = r, im[j] = m;
    }
}

static void back(const Fft *f, num s, num length, const real *turns, num at, vec *re, vec *im) {
    num r = s < f->stages ? f->radix[s] : 1, shorter = length / r;
    if (length > IN_CACHE && r > 1) {
        for (num k = 0; k < r; k++) back(f, s + 1, shorter, turns + 2 * shorter * (r - 1), at + k * shorter, re, im);
        BACK[r](length, length, turns, re + at, im + at);
        return;
    }
    const vec *lane = f->lane;
    for (num j = at; j < at + length; j++) {
        vec r = re[j], m = im[j];
        ACROSS_BACK
        TWIST_BACK(f->twist_re[j], f->twist_im[j])
        re[j] = r, im[j] = m;
    }
    turns = f->turns_end;
    shorter = 1;
    for (num t = f->stages - 1; t >= s; t--) {
        r = f->radix[t], turns -= 2 * shorter * (r - 1), shorter *= r;
        BACK[r](shorter, length, turns, re + at, im + at);
    }
}

static void fft(const Fft *f, vec *re, vec *im) { forth(f, 0, f->columns, f->turns, 0, re, im); }
static void ifft(const Fft *f, vec *re, vec *im) { back(f, 0, f->columns, f->turns, 0, re, im); }

/* ---- pairs of rows --------------------------------------------------------------------------------------------- */

static num least(num a, num b) { return a < b ? a : b; }

/* how many of block b's entries lie within the width */
static num within(const Layer *l, num width, num b) {
    num n = least(width - b * l->p, l->p);
    return n > 0 ? n : 0;
}

static void load(real *to, const real *row, const real *scale, num n, num padded) {
    num whole = row ? n / LANES * LANES : 0, end = row ? n : 0;
    if (scale) for (num i = 0; i < whole; i += LANES) *(vec *)(to + i) = *(const loose *)(row + i) * *(const loose *)(scale + i);
    else for (num i = 0; i < whole; i += LANES) *(vec *)(to + i) = *(const loose *)(row + i);
    for (num i = whole; i < end; i++) to[i] = scale ? row[i] * scale[i] : row[i];
    if (end < padded) memset(to + end, 0, (size_t)(padded - end) * sizeof(real));
}

static void store(real *row, const real *from, const real *scale, const real *bias, num n) {
    num whole = n / LANES * LANES;
    for (num i = 0; i < whole; i += LANES) {
        vec v = *(const vec *)(from + i);
        if (scale) v *= *(const loose *)(scale + i);
        if (bias) v += *(const loose *)(bias + i);
        *(loose *)(row + i) = v;
    }
    for (num i = whole; i < n; i++) row[i] = (scale ? from[i] * scale[i] : from[i]) + (bias ? bias[i] : 0);
}

/* sum of the absolute values of a row times a diagonal (or NULL); not finite where an entry is not */
static real size(const real *row, const real *scale, num n) {
    vec sums[4] = {{0}, {0}, {0}, {0}};
    real sum = 0;
    num i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (num k = 0; k < 4; k++) {
            vec v = *(const loose *)(row + i + k * LANES);
            if (scale) v *= *(const loose *)(scale + i + k * LANES);
            sums[k] += (vec)((bits)v & WITHOUT_SIGN);
        }
    for (; i < n; i++) {
        real v = scale ? row[i] * scale[i] : row[i];
        sum += v < 0 ? -v : v;
    }
    vec all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    for (num h = LANES / 2; h >= 1; h /= 2)
        for (num j = 0; j < h; j++) all[j] += all[j + h];
    return sum + all[0];
}

/* whether rows of these sizes may share a signal: what rounding makes of the larger stays small beside the other */
static int alike(real a, real b) { return a <= 64 * b && b <= 64 * a && a - a == 0 && b - b == 0; }

/* two rows (row1 may be NULL) times a diagonal (or NULL) */
static void load_pair(const Layer *l, real *to, const real *row0, const real *row1, const real *scale, num width, num blocks) {
    for (num b = 0; b < blocks; b++) {
        num at = b * l->p, n = within(l, width, b);
        load(to + 2 * at, row0 + at, scale ? scale + at : 0, n, l->p);
        load(to + 2 * at + l->p, row1 ? row1 + at : 0, scale ? scale + at : 0, n, l->p);
    }
}

static void store_pair(const Layer *l, real *row0, real *row1, const real *from, const real *scale, const real *bias,
                       num width, num blocks) {
    for (num b = 0; b < blocks; b++) {
        num at = b * l->p, n = within(l, width, b);
        store(row0 + at, from + 2 * at, scale ? scale + at : 0, bias ? bias + at : 0, n);
        if (row1) store(row1 + at, from + 2 * at + l->p, scale ? scale + at : 0, bias ? bias + at : 0, n);
    }
}

/* a pair times a diagonal; zero beyond the width, where a transform has left something */
static void scale_pair(const Layer *l, real *to, const real *from, const real *scale, num width, num blocks) {
    for (num b = 0; b < blocks; b++) {
        num at = b * l->p, n = within(l, width, b);
        load(to + 2 * at, from + 2 * at, scale + at, n, l->p);
        load(to + 2 * at + l->p, from + 2 * at + l->p, scale + at, n, l->p);
    }
}

/* sum += a * b over both rows: a diagonal's gradient */
static void dot_pair(const Layer *l, real *sum, const real *a, const real *b, num blocks) {
    num columns = l->p / LANES;
    for (num q = 0; q < blocks; q++) {
        const vec *va = (const vec *)a + 2 * q * columns, *vb = (const vec *)b + 2 * q * columns;
        vec *s = (vec *)sum + q * columns;
        for (num k = 0; k < columns; k++) s[k] += va[k] * vb[k] + va[k + columns] * vb[k + columns];
    }
}

/* ---- products of spectra, each block as (re, im) of `columns` vectors ------------------------------------------- */

/* y_i = sum_j c_ij u_j */
static void multiply(num q_out, num q_in, num columns, const vec *c, const vec *u, vec *y) {
    for (num i = 0; i < q_out; i++)
        for (num j = 0; j < q_in; j++, c += 2 * columns) {
            const vec *a = u + 2 * j * columns;
            vec *o = y + 2 * i * columns;
            for (num k = 0; k < columns; k++) {
                vec re = c[k] * a[k] - c[k + columns] * a[k + columns], im = c[k] * a[k + columns] + c[k + columns] * a[k];
                if (j) o[k] += re, o[k + columns] += im;
                else o[k] = re, o[k + columns] = im;
            }
        }
}

/* u_j = sum_i conj(c_ij) v_i */
static void multiply_adjoint(num q_out, num q_in, num columns, const vec *c, const vec *v, vec *u) {
    for (num i = 0; i < q_out; i++)
        for (num j = 0; j < q_in; j++, c += 2 * columns) {
            const vec *a = v + 2 * i * columns;
            vec *o = u + 2 * j * columns;
            for (num k = 0; k < columns; k++) {
                vec re = c[k] * a[k] + c[k + columns] * a[k + columns], im = c[k] * a[k + columns] - c[k + columns] * a[k];
                if (i) o[k] += re, o[k + columns] += im;
                else o[k] = re, o[k + columns] = im;
            }
        }
}

/* sum_ij += conj(u_j) v_i. Of a pair, the cross terms of its two rows are imaginary once transformed back. */
static void moment(num q_out, num q_in, num columns, const vec *u, const vec *v, vec *sum) {
    for (num i = 0; i < q_out; i++)
        for (num j = 0; j < q_in; j++, sum += 2 * columns) {
            const vec *a = u + 2 * j * columns, *b = v + 2 * i * columns;
            for (num k = 0; k < columns; k++) {
                sum[k] += a[k] * b[k] + a[k + columns] * b[k + columns];
                sum[k + columns] += a[k] * b[k + columns] - a[k + columns] * b[k];
            }
        }
}

static void ffts(const Fft *f, real *v, num blocks, num *count) {
    for (num b = 0; b < blocks; b++) fft(f, (vec *)v + 2 * b * f->columns, (vec *)v + (2 * b + 1) * f->columns);
    *count += blocks;
}

static void iffts(const Fft *f, real *v, num blocks, num *count) {
    for (num b = 0; b < blocks; b++) ifft(f, (vec *)v + 2 * b * f->columns, (vec *)v + (2 * b + 1) * f->columns);
    *count += blocks;
}

/* ---- layers ---------------------------------------------------------------------------------------------------- */

/* The workspace: spectra of all factors, the scaled last diagonal, then a part for each thread. */
static num inputs_of(const Layer *l, num i) { return i ? l->q_out : l->q_in; } /* blocks of factor i's input */
static num width_of(const Layer *l, num i) { return i ? l->d_out : l->d_in; }
static num widest(const Layer *l) { return 2 * l->p * (l->q_in > l->q_out ? l->q_in : l->q_out); }
static num inputs_size(const Layer *l) { return 2 * l->p * (l->q_in + (l->circulants - 1) * l->q_out); }
static num spectra_size(const Layer *l) { return l->q_out * inputs_size(l); }
static num products_size(const Layer *l) { return l->diagonals ? 2 * l->p * l->circulants * l->q_out : 0; }
static num sums_size(const Layer *l) { return l->diagonals ? l->p * (l->q_in + (l->diagonals - 1) * l->q_out) : 0; }
static num shared_size(const Layer *l) { return spectra_size(l) + aligned(l->d_out); }
static num forward_part(const Layer *l) { return 2 * widest(l); }
static num backward_part(const Layer *l) {
    return inputs_size(l) + products_size(l) + 3 * widest(l) + spectra_size(l) + sums_size(l);
}
static int single(const Layer *l) { return l->q_in == 1 && l->q_out == 1; } /* then spectra are multiplied in place */
static num pairs(const Layer *l) { return (l->rows + 1) / 2; }
static num workers(const Layer *l) { /* shares of the rows, each with its part of the workspace */
    return l->parallel && l->threads > 1 && pairs(l) > 1 ? least(l->threads, pairs(l)) : 1;
}

num forward_workspace(const Layer *l) { return shared_size(l) + workers(l) * forward_part(l); }
num backward_workspace(const Layer *l) { return shared_size(l) + workers(l) * backward_part(l); }

/* Of factor i: 1 / p, which the transforms leave out, and without diagonals alpha, which else goes into the last one. */
static real scale_of(const Layer *l, num i) {
    return (real)((i == l->circulants - 1 && !l->diagonals ? l->alpha : 1.0) / (double)l->p);
}

static void prepare(Layer *l, const Fft *f) {
    real *out = l->workspace;
    for (num i = 0; i < l->circulants; i++) {
        real scale = scale_of(l, i);
        const real *c = l->circulant[i];
        for (num b = 0; b < l->q_out * inputs_of(l, i); b++, c += l->p, out += 2 * l->p) {
            for (num j = 0; j < l->p; j++) out[j] = c[l->row_convention && j ? l->p - j : j] * scale;
            memset(out + l->p, 0, (size_t)l->p * sizeof(real));
            ffts(f, out, 1, &l->transforms);
        }
    }
    if (l->diagonals)
        for (num j = 0; j < l->d_out; j++) out[j] = l->diagonal[l->diagonals - 1][j] * (real)l->alpha;
}

/* the diagonal after factor i */
static const real *scale_after(const Layer *l, num i) {
    if (!l->diagonals) return 0;
    return i == l->circulants - 1 ? l->workspace + spectra_size(l) : l->diagonal[i + 1];
}

typedef struct { Layer *layer; Fft fft; num next; } Job;
typedef void (*Worker)(void *);
typedef void (*Parallel)(Worker, void *, unsigned, unsigned);

static void run(Job *job, Worker worker) {
    /* all threads even for fewer shares: the pool would end the others, for torch to make them anew */
    if (workers(job->layer) > 1) ((Parallel)job->layer->parallel)(worker, job, (unsigned)job->layer->threads, 0);
    else worker(job);
}

/* The next share of the rows, for whichever thread asks: a pool may have fewer threads than asked for. What is in a
 * share depends on its number alone, so that sums over rows are the same at every call. 0 when none is left. */
typedef struct { num id, first, end; } Share;
static int take(Job *job, Share *share) {
    num id = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED), n = workers(job->layer), all = pairs(job->layer);
    *share = (Share){id, all * id / n, all * (id + 1) / n};
    return id < n;
}

/* One row (x1 NULL) or two. u, y: room for a pair each. */
static void forward_pair(const Layer *l, const Fft *f, const real *x0, const real *x1, real *o0, real *o1, real *u, real *y,
                         num *count) {
    num last = l->circulants - 1;
    const vec *c = (const vec *)l->workspace;
    load_pair(l, u, x0, x1, l->diagonals ? l->diagonal[0] : 0, l->d_in, l->q_in);
    for (num i = 0; i <= last; i++) {
        num q = inputs_of(l, i);
        ffts(f, u, q, count);
        multiply(l->q_out, q, f->columns, c, (vec *)u, (vec *)y);
        iffts(f, y, l->q_out, count);
        c += 2 * f->columns * l->q_out * q;
        if (i < last) scale_pair(l, u, y, scale_after(l, i), l->d_out, l->q_out);
    }
    store_pair(l, o0, o1, y, scale_after(l, last), l->bias, l->d_out, l->q_out);
}

static void forward_share(const Job *job, Share share) {
    Layer *l = job->layer;
    const real *a = l->diagonals ? l->diagonal[0] : 0;
    num count = 0;
    real *u = l->workspace + shared_size(l) + share.id * forward_part(l), *y = single(l) ? u : u + widest(l);
    for (num r = 2 * share.first; r < 2 * share.end; r += 2) {
        const real *x = l->x + r * l->d_in;
        real *o = l->out + r * l->d_out;
        if (r + 1 == l->rows) forward_pair(l, &job->fft, x, 0, o, 0, u, y, &count);
        else if (alike(size(x, a, l->d_in), size(x + l->d_in, a, l->d_in)))
            forward_pair(l, &job->fft, x, x + l->d_in, o, o + l->d_out, u, y, &count);
        else
            for (num k = 0; k < 2; k++) forward_pair(l, &job->fft, x + k * l->d_in, 0, o + k * l->d_out, 0, u, y, &count);
    }
    __atomic_fetch_add(&l->transforms, count, __ATOMIC_RELAXED);
}

static void forward_rows(void *job) {
    for (Share share; take(job, &share);) forward_share(job, share);
}

/* out = alpha dW x + bias */
void forward(Layer *l) {
    Job job = {l, tables_of(l), 0};
    l->transforms = 0;
    prepare(l, &job.fft);
    run(&job, forward_rows);
}

static real *sums_of(const Layer *l, num id) { /* of moments, then of the diagonals' gradients */
    return l->workspace + shared_size(l) + (id + 1) * backward_part(l) - spectra_size(l) - sums_size(l);
}

/* A thread's part of the workspace in backward. */
typedef struct { real *inputs, *products, *v, *w, *plain, *moments, *sums; } Room;

/* One row (x1, g1, o1 NULL) or two. */
static void backward_pair(const Layer *l, const Fft *f, const real *x0, const real *x1, const real *g0, const real *g1,
                          real *o0, real *o1, const Room *room, num *count) {
    num p = l->p, columns = f->columns, last = l->circulants - 1;
    /* the forward pass again: each factor's input as a spectrum and, where a diagonal follows, its output */
    const vec *c = (const vec *)l->workspace;
    real *u = room->inputs, *y = room->products, *v = room->v, *w = room->w;
    load_pair(l, u, x0, x1, l->diagonals ? l->diagonal[0] : 0, l->d_in, l->q_in);
    for (num i = 0; i <= last; i++) {
        num q = inputs_of(l, i);
        ffts(f, u, q, count);
        if (l->diagonals) {
            multiply(l->q_out, q, columns, c, (vec *)u, (vec *)y);
            iffts(f, y, l->q_out, count);
            if (i < last) scale_pair(l, u + 2 * p * q, y, scale_after(l, i), l->d_out, l->q_out);
            y += 2 * p * l->q_out;
        }
        u += 2 * p * q, c += 2 * columns * l->q_out * q;
    }
    load_pair(l, v, g0, g1, 0, l->d_out, l->q_out);
    real *m = room->moments + spectra_size(l), *s = room->sums + sums_size(l);
    for (num i = last; i >= 0; i--) {
        num q = inputs_of(l, i);
        if (l->diagonals) {
            y -= 2 * p * l->q_out, s -= p * l->q_out;
            dot_pair(l, s, v, y, l->q_out);
            scale_pair(l, v, v, scale_after(l, i), l->d_out, l->q_out);
        }
        ffts(f, v, l->q_out, count);
        u -= 2 * p * q, c -= 2 * columns * l->q_out * q, m -= 2 * p * l->q_out * q;
        moment(l->q_out, q, columns, (vec *)u, (vec *)v, (vec *)m);
        if (!l->diagonals && !l->input_gradient) return; /* nobody wants the gradient of the factor's input */
        multiply_adjoint(l->q_out, q, columns, c, (vec *)v, (vec *)w);
        iffts(f, w, q, count);
        real *swap = v;
        v = w, w = swap;
    }
    if (l->diagonals) {
        load_pair(l, room->plain, x0, x1, 0, l->d_in, l->q_in);
        dot_pair(l, s - p * l->q_in, v, room->plain, l->q_in);
    }
    if (l->input_gradient) store_pair(l, o0, o1, v, l->diagonals ? l->diagonal[0] : 0, 0, l->d_in, l->q_in);
}

static void backward_share(const Job *job, Share share) {
    Layer *l = job->layer;
    const real *first = l->diagonals ? l->diagonal[0] : 0, *last = scale_after(l, l->circulants - 1);
    num n = l->d_in, count = 0;
    Room room = {.inputs = l->workspace + shared_size(l) + share.id * backward_part(l), .moments = sums_of(l, share.id)};
    room.products = room.inputs + inputs_size(l), room.v = room.products + products_size(l);
    room.plain = room.v + widest(l), room.w = single(l) ? room.v : room.plain + widest(l);
    room.sums = room.moments + spectra_size(l);
    memset(room.moments, 0, (size_t)(spectra_size(l) + sums_size(l)) * sizeof(real));
    for (num r = 2 * share.first; r < 2 * share.end; r += 2) {
        const real *x = l->x + r * n, *g = l->g + r * l->d_out;
        real *o = l->input_gradient ? l->out + r * n : 0;
        num two = r + 1 < l->rows;
        real g0 = size(g, 0, l->d_out), g1 = two ? size(g + l->d_out, 0, l->d_out) : 0;
        if (g0 != 0 && g1 != 0 && alike(size(x, first, n), size(x + n, first, n)) &&
            (last ? alike(size(g, last, l->d_out), size(g + l->d_out, last, l->d_out)) : alike(g0, g1))) {
            backward_pair(l, &job->fft, x, x + n, g, g + l->d_out, o, o ? o + n : 0, &room, &count);
            continue;
        }
        for (num k = 0; k <= two; k++) {
            real *out = o ? o + k * n : 0;
            if ((k ? g1 : g0) != 0) backward_pair(l, &job->fft, x + k * n, 0, g + k * l->d_out, 0, out, 0, &room, &count);
            else if (out) memset(out, 0, (size_t)n * sizeof(real)); /* as where a loss leaves tokens out */
        }
    }
    __atomic_fetch_add(&l->transforms, count, __ATOMIC_RELAXED);
}

static void backward_rows(void *job) {
    for (Share share; take(job, &share);) backward_share(job, share);
}

/* out = gradient of x through the change; gradients of all factors */
void backward(Layer *l) {
    Job job = {l, tables_of(l), 0};
    l->transforms = 0;
    prepare(l, &job.fft);
    run(&job, backward_rows);
    real *total = sums_of(l, 0);
    for (num id = 1; id < workers(l); id++) {
        const real *more = sums_of(l, id);
        for (num i = 0; i < spectra_size(l) + sums_size(l); i++) total[i] += more[i];
    }
    for (num i = 0; i < l->circulants; i++) {
        real scale = scale_of(l, i);
        real *out = l->grad_circulant[i];
        for (num b = 0; b < l->q_out * inputs_of(l, i); b++, out += l->p, total += 2 * l->p) {
            iffts(&job.fft, total, 1, &l->transforms);
            for (num j = 0; j < l->p; j++) out[l->row_convention && j ? l->p - j : j] = total[j] * scale;
        }
    }
    for (num i = 0; i < l->diagonals; i++) {
        real scale = i == l->diagonals - 1 ? (real)l->alpha : 1;
        for (num j = 0; j < width_of(l, i); j++) l->grad_diagonal[i][j] = total[j] * scale;
        total += l->p * inputs_of(l, i);
    }
}
