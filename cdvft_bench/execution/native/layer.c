/* Diagonal-circulant-diagonal products of rows, forward and backward: one pass over x (and g), all between in cache.
 *
 * Two rows are transformed at once: one is the real, the other the imaginary part of one complex signal of p points,
 * which a circulant product keeps apart. A block (i, j) of a factor maps block j of the input to block i of the output.
 * A lone row has zeros beside it. Rows of very different size, or that are not finite, go alone: what one rounds away
 * or spoils, the other would feel. Several signals go together where a factor has many blocks, which are then read
 * once for all of them. */
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
    void *out;                     /* forward: (rows, d_out); backward: gradient of x, (rows, d_in) */
    const real *diagonal[MOST], *circulant[MOST];
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

static Job prepare(Layer *l) {
    Job job = {.layer = l, .fft = fft_of(l->p, l->radices, l->stages, l->tables)};
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

/* ---- rows -------------------------------------------------------------------------------------------------------- */

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
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) most[k] = larger(most[k], magnitude(row, scale, i + k * LANES));
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
static int is_zero(const real *row, num n) {
    for (num i = 0; i < n; i++)
        if (get1(row + i) != 0) return 0;
    return 1;
}

/* One row and zeros, or two rows, on their way; outputs are written to `to`, from `out` where that is another place. */
typedef struct { const real *x[2], *g[2]; real *out[2]; void *to[2]; } Signal;
typedef struct {
    const Job *job;
    num n;                         /* signals at hand */
    Signal signals[TOGETHER];
    real *x, *g, *out;             /* rows of the signals, where the operands' own memory does not do */
    real *waste, *between;         /* a row for what nobody wants, two rows between factors */
    cvec *inputs, *u, *v;          /* in backward, each factor's input; signals on their way */
    real *outputs, *moments, *sums; /* in backward: rows after factors; sums of moments and for the diagonals */
} Room;

/* The next signal of row r, or of rows r and r + 1. */
static Signal *load(Room *room, num r, num two) {
    const Job *job = room->job;
    const Layer *l = job->layer;
    num size = widest(l), back = l->g != 0, wanted = !back || l->input_gradient, width = back ? l->d_in : l->d_out;
    num at = 2 * room->n * size, whole_rows = l->format == REALS && width == l->p * (back ? l->q_in : l->q_out);
    Signal *s = room->signals + room->n;
    for (num k = 0; k < 2; k++, at += size) {
        int is = k == 0 || two;
        s->x[k] = is ? row_of(l, l->x, r + k, l->d_in, l->q_in, room->x + at) : job->zeros;
        s->g[k] = is && back ? row_of(l, l->g, r + k, l->d_out, l->q_out, room->g + at) : job->zeros;
        s->to[k] = is && wanted ? (char *)l->out + (r + k) * width * bytes_of(l->format) : 0;
        s->out[k] = !s->to[k] ? room->waste : whole_rows ? s->to[k] : room->out + at;
    }
    return s;
}
static void finish(const Layer *l, const Signal *s, num width) {
    for (num k = 0; k < 2; k++)
        if (s->to[k] && s->to[k] != (void *)s->out[k]) write_to(l->format, s->to[k], s->out[k], width);
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
/* sum_ij += conj(u_j) v_i. Of two rows, the cross terms are imaginary once transformed back. */
INLINE void moment(num n, num q_out, num q_in, num columns, const cvec *u, num u_step, const cvec *v, num v_step, cvec *sums) {
    for (num i = 0; i < q_out; i++)
        for (num j = 0; j < q_in; j++, sums += columns)
            for (num k = 0; k < columns; k++) {
                cvec sum = sums[k];
                for (num s = 0; s < n; s++)
                    sum = cplus_times(sum, u[s * u_step + j * columns + k], v[s * v_step + i * columns + k], 1);
                sums[k] = sum;
            }
}
static void moments(num n, num q_out, num q_in, num columns, const cvec *u, num u_step, const cvec *v, num v_step, cvec *sums) {
    if (n == TOGETHER) moment(TOGETHER, q_out, q_in, columns, u, u_step, v, v_step, sums);
    else for (num s = 0; s < n; s++) moment(1, q_out, q_in, columns, u + s * u_step, u_step, v + s * v_step, v_step, sums);
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
    int how = grid.inner > 1 ? PLAIN : conjugate ? CONJUGATE_TIMES : TIMES;
    for (num s = 0; s < n; s++)
        for (num i = 0; i < grid.outer; i++)
            rest_back(f, y + s * y_step + i * columns, how, c + i * grid.by_outer * columns, u + s * step);
}

/* ---- forward ------------------------------------------------------------------------------------------------------- */

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
    *share = (Share){id, 2 * (all * id / n), least(2 * (all * (id + 1) / n), job->layer->rows)};
    return id < n;
}

static Grid grid_of(const Layer *l, num i) { return (Grid){l->q_out, inputs_of(l, i), inputs_of(l, i), 1}; }
static Grid adjoint_grid(const Layer *l, num i) { return (Grid){inputs_of(l, i), l->q_out, 1, inputs_of(l, i)}; }

/* Rows of `blocks` blocks to spectra, and back. */
static void to_spectra(const Fft *f, cvec *u, const real *row0, const real *row1, const real *scale, num blocks) {
    for (num b = 0; b < blocks; b++, u += f->columns, row0 += f->columns * LANES, row1 += f->columns * LANES)
        spectrum(f, u, row0, row1, scale ? scale + b * f->columns * LANES : 0);
}
static void to_rows(const Fft *f, const cvec *u, real *row0, real *row1, const real *scale, const real *bias, num blocks) {
    for (num b = 0; b < blocks; b++) {
        num at = b * f->columns * LANES;
        LAST[f->radix[0]](f->columns, f->turns, u + b * f->columns, row0 + at, row1 + at, scale ? scale + at : 0, bias ? bias + at : 0);
    }
}

static void forward_signals(Room *room) {
    const Job *job = room->job;
    const Layer *l = job->layer;
    const Fft *f = &job->fft;
    cvec *u = room->u, *v = room->v;
    num n = room->n, step = widest(l) / LANES, final = l->circulants - 1;
    real *row0 = room->between, *row1 = row0 + widest(l);
    for (Signal *s = room->signals; s < room->signals + n; s++, u += step)
        to_spectra(f, u, s->x[0], s->x[1], job->diagonal[0], l->q_in);
    for (num i = 0; i <= final; i++) {
        through(f, n, 0, grid_of(l, i), job->spectra[i], room->u, step, v, step);
        for (num k = 0; k < n && i < final; k++) {
            to_rows(f, v + k * step, row0, row1, job->diagonal[i + 1], 0, l->q_out);
            to_spectra(f, room->u + k * step, row0, row1, 0, l->q_out);
        }
    }
    for (Signal *s = room->signals; s < room->signals + n; s++, v += step) {
        to_rows(f, v, s->out[0], s->out[1], job->diagonal[final + 1], job->bias, l->q_out);
        finish(l, s, l->d_out);
    }
    room->n = 0;
}

/* The signal that was loaded last is complete. */
static void next(Room *room, void (*signals)(Room *)) {
    if (++room->n == together(room->job->layer)) signals(room);
}

static void forward_share(const Job *job, Share share) {
    Layer *l = job->layer;
    num size = widest(l), most = together(l);
    Room room = {.job = job};
    real *memory = l->workspace + shared_size(l) + share.id * forward_part(l);
    room.waste = take_from(&memory, size), room.between = take_from(&memory, 2 * size);
    room.u = (cvec *)take_from(&memory, 2 * size * most), room.v = (cvec *)take_from(&memory, 2 * size * most);
    room.x = take_from(&memory, 2 * size * most), room.out = memory;
    if (most == 1) room.v = room.u; /* in place */
    for (num r = share.first; r < share.end; r += 2) {
        num two = r + 1 < share.end;
        Signal *s = load(&room, r, two);
        if (two && !alike(s->x, job->diagonal[0], l->p * l->q_in)) {
            load(&room, r, 0), next(&room, forward_signals);
            load(&room, r + 1, 0);
        }
        next(&room, forward_signals);
    }
    if (room.n) forward_signals(&room);
}

static void forward_rows(void *job) {
    for (Share share; take(job, &share);) forward_share(job, share);
}

#ifdef COUNTED
static void begin(const Layer *l, num backward) {
    num size = bytes_of(l->format), own = backward ? backward_workspace(l) : forward_workspace(l);
    counts = (Counts){0};
    hold(l->workspace, own * (num)sizeof(real), 1);
    hold(l->x, l->rows * l->d_in * size, 0), hold(l->bias, l->d_out * size, 0);
    hold(backward ? l->g : 0, l->rows * l->d_out * size, 0);
    hold(l->out, l->rows * (backward ? l->input_gradient * l->d_in : l->d_out) * size, 0);
    for (num i = 0; i < l->diagonals; i++) {
        hold(l->diagonal[i], width_of(l, i) * (num)sizeof(real), 0);
        hold(backward ? l->grad_diagonal[i] : 0, width_of(l, i) * (num)sizeof(real), 0);
    }
    for (num i = 0; i < l->circulants; i++) {
        num entries = l->q_out * inputs_of(l, i) * l->p;
        hold(l->circulant[i], entries * (num)sizeof(real), 0);
        hold(backward ? l->grad_circulant[i] : 0, entries * (num)sizeof(real), 0);
    }
}
static void end(Layer *l) {
    let_go();
    l->counts = counts;
}
#else
#define begin(l, backward) ((void)0)
#define end(l) ((void)0)
#endif

/* out = alpha dW x + bias */
void forward(Layer *l) {
    begin(l, 0);
    Job job = prepare(l);
    run(&job, forward_rows);
    end(l);
}

/* ---- backward ------------------------------------------------------------------------------------------------------ */

static void backward_signals(Room *room) {
    const Job *job = room->job;
    const Layer *l = job->layer;
    const Fft *f = &job->fft;
    Signal *s = room->signals;
    num n = room->n, size = widest(l), step = size / LANES, columns = f->columns, final = l->circulants - 1, first_radix = f->radix[0];
    real *row0 = room->between, *row1 = row0 + size, *sums = room->sums + diagonals_size(l);
    cvec *u = room->inputs, *v = room->u, *w = room->v, *m = (cvec *)(room->moments + spectra_size(l));
    room->n = 0;
    /* the forward pass again, up to the last stage of the last factor's output */
    for (num k = 0; k < n; k++) to_spectra(f, u + k * l->q_in * columns, s[k].x[0], s[k].x[1], job->diagonal[0], l->q_in);
    for (num i = 0; i <= final; i++) {
        num q = inputs_of(l, i);
        if (l->diagonals) through(f, n, 0, grid_of(l, i), job->spectra[i], u, q * columns, v, step);
        u += n * q * columns;
        for (num k = 0; k < n && i < final; k++) {
            real *y0 = room->outputs + 2 * (k * final + i) * size, *y1 = y0 + size;
            to_rows(f, v + k * step, y0, y1, 0, 0, l->q_out);
            to_spectra(f, u + k * l->q_out * columns, y0, y1, job->diagonal[i + 1], l->q_out);
        }
    }
    if (l->diagonals) sums -= l->p * l->q_out;
    for (num k = 0; k < n; k++) {
        if (l->diagonals)
            for (num b = 0; b < l->q_out; b++) {
                cvec *block = v + k * step + b * columns;
                num at = b * l->p;
                ABOUT[first_radix](columns, f->turns, block, s[k].g[0] + at, s[k].g[1] + at, job->diagonal[final + 1] + at, sums + at);
                rest_forth(f, block);
            }
        else to_spectra(f, v + k * step, s[k].g[0], s[k].g[1], 0, l->q_out);
    }
    for (num i = final; i >= 0; i--) { /* v: spectra of the gradient of factor i's output */
        num q = inputs_of(l, i);
        u -= n * q * columns, m -= q * l->q_out * columns;
        moments(n, l->q_out, q, columns, u, q * columns, v, step, m);
        if (!l->diagonals && !l->input_gradient) return;
        through(f, n, 1, adjoint_grid(l, i), job->spectra[i], v, step, w, step);
        if (l->diagonals) sums -= l->p * q;
        for (num k = 0; k < n; k++) {
            real *to[2] = {i ? row0 : s[k].out[0], i ? row1 : s[k].out[1]};
            const real *x0 = i ? room->outputs + 2 * (k * final + i - 1) * size : s[k].x[0], *x1 = i ? x0 + size : s[k].x[1];
            for (num b = 0; b < q; b++) {
                num at = b * l->p;
                const cvec *block = w + k * step + b * columns;
                if (l->diagonals)
                    LAST_GRADIENT[first_radix](columns, f->turns, block, to[0] + at, to[1] + at, job->diagonal[i] + at, x0 + at,
                                               x1 + at, sums + at);
                else LAST[first_radix](columns, f->turns, block, to[0] + at, to[1] + at, 0, 0);
            }
            if (i) to_spectra(f, v + k * step, row0, row1, 0, q);
            else finish(l, s + k, l->d_in);
        }
    }
}

static void backward_share(const Job *job, Share share) {
    Layer *l = job->layer;
    num size = widest(l), most = together(l), in = l->p * l->q_in, out = l->p * l->q_out;
    Room room = {.job = job};
    real *memory = l->workspace + shared_size(l) + share.id * backward_part(l);
    room.moments = take_from(&memory, spectra_size(l)), room.sums = take_from(&memory, diagonals_size(l));
    memset(room.moments, 0, (size_t)(spectra_size(l) + diagonals_size(l)) * sizeof(real));
    room.waste = take_from(&memory, size), room.between = take_from(&memory, 2 * size);
    room.inputs = (cvec *)take_from(&memory, 2 * inputs_size(l) * most);
    room.u = (cvec *)take_from(&memory, 2 * size * most), room.v = (cvec *)take_from(&memory, 2 * size * most);
    room.x = take_from(&memory, 2 * size * most), room.g = take_from(&memory, 2 * size * most);
    room.out = take_from(&memory, 2 * size * most), room.outputs = memory;
    if (most == 1) room.v = room.u;
    for (num r = share.first; r < share.end; r += 2) {
        num two = r + 1 < share.end;
        Signal *s = load(&room, r, two);
        int zero[2] = {is_zero(s->g[0], out), is_zero(s->g[1], out)};
        if (!zero[0] && !zero[1] && alike(s->x, job->diagonal[0], in) && alike(s->g, job->diagonal[l->circulants], out)) {
            next(&room, backward_signals);
            continue;
        }
        for (num k = 0; k <= two; k++) {
            s = load(&room, r + k, 0);
            if (!zero[k]) next(&room, backward_signals);
            else if (s->to[0]) { /* as where a loss leaves tokens out */
                memset(s->out[0], 0, (size_t)in * sizeof(real));
                TOUCH(s->out[0], in * (num)sizeof(real), WRITTEN);
                finish(l, s, l->d_in);
            }
        }
    }
    if (room.n) backward_signals(&room);
}

static void backward_rows(void *job) {
    for (Share share; take(job, &share);) backward_share(job, share);
}

/* out = gradient of x through the change; gradients of all factors */
void backward(Layer *l) {
    begin(l, 1);
    Job job = prepare(l);
    const Fft *f = &job.fft;
    run(&job, backward_rows);
    real *total = l->workspace + shared_size(l);
    num sums = spectra_size(l) + diagonals_size(l);
    for (num id = 1; id < workers(l); id++)
        for (num i = 0; i < sums; i += LANES)
            *(vec *)(total + i) = plus(*(vec *)(total + i), *(const vec *)(total + id * backward_part(l) + i));
    real *row = total + sums, *waste = row + l->p; /* what the first share no longer needs */
    for (num i = 0; i < l->circulants; i++) {
        real *out = l->grad_circulant[i], scale = scale_of(l, i);
        for (num b = 0; b < l->q_out * inputs_of(l, i); b++, out += l->p, total += 2 * l->p) {
            rest_back(f, (cvec *)total, PLAIN, 0, 0);
            to_rows(f, (const cvec *)total, row, waste, 0, 0, 1);
            for (num j = 0; j < l->p; j++) put1(out + (l->row_convention && j ? l->p - j : j), times1(row[j], scale));
        }
    }
    for (num i = 0; i < l->diagonals; i++, total += l->p * inputs_of(l, i - 1)) {
        real *out = l->grad_diagonal[i];
        for (num j = 0; j < width_of(l, i); j++)
            put1(out + j, i == l->diagonals - 1 ? times1(total[j], (real)l->alpha) : total[j]);
    }
    end(l);
}
