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
    UNROLL for (int k = 0; k < 4; k++)
        if (k % GROUPS) v[k] = turned(v[k], within[k % GROUPS].re, within[k % GROUPS].im, back);
}
#define ALL_FOUR(f, v) f(&v[0].re, &v[1].re, &v[2].re, &v[3].re), f(&v[0].im, &v[1].im, &v[2].im, &v[3].im)
INLINE void twist_four(const cvec *twist, cvec *v, int back) {
    UNROLL for (int k = 0; k < 4; k++) {
        cvec t = held(twist[k]);
        v[k] = turned(v[k], t.re, t.im, back);
    }
}
/* The first half of the way across, and the second: a CPU looks ahead over some hundred instructions, and finds more to do
 * at a time in two short loops than in a long one. */
INLINE void outer_forth(int fours, const cvec *twist, cvec *v) {
    if (fours) dft4(v, v + 1, v + 2, v + 3, 0);
    twist_four(twist, v, 0);
    ALL_FOUR(transpose_groups, v);
    dft_of_groups(v, 0);
}
INLINE void inner_forth(const Fft *f, cvec *v) {
    turn_groups(v, f->within, 0);
    ALL_FOUR(transpose_inside, v);
    dft_inside(v, 0);
}
INLINE void inner_back(const Fft *f, cvec *v) {
    dft_inside(v, 1);
    ALL_FOUR(transpose_inside, v);
    turn_groups(v, f->within, 1);
}
INLINE void outer_back(int fours, const cvec *twist, cvec *v) {
    dft_of_groups(v, 1);
    ALL_FOUR(transpose_groups, v);
    twist_four(twist, v, 1);
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

/* Which transforms a signal u goes through, and what is done to its spectrum between them. */
typedef enum {
    FORTH,           /* u to its spectrum */
    BACK,            /* u, a spectrum, to a signal */
    TIMES,           /* c v to the signal u */
    CONJUGATE_TIMES, /* conj(c) v to the signal u */
    THROUGH,         /* u to its spectrum, c times that to a signal, in its place */
    KEEP,            /* u to its spectrum, c times that to the signal v */
    GRADIENT,        /* u to its spectrum, sums += conj(v) times that, conj(c) times that to a signal, in its place */
} How;
typedef struct { How how; cvec *u; const cvec *c; cvec *v, *sums; } Way;
INLINE int goes_forth(How how) { return how == FORTH || how >= THROUGH; }
INLINE int comes_back(How how) { return how != FORTH; }
INLINE cvec *after(const Way *w) { return w->how == KEEP ? w->v : w->u; }

/* a column of the spectrum of u: kept, or what goes back in its place */
INLINE void found(Way w, num j, cvec s) {
    if (w.how == KEEP) w.v[j] = cproduct(w.c[j], s, 0);
    if (w.how == GRADIENT) w.sums[j] = cplus_times(w.sums[j], w.v[j], s, 1);
    w.u[j] = w.how == THROUGH || w.how == GRADIENT ? cproduct(w.c[j], s, w.how == GRADIENT) : s;
}
/* a column that goes back */
INLINE cvec given(Way w, num j) {
    return w.how == TIMES || w.how == CONJUGATE_TIMES ? cproduct(w.c[j], w.v[j], w.how == CONJUGATE_TIMES) : held(w.u[j]);
}
INLINE void outer(int fours, int back, num n, const cvec *twist, cvec *u, Ahead *ahead) {
    for (num j = 0; j + 4 <= n; j += 4) {
        fetch(ahead);
        cvec v[4] = {held(u[j]), held(u[j + 1]), held(u[j + 2]), held(u[j + 3])};
        if (back) outer_back(fours, twist + j, v);
        else outer_forth(fours, twist + j, v);
        u[j] = v[0], u[j + 1] = v[1], u[j + 2] = v[2], u[j + 3] = v[3];
    }
}
INLINE void across_forth(const Fft *f, const cvec *twist, num j, num end, Way w) {
    if (f->fours) outer(1, 0, end - j, twist, w.u + j, f->ahead);
    else outer(0, 0, end - j, twist, w.u + j, f->ahead);
    for (; j + 4 <= end; j += 4, twist += 4) {
        fetch(f->ahead);
        cvec v[4] = {held(w.u[j]), held(w.u[j + 1]), held(w.u[j + 2]), held(w.u[j + 3])};
        inner_forth(f, v);
        UNROLL for (int k = 0; k < 4; k++) found(w, j + k, v[k]);
    }
    for (; !f->fours && j < end; j++, twist++) fetch(f->ahead), found(w, j, one_forth(f, *twist, w.u[j]));
}
INLINE void across_back(const Fft *f, const cvec *twist, num j, num end, Way w) {
    num n = end - j, fours = n / 4 * 4;
    cvec *u = w.u + j;
    for (; j + 4 <= end; j += 4) {
        fetch(f->ahead);
        cvec v[4] = {given(w, j), given(w, j + 1), given(w, j + 2), given(w, j + 3)};
        inner_back(f, v);
        w.u[j] = v[0], w.u[j + 1] = v[1], w.u[j + 2] = v[2], w.u[j + 3] = v[3];
    }
    for (num k = fours; !f->fours && k < n; k++, j++) fetch(f->ahead), w.u[j] = one_back(f, twist[k], given(w, j));
    if (f->fours) outer(1, 1, n, twist, u, f->ahead);
    else outer(0, 1, n, twist, u, f->ahead);
}
#define ACROSS(DIRECTION, HOW) case HOW: DIRECTION(f, twist, at, at + n, (Way){HOW, w->u, w->c, w->v, w->sums}); break
/* n columns from `at` on that have twists one after the other */
static void across(const Fft *f, const cvec *twist, num at, num n, const Way *w) {
    switch (w->how) {
        ACROSS(across_forth, FORTH);
        ACROSS(across_forth, THROUGH);
        ACROSS(across_forth, KEEP);
        ACROSS(across_forth, GRADIENT);
        ACROSS(across_back, TIMES);
        ACROSS(across_back, CONJUGATE_TIMES);
    default:;
    }
    if (w->how == BACK || w->how >= THROUGH) across_back(f, twist, at, at + n, (Way){BACK, .u = after(w)});
}

/* All stages from s on, of n columns in parts of `length`. As soon as a part fits the first cache, all that is left of it. */
#define IN_CACHE (16384 / (num)sizeof(cvec))

static void stages_from(const Fft *f, num s, const real *turns, num length, num n, num at, const Way *w) {
    if (s == f->stages)
        for (num end = at + n, first = at % f->columns, m; at < end; at += m, first = 0) {
            m = f->period - first < end - at ? f->period - first : end - at;
            across(f, f->twist + first, at, m, w);
        }
    else if (n > IN_CACHE && n > length) {
        num part = length < IN_CACHE ? IN_CACHE / length * length : length;
        for (num end = at + n; at < end; at += part) stages_from(f, s, turns, length, part < end - at ? part : end - at, at, w);
    } else {
        num r = f->radix[s];
        if (goes_forth(w->how)) FORTH_STAGE[r](length, n, turns, w->u + at);
        stages_from(f, s + 1, turns + 2 * (length / r) * (r - 1), length / r, n, at, w);
        if (comes_back(w->how)) BACK_STAGE[r](length, n, turns, after(w) + at);
    }
}
/* Of neighbouring blocks: after the first stage on the way forth, and up to the last one on the way back. */
static void rest(const Fft *f, How how, num blocks, cvec *u, const cvec *c, cvec *v, cvec *sums) {
    num r = f->radix[0], length = f->columns / r;
    Way way = {how, u, c, v, sums};
    TALLY(transforms, blocks * (goes_forth(how) + comes_back(how)));
    stages_from(f, 1, f->turns + 2 * length * (r - 1), length, blocks * f->columns, 0, &way);
}
static void spectrum(const Fft *f, cvec *u, const real *row0, const real *row1, const real *scale) {
    FIRST[f->radix[0]](1, f->columns, f->turns, u, row0, row1, scale, 0);
    rest(f, FORTH, 1, u, 0, 0, 0);
}
