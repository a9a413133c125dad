/* Vectors of numbers, their arithmetic, and how the memory of operands is read and written.
 *
 * In GNU C's vector extension, which gcc and clang lower to any CPU; the width of a vector is chosen when it is
 * compiled. All arithmetic on data goes through the functions below. In a build with -DCOUNTED each of them adds up
 * what it does, and each read and write of an operand is noted, so that such a build tells what the kernels did on the
 * very data that they were given. In other builds they are the plain operators. Free is what moves data, changes a
 * sign, rounds to another format or compares; a multiply-add is one addition and one multiplication. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef WIDTH /* bytes of a vector: those of the CPU that it is compiled for */
#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define WIDTH 64
#elif defined(__AVX2__) && defined(__FMA__)
#define WIDTH 32
#else
#define WIDTH 16
#endif
#endif
#ifndef M_PI
#define M_PI 3.14159265358979323846
#endif
#ifdef DOUBLE
typedef double real;
typedef int64_t whole;
#define WITHOUT_SIGN INT64_MAX
#define INFINITE INT64_C(0x7ff0000000000000)
#define LANES (WIDTH / 8)
#else
typedef float real;
typedef int32_t whole;
#define WITHOUT_SIGN INT32_MAX
#define INFINITE 0x7f800000
#define LANES (WIDTH / 4)
#endif
typedef real vec __attribute__((vector_size(WIDTH), may_alias));
typedef real loose __attribute__((vector_size(WIDTH), aligned(sizeof(real)), may_alias));
typedef whole bits __attribute__((vector_size(WIDTH), may_alias));
typedef struct { vec re, im; } cvec;
typedef int64_t num;
#ifdef __clang__ /* of at most 8 rounds, whose arrays are then registers */
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
#define INLINE static inline __attribute__((always_inline))

/* What one call did: of all data, of that within transforms; transforms of p complex points; bytes of operands read
 * and written (each once); accesses to memory that is no operand's. */
typedef struct {
    num additions, multiplications, fft_additions, fft_multiplications, transforms, read, written, stray;
} Counts;

#ifdef COUNTED
static __thread Counts counts;
#define TALLY(what, n) (counts.what += (n))
#else
#define TALLY(what, n) ((void)0)
#endif
#define SUM(n) TALLY(additions, n)
#define PRODUCT(n) TALLY(multiplications, n)

/* A value that is read several times is loaded once, and a difference is computed once: compilers would rather load it
 * again with each operation, and have it with both signs, and there are not enough ports for that. */
#if defined(__x86_64__)
#define HELD(v) __asm__("" : "+v"(v))
#elif defined(__aarch64__)
#define HELD(v) __asm__("" : "+w"(v))
#else
#define HELD(v) ((void)0)
#endif
INLINE cvec held(cvec a) {
    HELD(a.re);
    HELD(a.im);
    return a;
}

INLINE vec all(real a) { return a - (vec){0}; }
INLINE vec plus(vec a, vec b) { SUM(LANES); return a + b; }
INLINE vec times(vec a, vec b) { PRODUCT(LANES); return a * b; }
INLINE vec plus_times(vec a, vec b, vec c) { SUM(LANES), PRODUCT(LANES); return a + b * c; }
INLINE vec minus_times(vec a, vec b, vec c) { SUM(LANES), PRODUCT(LANES); return a - b * c; }
INLINE real times1(real a, real b) { PRODUCT(1); return a * b; }

/* ---- operands: what the caller handed over ----------------------------------------------------------------------- */

#ifdef COUNTED
enum { READ = 1, WRITTEN = 2, OPERANDS = 80 };
typedef struct { const char *start; num bytes; unsigned char *marks; } Operand; /* marks NULL: the kernels' own memory */
static __thread Operand operands[OPERANDS];
static __thread int operands_held;

static void hold(const void *start, num bytes, int own) {
    if (start && bytes) operands[operands_held++] = (Operand){start, bytes, own ? 0 : calloc((size_t)bytes, 1)};
}
static void let_go(void) {
    while (operands_held) free(operands[--operands_held].marks);
}
static void touch(const void *p, num n, int how) {
    for (int i = 0; i < operands_held; i++) {
        num first = (const char *)p - operands[i].start;
        if (first < 0 || first + n > operands[i].bytes) continue;
        unsigned char *m = operands[i].marks;
        for (num k = first; m && k < first + n; k++) {
            if (!(m[k] & how)) *(how == READ ? &counts.read : &counts.written) += 1;
            m[k] |= (unsigned char)how;
        }
        return;
    }
    counts.stray++;
}
#define TOUCH(p, n, how) touch(p, (num)(n), how)
#else
#define TOUCH(p, n, how) ((void)0)
#endif
INLINE vec get(const real *p) { TOUCH(p, WIDTH, READ); return *(const loose *)p; }
INLINE void put(real *p, vec v) { TOUCH(p, WIDTH, WRITTEN); *(loose *)p = v; }
INLINE real get1(const real *p) { TOUCH(p, sizeof(real), READ); return *p; }
INLINE void put1(real *p, real v) { TOUCH(p, sizeof(real), WRITTEN); *p = v; }

/* ---- activations of 16 bits --------------------------------------------------------------------------------------- */

enum { REALS, BFLOAT16, FLOAT16 }; /* formats of activations */
static num bytes_of(num format) { return format == REALS ? (num)sizeof(real) : 2; }

INLINE uint32_t word(float a) { uint32_t w; memcpy(&w, &a, 4); return w; }
INLINE float single(uint32_t w) { float a; memcpy(&a, &w, 4); return a; }

/* Both ways as the standard says, to nearest and even; written without branches, for compilers to make vectors of. */
INLINE float from_bfloat16(uint16_t h) { return single((uint32_t)h << 16); }
INLINE uint16_t to_bfloat16(float a) {
    uint32_t w = word(a), nearest = (w + 0x7fff + (w >> 16 & 1)) >> 16;
    return (uint16_t)((w & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : nearest);
}
INLINE float from_float16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    uint32_t small = word(single(rest + 0x38800000) - single(0x38800000)), large = rest + 0x70000000;
    uint32_t w = rest + 0x38000000;
    w = rest < 0x00800000 ? small : w;
    return single(sign | (rest >= 0x0f800000 ? large : w));
}
INLINE uint16_t to_float16(float a) {
    uint32_t w = word(a), sign = w >> 16 & 0x8000, rest = w & 0x7fffffff;
    uint32_t small = word(single(rest) + 0.5f) - 0x3f000000, usual = (rest - 0x37fff001 + (rest >> 13 & 1)) >> 13;
    uint32_t large = rest > 0x7f800000 ? 0x7e00 : 0x7c00;
    uint32_t h = rest < 0x38800000 ? small : usual;
    return (uint16_t)(sign | (rest >= 0x47800000 ? large : h));
}
#define CONVERT(name, from_type, to_type, how)                                                                        \
    static void name(to_type *restrict to, const from_type *restrict from, num n) {                                   \
        for (num i = 0; i < n; i++) to[i] = how(from[i]);                                                             \
    }
CONVERT(from_bfloat16s, uint16_t, real, from_bfloat16)
CONVERT(from_float16s, uint16_t, real, from_float16)
CONVERT(to_bfloat16s, real, uint16_t, to_bfloat16)
CONVERT(to_float16s, real, uint16_t, to_float16)

/* n activations to numbers, and back */
static void read_from(num format, real *to, const void *from, num n) {
    TOUCH(from, n * bytes_of(format), READ);
    if (format == REALS) memcpy(to, from, (size_t)n * sizeof(real));
    else (format == BFLOAT16 ? from_bfloat16s : from_float16s)(to, from, n);
}
static void write_to(num format, void *to, const real *from, num n) {
    TOUCH(to, n * bytes_of(format), WRITTEN);
    if (format == REALS) memcpy(to, from, (size_t)n * sizeof(real));
    else (format == BFLOAT16 ? to_bfloat16s : to_float16s)(to, from, n);
}
