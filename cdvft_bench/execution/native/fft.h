/* Transforms of complex signals of p points, without a scale.
 *
 * A signal is p / LANES columns of LANES neighbouring entries. A transform goes over the columns first, by whole
 * vectors: the first of its stages reads two rows of numbers, one as the real, one as the imaginary part, and the last
 * one of the way back writes two rows, so that what is done to rows is done on the way. Then it goes across the lanes:
 * four columns at a time change places with lanes, so that this is arithmetic of whole vectors too. Frequencies stay in
 * the order in which that leaves them: a product of spectra does not care. */
#include "columns.h"

/* ---- across the lanes -------------------------------------------------------------------------------------------- */

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (bits){__VA_ARGS__})
#endif
#ifdef DOUBLE /* the lanes of group g; of two vectors, the lower and the upper halves of group g by turns */
#define GROUP(g) 2 * (g), 2 * (g) + 1
#define LOWER(g) 2 * (g), 2 * (g) + LANES
#define UPPER(g) 2 * (g) + 1, 2 * (g) + 1 + LANES
#else
#define GROUP(g) 4 * (g), 4 * (g) + 1, 4 * (g) + 2, 4 * (g) + 3
#define LOWER(g) 4 * (g), 4 * (g) + LANES, 4 * (g) + 1, 4 * (g) + 1 + LANES
#define UPPER(g) 4 * (g) + 2, 4 * (g) + 2 + LANES, 4 * (g) + 3, 4 * (g) + 3 + LANES
#endif
#if GROUPS == 4
#define EACH_GROUP(M) M(0), M(1), M(2), M(3)
#elif GROUPS == 2
#define EACH_GROUP(M) M(0), M(1)
#else
#define EACH_GROUP(M) M(0)
#endif
#define INTERLEAVE(a, b) do { vec s_ = SHUFFLE(a, b, EACH_GROUP(LOWER)), t_ = SHUFFLE(a, b, EACH_GROUP(UPPER)); a = s_, b = t_; } while (0)

/* Lanes within groups change places with vectors: with four, or with two and two. Done twice it is undone. */
INLINE void transpose_inside(vec *a, vec *b, vec *c, vec *d) {
#ifndef DOUBLE
    INTERLEAVE(*a, *c);
    INTERLEAVE(*b, *d);
#endif
    INTERLEAVE(*a, *b);
    INTERLEAVE(*c, *d);
}
/* Groups change places with vectors. */
INLINE void transpose_groups(vec *a, vec *b, vec *c, vec *d) {
#if GROUPS == 4
    vec s = SHUFFLE(*a, *b, GROUP(0), GROUP(1), GROUP(4), GROUP(5)), t = SHUFFLE(*a, *b, GROUP(2), GROUP(3), GROUP(6), GROUP(7));
    vec u = SHUFFLE(*c, *d, GROUP(0), GROUP(1), GROUP(4), GROUP(5)), v = SHUFFLE(*c, *d, GROUP(2), GROUP(3), GROUP(6), GROUP(7));
    *a = SHUFFLE(s, u, GROUP(0), GROUP(2), GROUP(4), GROUP(6)), *b = SHUFFLE(s, u, GROUP(1), GROUP(3), GROUP(5), GROUP(7));
    *c = SHUFFLE(t, v, GROUP(0), GROUP(2), GROUP(4), GROUP(6)), *d = SHUFFLE(t, v, GROUP(1), GROUP(3), GROUP(5), GROUP(7));
#elif GROUPS == 2
    vec s = SHUFFLE(*a, *b, GROUP(0), GROUP(2)), t = SHUFFLE(*c, *d, GROUP(0), GROUP(2));
    *b = SHUFFLE(*a, *b, GROUP(1), GROUP(3)), *d = SHUFFLE(*c, *d, GROUP(1), GROUP(3));
    *a = s, *c = t;
#else
    (void)a, (void)b, (void)c, (void)d; /* one group */
#endif
}
INLINE void dft_of_groups(cvec *v, int back) {
    if (GROUPS == 4) dft4(v, v + 1, v + 2, v + 3, back);
    if (GROUPS == 2) dft2(v, v + 1), dft2(v + 2, v + 3);
}
INLINE void dft_inside(cvec *v, int back) {
    if (INSIDE == 4) dft4(v, v + 1, v + 2, v + 3, back);
    else dft2(v, v + 1), dft2(v + 2, v + 3);
}
INLINE void turn_groups(cvec *v, const cvec *within, int back) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++)
        if (k % GROUPS) v[k] = turned(v[k], within[k % GROUPS].re, within[k % GROUPS].im, back);
}
#define ALL_FOUR(f, v) f(&v[0].re, &v[1].re, &v[2].re, &v[3].re), f(&v[0].im, &v[1].im, &v[2].im, &v[3].im)
INLINE void four_forth(const Fft *f, int fours, const cvec *twist, cvec *v) {
    if (fours) dft4(v, v + 1, v + 2, v + 3, 0);
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        cvec t = held(twist[k]);
        v[k] = turned(v[k], t.re, t.im, 0);
    }
    ALL_FOUR(transpose_groups, v);
    dft_of_groups(v, 0);
    turn_groups(v, f->within, 0);
    ALL_FOUR(transpose_inside, v);
    dft_inside(v, 0);
}
INLINE void four_back(const Fft *f, int fours, const cvec *twist, cvec *v) {
    dft_inside(v, 1);
    ALL_FOUR(transpose_inside, v);
    turn_groups(v, f->within, 1);
    dft_of_groups(v, 1);
    ALL_FOUR(transpose_groups, v);
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        cvec t = held(twist[k]);
        v[k] = turned(v[k], t.re, t.im, 1);
    }
    if (fours) dft4(v, v + 1, v + 2, v + 3, 1);
}

/* A column alone, where they are no multiple of four: lane j with lane j ^ h, for each half, quarter, ... */
#if LANES == 16
#define EACH_LANE(f, h) f(0, h), f(1, h), f(2, h), f(3, h), f(4, h), f(5, h), f(6, h), f(7, h), \
                        f(8, h), f(9, h), f(10, h), f(11, h), f(12, h), f(13, h), f(14, h), f(15, h)
#elif LANES == 8
#define EACH_LANE(f, h) f(0, h), f(1, h), f(2, h), f(3, h), f(4, h), f(5, h), f(6, h), f(7, h)
#elif LANES == 4
#define EACH_LANE(f, h) f(0, h), f(1, h), f(2, h), f(3, h)
#else
#define EACH_LANE(f, h) f(0, h), f(1, h)
#endif
#define PARTNER(j, h) ((j) ^ (h)) % LANES
#define SIGN(j, h) (j) & (h) ? -1 : 1
#define BUTTERFLY(v, h)                                                                                               \
    v = (cvec){sum_of(SHUFFLE(v.re, v.re, EACH_LANE(PARTNER, h)), v.re, (vec){EACH_LANE(SIGN, h)}),                   \
               sum_of(SHUFFLE(v.im, v.im, EACH_LANE(PARTNER, h)), v.im, (vec){EACH_LANE(SIGN, h)})}
INLINE cvec one_forth(const Fft *f, cvec twist, cvec v) {
    const cvec *t = f->halves;
    v = turned(v, twist.re, twist.im, 0);
    if (LANES >= 16) { BUTTERFLY(v, 8); v = turned(v, t->re, t->im, 0), t++; }
    if (LANES >= 8) { BUTTERFLY(v, 4); v = turned(v, t->re, t->im, 0), t++; }
    if (LANES >= 4) { BUTTERFLY(v, 2); v = turned(v, t->re, t->im, 0); }
    BUTTERFLY(v, 1);
    return v;
}
INLINE cvec one_back(const Fft *f, cvec twist, cvec v) {
    const cvec *t = f->halves + HALVINGS;
    BUTTERFLY(v, 1);
    if (LANES >= 4) { t--, v = turned(v, t->re, t->im, 1); BUTTERFLY(v, 2); }
    if (LANES >= 8) { t--, v = turned(v, t->re, t->im, 1); BUTTERFLY(v, 4); }
    if (LANES >= 16) { t--, v = turned(v, t->re, t->im, 1); BUTTERFLY(v, 8); }
    return turned(v, twist.re, twist.im, 1);
}

/* ---- products of spectra, outside of transforms --------------------------------------------------------------------- */

INLINE cvec cproduct(cvec a, cvec b, int conjugate) { /* a or its conjugate */
    a = held(a), b = held(b);
    return conjugate ? (cvec){plus_times(times(a.re, b.re), a.im, b.im), minus_times(times(a.re, b.im), a.im, b.re)}
                     : (cvec){minus_times(times(a.re, b.re), a.im, b.im), plus_times(times(a.re, b.im), a.im, b.re)};
}
INLINE cvec cplus_times(cvec s, cvec a, cvec b, int conjugate) {
    a = held(a), b = held(b);
    return conjugate ? (cvec){plus_times(plus_times(s.re, a.re, b.re), a.im, b.im), minus_times(plus_times(s.im, a.re, b.im), a.im, b.re)}
                     : (cvec){minus_times(plus_times(s.re, a.re, b.re), a.im, b.im), plus_times(plus_times(s.im, a.re, b.im), a.im, b.re)};
}

/* ---- whole transforms ------------------------------------------------------------------------------------------------ */

INLINE void lanes_forth(const Fft *f, int fours, num n, const cvec *twist, cvec *u) {
    num j = 0;
    for (; j + 4 <= n; j += 4) {
        cvec v[4] = {held(u[j]), held(u[j + 1]), held(u[j + 2]), held(u[j + 3])};
        four_forth(f, fours, twist + j, v);
        u[j] = v[0], u[j + 1] = v[1], u[j + 2] = v[2], u[j + 3] = v[3];
    }
    for (; !fours && j < n; j++) u[j] = one_forth(f, twist[j], u[j]);
}
/* of u, or of c v (conjugate: of conj(c) v) */
INLINE void lanes_back(const Fft *f, int fours, int how, num n, const cvec *twist, cvec *u, const cvec *c, const cvec *v) {
    num j = 0;
    for (; j + 4 <= n; j += 4) {
        cvec w[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) w[k] = how ? cproduct(c[j + k], v[j + k], how < 0) : u[j + k];
        four_back(f, fours, twist + j, w);
        u[j] = w[0], u[j + 1] = w[1], u[j + 2] = w[2], u[j + 3] = w[3];
    }
    for (; !fours && j < n; j++) u[j] = one_back(f, twist[j], how ? cproduct(c[j], v[j], how < 0) : u[j]);
}
static void across_forth(const Fft *f, num n, const cvec *twist, cvec *u) {
    if (f->fours) lanes_forth(f, 1, n, twist, u);
    else lanes_forth(f, 0, n, twist, u);
}
enum { PLAIN = 0, TIMES = 1, CONJUGATE_TIMES = -1 };
static void across_back(const Fft *f, int how, num n, const cvec *twist, cvec *u, const cvec *c, const cvec *v) {
    if (f->fours && how == PLAIN) lanes_back(f, 1, PLAIN, n, twist, u, c, v);
    else if (f->fours && how == TIMES) lanes_back(f, 1, TIMES, n, twist, u, c, v);
    else if (f->fours) lanes_back(f, 1, CONJUGATE_TIMES, n, twist, u, c, v);
    else if (how == PLAIN) lanes_back(f, 0, PLAIN, n, twist, u, c, v);
    else if (how == TIMES) lanes_back(f, 0, TIMES, n, twist, u, c, v);
    else lanes_back(f, 0, CONJUGATE_TIMES, n, twist, u, c, v);
}

/* All stages from s on, of n columns in parts of `length`. As soon as a part fits the first cache, all that is left of it. */
#define IN_CACHE (16384 / (num)sizeof(cvec))

static void forth(const Fft *f, num s, const real *turns, num length, num n, num at, cvec *u) {
    if (s == f->stages) across_forth(f, n, f->twist + at, u + at);
    else if (n > IN_CACHE && n > length)
        for (num end = at + n; at < end; at += length) forth(f, s, turns, length, length, at, u);
    else {
        num r = f->radix[s];
        FORTH[r](length, n, turns, u + at);
        forth(f, s + 1, turns + 2 * (length / r) * (r - 1), length / r, n, at, u);
    }
}
/* the way back, of c v as `how` says */
static void back(const Fft *f, num s, const real *turns, num length, num n, num at, cvec *u, int how, const cvec *c, const cvec *v) {
    if (s == f->stages) across_back(f, how, n, f->twist + at, u + at, how ? c + at : 0, how ? v + at : 0);
    else if (n > IN_CACHE && n > length)
        for (num end = at + n; at < end; at += length) back(f, s, turns, length, length, at, u, how, c, v);
    else {
        num r = f->radix[s];
        back(f, s + 1, turns + 2 * (length / r) * (r - 1), length / r, n, at, u, how, c, v);
        BACK[r](length, n, turns, u + at);
    }
}

static void rest_forth(const Fft *f, cvec *u) { /* after the first stage */
    num r = f->radix[0], length = f->columns / r;
    TALLY(transforms, 1);
    forth(f, 1, f->turns + 2 * length * (r - 1), length, f->columns, 0, u);
}
static void rest_back(const Fft *f, cvec *u, int how, const cvec *c, const cvec *v) { /* up to the last stage */
    num r = f->radix[0], length = f->columns / r;
    TALLY(transforms, 1);
    back(f, 1, f->turns + 2 * length * (r - 1), length, f->columns, 0, u, how, c, v);
}
static void spectrum(const Fft *f, cvec *u, const real *row0, const real *row1, const real *scale) {
    FIRST[f->radix[0]](f->columns, f->turns, u, row0, row1, scale);
    rest_forth(f, u);
}
