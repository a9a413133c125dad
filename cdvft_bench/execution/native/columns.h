/* The first half of a transform, see fft.h: over the columns of a signal, by whole vectors. */
#include "numbers.h"

#define INSIDE (16 / (num)sizeof(real)) /* lanes of a group of 16 bytes, in which shuffles are cheap */
#define GROUPS (WIDTH / 16)

/* ---- what is fetched meanwhile --------------------------------------------------------------------------------------- */

/* Memory of the rows that come next, brought to the second cache while others are computed. A few lines at a time, all
 * along the way: a CPU stands still when more is asked for than it can wait for at once. */
#define LINE 64
#define AT_A_TIME 4
typedef struct { const char *at, *end; } Lines;
typedef struct { Lines of[4]; num now; } Ahead; /* one after the other; the last one has none */
INLINE void fetch(Ahead *ahead) {
    Lines *lines = ahead->of + ahead->now;
    if (lines->at >= lines->end) return;
    UNROLL for (int i = 0; i < AT_A_TIME; i++) __builtin_prefetch(lines->at + LINE * i, 0, 2);
    lines->at += LINE * AT_A_TIME;
    ahead->now += lines->at >= lines->end;
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

/* The columns are a product of radices, the last of which may be the 4 columns that then go across the lanes. */
typedef struct {
    num columns, stages, fours, period;    /* fours: whether they are; period: columns that have a twist */
    const num *radix;
    const real *turns;                     /* of the column stages: (re, im) each */
    const cvec *twist;                     /* of each column of one block or more, between columns and lanes */
    const cvec *within;                    /* between groups and the lanes inside of them, for each group */
    const cvec *halves;                    /* of one column alone, between halves, quarters, ... of its lanes */
    Ahead *ahead;                          /* what is fetched meanwhile */
} Fft;

#define HALVINGS (LANES == 16 ? 3 : LANES == 8 ? 2 : LANES == 4 ? 1 : 0)

static num column_turns(num columns, const num *radices, num stages) {
    num size = 0;
    for (num s = 0, length = columns; s < stages; length /= radices[s++]) size += 2 * (length / radices[s] * (radices[s] - 1));
    return (size + LANES - 1) / LANES * LANES;
}

num lanes(void) { return LANES; }
/* Columns that go across the lanes in one go: of small blocks several, where they do so by fours. */
static num period_of(num columns, int fours) {
    num period = columns;
    while (fours && period < 16) period += columns;
    return period;
}
static num last_radix(num columns, const num *radices, num stages) {
    for (num s = 0; s < stages; s++) columns /= radices[s];
    return columns; /* 4 or 1 */
}
num table_size(num p, const num *radices, num stages) {
    num columns = p / LANES, period = period_of(columns, last_radix(columns, radices, stages) == 4);
    return column_turns(columns, radices, stages) + 2 * LANES * (period + GROUPS + HALVINGS);
}

static void turn(num part, num of, real *re, real *im) {
    *re = (real)cos(2 * M_PI * (double)(part % of) / (double)of);
    *im = (real)-sin(2 * M_PI * (double)(part % of) / (double)of);
}

void make_tables(num p, const num *radices, num stages, real *out) {
    num columns = p / LANES, last = last_radix(columns, radices, stages);
    real *o = out;
    for (num s = 0, length = columns; s < stages; length /= radices[s++])
        for (num j = 0; j < length / radices[s]; j++)
            for (num k = 1; k < radices[s]; k++, o += 2) turn(j * k, length, o, o + 1);
    o = out + column_turns(columns, radices, stages);
    for (num at = 0, period = period_of(columns, last == 4); at < period; at++, o += 2 * LANES) {
        num k = 0, weight = 1, rest = at % columns, length = columns; /* the frequency that the stages leave here: digits reversed */
        for (num s = 0; s < stages; s++) {
            length /= radices[s];
            k += weight * (rest / length);
            rest %= length;
            weight *= radices[s];
        }
        k += last == 4 ? weight * rest : 0;
        for (num j = 0; j < LANES; j++) turn(j * k, p, o + j, o + LANES + j);
    }
    for (num g = 0; g < GROUPS; g++, o += 2 * LANES)
        for (num j = 0; j < LANES; j++) turn(j % INSIDE * g, LANES, o + j, o + LANES + j);
    for (num h = LANES / 2; h > 1; h /= 2, o += 2 * LANES)
        for (num j = 0; j < LANES; j++) turn(j & h ? j % h : 0, 2 * h, o + j, o + LANES + j);
}

static Fft fft_of(num p, const num *radices, num stages, const real *tables, Ahead *ahead) {
    num columns = p / LANES, fours = last_radix(columns, radices, stages) == 4, period = period_of(columns, (int)fours);
    const cvec *twist = (const cvec *)(tables + column_turns(columns, radices, stages)), *within = twist + period;
    return (Fft){columns, stages, fours, period, radices, tables, twist, within, within + GROUPS, ahead};
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------- */

#define FFT_SUM(n) TALLY(additions, n), TALLY(fft_additions, n)
#define FFT_PRODUCT(n) TALLY(multiplications, n), TALLY(fft_multiplications, n)
INLINE vec sum(vec a, vec b) { FFT_SUM(LANES); return a + b; }
INLINE vec difference(vec a, vec b) { FFT_SUM(LANES); return a - b; }
INLINE vec product(vec a, vec b) { FFT_PRODUCT(LANES); return a * b; }
INLINE vec sum_of(vec a, vec b, vec c) { FFT_SUM(LANES), FFT_PRODUCT(LANES); return a + b * c; }
INLINE vec difference_of(vec a, vec b, vec c) { FFT_SUM(LANES), FFT_PRODUCT(LANES); return a - b * c; }

INLINE cvec add(cvec a, cvec b) { return (cvec){sum(a.re, b.re), sum(a.im, b.im)}; }
INLINE cvec sub(cvec a, cvec b) { return (cvec){difference(a.re, b.re), difference(a.im, b.im)}; }
/* a plus or minus b / i, or i b on the way back */
INLINE cvec add_i(cvec a, cvec b, int back) {
    return back ? (cvec){difference(a.re, b.im), sum(a.im, b.re)} : (cvec){sum(a.re, b.im), difference(a.im, b.re)};
}
INLINE cvec sub_i(cvec a, cvec b, int back) { return add_i(a, b, !back); }
INLINE cvec turned(cvec a, vec re, vec im, int back) {
    return held(back ? (cvec){sum_of(product(a.re, re), a.im, im), difference_of(product(a.im, re), a.re, im)}
                     : (cvec){difference_of(product(a.re, re), a.im, im), sum_of(product(a.re, im), a.im, re)});
}

INLINE void dft2(cvec *a, cvec *b) {
    cvec s = add(*a, *b);
    *b = sub(*a, *b), *a = s;
}
INLINE void dft4(cvec *v0, cvec *v1, cvec *v2, cvec *v3, int back) {
    cvec a = add(*v0, *v2), b = sub(*v0, *v2), c = add(*v1, *v3), d = held(sub(*v1, *v3));
    *v0 = add(a, c), *v1 = add_i(b, d, back), *v2 = sub(a, c), *v3 = sub_i(b, d, back);
}
/* an odd number of points: by pairs of conjugate roots */
INLINE void dft_odd(int r, cvec *const *v, int back) {
    cvec even[4], odd[4], first = *v[0];
    UNROLL for (int k = 1; k <= r / 2; k++) {
        even[k] = add(*v[k], *v[r - k]), odd[k] = sub(*v[k], *v[r - k]);
        *v[0] = add(*v[0], even[k]);
    }
    UNROLL for (int k = 1; k <= r / 2; k++) {
        cvec a = first, b = {{0}, {0}};
        UNROLL for (int j = 1; j <= r / 2; j++) {
            double angle = 2 * M_PI * (j * k % r) / r;
            vec c = all((real)__builtin_cos(angle)), s = all((real)__builtin_sin(angle));
            a = (cvec){sum_of(a.re, even[j].re, c), sum_of(a.im, even[j].im, c)};
            if (j == 1) b = (cvec){product(odd[j].re, s), product(odd[j].im, s)};
            else b = (cvec){sum_of(b.re, odd[j].re, s), sum_of(b.im, odd[j].im, s)};
        }
        *v[k] = add_i(a, b, back), *v[r - k] = sub_i(a, b, back);
    }
}
/* r points, r a constant where this is inlined; 6 = 2 x 3 needs no turns between, 8 = 2 x 4 eighths of a circle */
INLINE void dft(int r, cvec *v, int back) {
    if (r == 2) dft2(v, v + 1);
    else if (r == 4) dft4(v, v + 1, v + 2, v + 3, back);
    else if (r == 6) {
        cvec a[6] = {v[0], v[2], v[4], v[3], v[5], v[1]};
        dft_odd(3, (cvec *[]){a, a + 1, a + 2}, back), dft_odd(3, (cvec *[]){a + 3, a + 4, a + 5}, back);
        dft2(a, a + 3), dft2(a + 1, a + 4), dft2(a + 2, a + 5);
        v[0] = a[0], v[1] = a[4], v[2] = a[2], v[3] = a[3], v[4] = a[1], v[5] = a[5];
    } else if (r == 8) {
        vec s = all((real)0.70710678118654752440);
        dft4(v, v + 2, v + 4, v + 6, back), dft4(v + 1, v + 3, v + 5, v + 7, back);
        cvec e1 = {product(v[3].re, s), product(v[3].im, s)}, e3 = {product(v[7].re, s), product(v[7].im, s)};
        cvec o[4] = {v[1], add_i(e1, e1, back), v[5], add_i(e3, e3, back)}; /* the last two lack a quarter */
        cvec e[4] = {v[0], v[2], v[4], v[6]};
        UNROLL for (int k = 0; k < 4; k++)
            if (k < 2) v[k] = add(e[k], o[k]), v[k + 4] = sub(e[k], o[k]);
            else v[k] = add_i(e[k], o[k], back), v[k + 4] = sub_i(e[k], o[k], back);
    } else if (r > 1) {
        cvec *each[7];
        UNROLL for (int k = 0; k < r; k++) each[k] = v + k;
        dft_odd(r, each, back);
    }
}

/* ---- over the columns -------------------------------------------------------------------------------------------- */

INLINE cvec scaled(cvec a, vec by) {
    HELD(by);
    return (cvec){times(a.re, by), times(a.im, by)};
}

#define POINTS UNROLL for (int k = 0; k < r; k++)

/* The outputs of a stage but the first are turned on the way there, the inputs on the way back. */
INLINE void turn_points(int r, cvec *v, const real *t, int back) {
    UNROLL for (int k = 1; k < r; k++) v[k] = turned(v[k], all(t[2 * k - 2]), all(t[2 * k - 1]), back);
}
/* parts of `length` columns, one after the other */
INLINE void middle(int r, int back, num length, num columns, const real *turns, cvec *u) {
    num m = length / r;
    for (cvec *end = u + columns; u < end; u += length) {
        const real *t = turns;
        for (num j = 0; j < m; j++, t += 2 * (r - 1)) {
            cvec v[8];
            POINTS v[k] = held(u[j + k * m]);
            if (back) turn_points(r, v, t, 1);
            dft(r, v, back);
            if (!back) turn_points(r, v, t, 0);
            POINTS u[j + k * m] = v[k];
        }
    }
}
/* Two rows, each times a diagonal (or NULL), to the first stage's output; adds up the squares of each (or NULL). */
INLINE void first(int r, num columns, const real *turns, cvec *u, const real *row0, const real *row1, const real *scale,
                  cvec *squares) {
    num m = columns / r;
    cvec sums = squares ? *squares : (cvec){{0}, {0}};
    for (num j = 0; j < m; j++, turns += 2 * (r - 1)) {
        cvec v[8];
        POINTS {
            num i = (j + k * m) * LANES;
            v[k] = (cvec){get(row0 + i), get(row1 + i)};
            v[k] = scale ? scaled(v[k], get(scale + i)) : held(v[k]);
            if (squares) sums = (cvec){plus_times(sums.re, v[k].re, v[k].re), plus_times(sums.im, v[k].im, v[k].im)};
        }
        dft(r, v, 0);
        turn_points(r, v, turns, 0);
        POINTS u[j + k * m] = v[k];
    }
    if (squares) *squares = sums;
}
/* The last stage on the way back, to two rows: times a diagonal, plus a bias (or NULL each). */
INLINE void last(int r, num columns, const real *turns, const cvec *u, real *row0, real *row1, const real *scale, const real *bias) {
    num m = columns / r;
    for (num j = 0; j < m; j++, turns += 2 * (r - 1)) {
        cvec v[8];
        POINTS v[k] = held(u[j + k * m]);
        turn_points(r, v, turns, 1);
        dft(r, v, 1);
        POINTS {
            num i = (j + k * m) * LANES;
            vec b = bias ? get(bias + i) : all(0);
            if (scale) v[k] = scaled(v[k], get(scale + i));
            if (bias) v[k] = (cvec){plus(v[k].re, b), plus(v[k].im, b)};
            put(row0 + i, v[k].re), put(row1 + i, v[k].im);
        }
    }
}
/* The same at the place of a diagonal in backward: what comes out is a gradient, sums += gradient * (rows that the
 * diagonal was multiplied with), and it goes on times the diagonal. */
INLINE void last_gradient(int r, num columns, const real *turns, const cvec *u, real *row0, real *row1, const real *scale,
                          const real *x0, const real *x1, real *sums) {
    num m = columns / r;
    for (num j = 0; j < m; j++, turns += 2 * (r - 1)) {
        cvec v[8];
        POINTS v[k] = held(u[j + k * m]);
        turn_points(r, v, turns, 1);
        dft(r, v, 1);
        POINTS {
            num i = (j + k * m) * LANES;
            vec s = *(vec *)(sums + i);
            *(vec *)(sums + i) = plus_times(plus_times(s, v[k].re, get(x0 + i)), v[k].im, get(x1 + i));
            v[k] = scaled(v[k], get(scale + i));
            put(row0 + i, v[k].re), put(row1 + i, v[k].im);
        }
    }
}
/* Where forward ends and backward begins: the last stage of the signal u on the way back gives the rows that the last
 * diagonal was multiplied with, sums += rows * g, and g times the diagonal takes its first stage, in place of u. */
INLINE void about(int r, num columns, const real *turns, cvec *u, const real *g0, const real *g1, const real *scale, real *sums) {
    num m = columns / r;
    for (num j = 0; j < m; j++, turns += 2 * (r - 1)) {
        cvec v[8];
        POINTS v[k] = held(u[j + k * m]);
        turn_points(r, v, turns, 1);
        dft(r, v, 1);
        POINTS {
            num i = (j + k * m) * LANES;
            vec s = *(vec *)(sums + i);
            cvec g = held((cvec){get(g0 + i), get(g1 + i)});
            *(vec *)(sums + i) = plus_times(plus_times(s, v[k].re, g.re), v[k].im, g.im);
            v[k] = scaled(g, get(scale + i));
        }
        dft(r, v, 0);
        turn_points(r, v, turns, 0);
        POINTS u[j + k * m] = v[k];
    }
}

#define BY_RADIX(M) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8)
/* The first and the last stages go over neighbouring blocks, of n columns each. */
#define EACH_BLOCK for (num at = 0; blocks > 0; blocks--, u += n, at += n * LANES)
#define STAGES(R)                                                                                                     \
    static void forth_##R(num length, num n, const real *t, cvec *u) { middle(R, 0, length, n, t, u); }               \
    static void back_##R(num length, num n, const real *t, cvec *u) { middle(R, 1, length, n, t, u); }                \
    static void first_##R(num blocks, num n, const real *t, cvec *u, const real *row0, const real *row1,              \
                          const real *scale, cvec *squares) {                                                         \
        if (scale && squares) EACH_BLOCK first(R, n, t, u, row0 + at, row1 + at, scale + at, squares);                \
        else if (squares) EACH_BLOCK first(R, n, t, u, row0 + at, row1 + at, 0, squares);                             \
        else if (scale) EACH_BLOCK first(R, n, t, u, row0 + at, row1 + at, scale + at, 0);                            \
        else EACH_BLOCK first(R, n, t, u, row0 + at, row1 + at, 0, 0);                                                \
    }                                                                                                                 \
    static void last_##R(num blocks, num n, const real *t, const cvec *u, real *row0, real *row1, const real *scale,  \
                         const real *bias) {                                                                          \
        if (scale && bias) EACH_BLOCK last(R, n, t, u, row0 + at, row1 + at, scale + at, bias + at);                  \
        else if (scale) EACH_BLOCK last(R, n, t, u, row0 + at, row1 + at, scale + at, 0);                             \
        else if (bias) EACH_BLOCK last(R, n, t, u, row0 + at, row1 + at, 0, bias + at);                               \
        else EACH_BLOCK last(R, n, t, u, row0 + at, row1 + at, 0, 0);                                                 \
    }                                                                                                                 \
    static void last_gradient_##R(num blocks, num n, const real *t, const cvec *u, real *row0, real *row1,            \
                                  const real *scale, const real *x0, const real *x1, real *sums) {                    \
        EACH_BLOCK last_gradient(R, n, t, u, row0 + at, row1 + at, scale + at, x0 + at, x1 + at, sums + at);          \
    }                                                                                                                 \
    static void about_##R(num blocks, num n, const real *t, cvec *u, const real *g0, const real *g1,                  \
                          const real *scale, real *sums) {                                                            \
        EACH_BLOCK about(R, n, t, u, g0 + at, g1 + at, scale + at, sums + at);                                        \
    }
BY_RADIX(STAGES)

#define TABLE(name) {0, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6, name##_7, name##_8}
static void (*const FORTH_STAGE[])(num, num, const real *, cvec *) = TABLE(forth);
static void (*const BACK_STAGE[])(num, num, const real *, cvec *) = TABLE(back);
static void (*const FIRST[])(num, num, const real *, cvec *, const real *, const real *, const real *, cvec *) = TABLE(first);
static void (*const LAST[])(num, num, const real *, const cvec *, real *, real *, const real *, const real *) = TABLE(last);
static void (*const LAST_GRADIENT[])(num, num, const real *, const cvec *, real *, real *, const real *, const real *,
                                     const real *, real *) = TABLE(last_gradient);
static void (*const ABOUT[])(num, num, const real *, cvec *, const real *, const real *, const real *, real *) = TABLE(about);
