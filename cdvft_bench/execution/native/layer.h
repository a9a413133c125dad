/* One layer and what to do with it: its sizes, its memory, and its factors made ready. */
#include "fft.h"

#define MOST 16    /* radices, diagonals, circulants */
#define TOGETHER 4 /* signals at once, at most */

/* One layer and what to do with it; native/kernels.py has the same structure. Pointers are to contiguous memory. */
typedef struct {
    num rows, d_in, d_out, p, q_in, q_out; /* q_in: blocks of the input, q_out: of the output */
    num diagonals, circulants, threads, stages;
    num row_convention, input_gradient, format; /* of x, g, bias and out: REALS, BFLOAT16, FLOAT16 */
    num radices[MOST];             /* their product, or four times it, is p / LANES */
    double alpha;
    const real *tables;            /* by make_tables */
    real *workspace;               /* forward_workspace or backward_workspace entries, aligned to 64 bytes */
    void *parallel;                /* GOMP_parallel of the pool that torch uses, or NULL */
    const void *x, *g, *bias;      /* (rows, d_in), (rows, d_out), (d_out) or NULL */
    const num *adapters, *order;   /* mixed: each row's adapter, and the rows by adapter; else NULL */
    void *out;                     /* forward: (rows, d_out); backward: gradient of x, (rows, d_in) */
    const real *diagonal[MOST], *circulant[MOST]; /* mixed: of all adapters, one after the other */
    real *grad_diagonal[MOST], *grad_circulant[MOST];
    Counts counts;                 /* by an instrumented build */
} Layer;

num layer_size(void) { return sizeof(Layer); }

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

static num least(num a, num b) { return a < b ? a : b; }
static num inputs_of(const Layer *l, num i) { return i ? l->q_out : l->q_in; } /* blocks of factor i's input */
static num width_of(const Layer *l, num i) { return i ? l->d_out : l->d_in; }
static num widest(const Layer *l) { return l->p * (l->q_in > l->q_out ? l->q_in : l->q_out); }
static num inputs_size(const Layer *l) { return l->p * (l->q_in + (l->circulants - 1) * l->q_out); }
static num spectra_size(const Layer *l) { return 2 * l->q_out * inputs_size(l); } /* a complex number is two */
static num diagonals_size(const Layer *l) { return l->diagonals ? l->p * (l->q_in + (l->diagonals - 1) * l->q_out) : 0; }
static num together(const Layer *l) { return l->q_in == 1 && l->q_out == 1 ? 1 : TOGETHER; }
static num pairs(const Layer *l) { return (l->rows + 1) / 2; }
static num workers(const Layer *l) { /* shares of the rows, each with its part of the workspace */
    return l->parallel && l->threads > 1 && pairs(l) > 1 ? least(l->threads, pairs(l)) : 1;
}

/* The workspace. Shared: spectra of all factors, the diagonals (the last one scaled), the bias, zeros. */
static num shared_size(const Layer *l) { return spectra_size(l) + diagonals_size(l) + l->p * l->q_out + widest(l); }
/* Of each share: rows and signals of what goes together, two rows between factors, one for what nobody wants; in
 * backward also each factor's input and output, and the sums over all rows. */
static num forward_part(const Layer *l) { return widest(l) * (together(l) * (4 + 4) + 3); }
static num backward_part(const Layer *l) {
    return widest(l) * (together(l) * (6 + 4 + 2 * (l->circulants - 1)) + 3) + together(l) * 2 * inputs_size(l) +
           spectra_size(l) + diagonals_size(l);
}
num forward_workspace(const Layer *l) { return shared_size(l) + workers(l) * forward_part(l); }
num backward_workspace(const Layer *l) { return shared_size(l) + workers(l) * backward_part(l); }
/* Rows of one adapter after the other: each thread makes an adapter's factors ready for itself. At the end, where the
 * rows that go together begin. */
static num mixed_workers(const Layer *l) { return l->parallel && l->threads > 1 ? least(l->threads, l->rows) : 1; }
static num mixed_part(const Layer *l) { return shared_size(l) + forward_part(l); }
num mixed_workspace(const Layer *l) {
    return mixed_workers(l) * mixed_part(l) + (l->rows + 1) * (num)(sizeof(num) / sizeof(real));
}

typedef struct {
    Layer *layer;
    Fft fft;
    const cvec *spectra[MOST];     /* of the factors, block by block, scaled */
    const real *diagonal[MOST + 1], *bias, *zeros; /* as whole blocks; no diagonal: NULL */
    num next;                      /* share of the rows */
} Job;

static real *take_from(real **memory, num n) { return *memory += n, *memory - n; }

/* Of factor i: 1 / p, which the transforms leave out, and without diagonals alpha, which else goes into the last one. */
static real scale_of(const Layer *l, num i) {
    return (real)((i == l->circulants - 1 && !l->diagonals ? l->alpha : 1.0) / (double)l->p);
}

static Ahead nothing; /* ahead: it stays so */
static Job prepare(Layer *l) {
    Job job = {.layer = l, .fft = fft_of(l->p, l->radices, l->stages, l->tables, &nothing)};
    real *memory = l->workspace, *spectra = take_from(&memory, spectra_size(l));
    for (num i = 0; i < l->diagonals; i++) {
        num width = width_of(l, i), padded = i ? l->p * l->q_out : l->p * l->q_in;
        real *to = take_from(&memory, padded);
        for (num j = 0; j < width; j++) {
            real a = get1(l->diagonal[i] + j);
            to[j] = i == l->diagonals - 1 ? times1(a, (real)l->alpha) : a;
        }
        memset(to + width, 0, (size_t)(padded - width) * sizeof(real));
        job.diagonal[i] = to;
    }
    real *bias = take_from(&memory, l->p * l->q_out), *zeros = take_from(&memory, widest(l));
    if (l->bias) {
        read_from(l->format, bias, l->bias, l->d_out);
        memset(bias + l->d_out, 0, (size_t)(l->p * l->q_out - l->d_out) * sizeof(real));
        job.bias = bias;
    }
    memset(zeros, 0, (size_t)widest(l) * sizeof(real));
    job.zeros = zeros;
    for (num i = 0; i < l->circulants; i++) {
        const real *c = l->circulant[i];
        job.spectra[i] = (const cvec *)spectra;
        for (num b = 0; b < l->q_out * inputs_of(l, i); b++, c += l->p, spectra += 2 * l->p) {
            for (num j = 0; j < l->p; j++) memory[j] = times1(get1(c + (l->row_convention && j ? l->p - j : j)), scale_of(l, i));
            spectrum(&job.fft, (cvec *)spectra, memory, zeros, 0); /* in what the first share has not used yet */
        }
    }
    return job;
}

/* ---- what an instrumented build sees of the operands --------------------------------------------------------------- */

#ifdef COUNTED
static void begin(const Layer *l, num own, num backward, num adapters) {
    num size = bytes_of(l->format);
    counts = (Counts){0};
    hold(l->workspace, own * (num)sizeof(real), 1), hold(l->adapters, l->rows * (num)sizeof(num), 0);
    hold(l->x, l->rows * l->d_in * size, 0), hold(l->bias, l->d_out * size, 0);
    hold(backward ? l->g : 0, l->rows * l->d_out * size, 0);
    hold(l->out, l->rows * (backward ? l->input_gradient * l->d_in : l->d_out) * size, 0);
    for (num i = 0; i < l->diagonals; i++) {
        hold(l->diagonal[i], adapters * width_of(l, i) * (num)sizeof(real), 0);
        hold(backward ? l->grad_diagonal[i] : 0, width_of(l, i) * (num)sizeof(real), 0);
    }
    for (num i = 0; i < l->circulants; i++) {
        num entries = l->q_out * inputs_of(l, i) * l->p;
        hold(l->circulant[i], adapters * entries * (num)sizeof(real), 0);
        hold(backward ? l->grad_circulant[i] : 0, entries * (num)sizeof(real), 0);
    }
}
static void end(Layer *l) {
    let_go();
    l->counts = counts;
}
#else
#define begin(l, own, backward, adapters) ((void)0)
#define end(l) ((void)0)
#endif
