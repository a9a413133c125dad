/* Diagonal-circulant-diagonal products of rows, forward and backward: one pass over x (and g), all between in cache.
 *
 * Two rows are transformed at once: one is the real, the other the imaginary part of one complex signal of p points,
 * which a circulant product keeps apart. A block (i, j) of a factor maps block j of the input to block i of the output.
 * A lone row has zeros beside it. Rows of very different size, or that are not finite, go alone: what one rounds away
 * or spoils, the other would feel. Several signals go together where a factor has many blocks, which are then read
 * once for all of them. */
#include "rows.h"

/* ---- shares of the rows -------------------------------------------------------------------------------------------- */

typedef void (*Worker)(void *);
typedef void (*Parallel)(Worker, void *, unsigned, unsigned);

static void run(const Layer *l, num shares, Worker worker, void *job) {
    /* all threads even for fewer shares: the pool would end the others, for torch to make them anew */
    if (shares > 1) ((Parallel)l->parallel)(worker, job, (unsigned)l->threads, 0);
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

/* ---- forward ------------------------------------------------------------------------------------------------------- */

static void forward_signals(Room *room) {
    const Job *job = room->job;
    const Layer *l = job->layer;
    const Fft *f = &room->fft;
    cvec *u = room->u, *v = room->v;
    num n = room->n, step = widest(l) / LANES, final = l->circulants - 1, one = together(l) == 1;
    real *row0 = room->between, *row1 = row0 + widest(l);
    for (num i = 0; i <= final; i++) { /* of rows that entered their transform */
        for (num k = 0; k < n && !one; k++) rest(f, FORTH, inputs_of(l, i), u + k * step, 0, 0, 0);
        if (one) rest(f, THROUGH, 1, u, job->spectra[i], 0, 0);
        else through(f, n, 0, grid_of(l, i), job->spectra[i], u, step, v, step);
        for (num k = 0; k < n && i < final; k++) {
            to_rows(f, v + k * step, row0, row1, job->diagonal[i + 1], 0, l->q_out);
            enter(f, u + k * step, row0, row1, 0, 0, l->q_out);
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

static cvec *forward_input(const Room *room) { return room->u + room->n * widest(room->job->layer) / LANES; }
static void forward_share(const Job *job, Share share) {
    Layer *l = job->layer;
    num size = widest(l), most = together(l);
    Room room = {.job = job, .fft = job->fft};
    room.fft.ahead = &room.ahead;
    real *memory = l->workspace + shared_size(l) + share.id * forward_part(l);
    room.waste = take_from(&memory, size), room.between = take_from(&memory, 2 * size);
    room.u = (cvec *)take_from(&memory, 2 * size * most), room.v = (cvec *)take_from(&memory, 2 * size * most);
    room.x = take_from(&memory, 2 * size * most), room.out = memory;
    if (most == 1) room.v = room.u; /* in place */
    for (num r = share.first; r < share.end; r += 2) {
        num two = r + 1 < share.end;
        load(&room, r, two);
        if (!entered(&room, forward_input(&room), two)) {
            load(&room, r, 0), entered(&room, forward_input(&room), 0), next(&room, forward_signals);
            load(&room, r + 1, 0), entered(&room, forward_input(&room), 0);
        }
        next(&room, forward_signals);
    }
    if (room.n) forward_signals(&room);
}

static void forward_rows(void *job) {
    for (Share share; take(job, &share);) forward_share(job, share);
}

/* out = alpha dW x + bias */
void forward(Layer *l) {
    begin(l, forward_workspace(l), 0, 1);
    Job job = prepare(l);
    run(l, workers(l), forward_rows, &job);
    end(l);
}

#include "mixed.h"

/* ---- backward ------------------------------------------------------------------------------------------------------ */

static void backward_signals(Room *room) {
    const Job *job = room->job;
    const Layer *l = job->layer;
    const Fft *f = &room->fft;
    Signal *s = room->signals;
    num n = room->n, size = widest(l), step = size / LANES, columns = f->columns, final = l->circulants - 1, first_radix = f->radix[0];
    int one = together(l) == 1;
    real *row0 = room->between, *row1 = row0 + size, *sums = room->sums + diagonals_size(l);
    cvec *u = room->inputs, *v = room->u, *w = room->v, *m = (cvec *)(room->moments + spectra_size(l));
    room->n = 0;
    /* the forward pass again, of rows that entered their transform, up to the last stage of the last factor's output */
    for (num i = 0; i <= final; i++) {
        num q = inputs_of(l, i);
        if (one && l->diagonals) rest(f, KEEP, 1, u, job->spectra[i], v, 0);
        else rest(f, FORTH, n * q, u, 0, 0, 0);
        if (!one && l->diagonals) through(f, n, 0, grid_of(l, i), job->spectra[i], u, q * columns, v, step);
        u += n * q * columns;
        for (num k = 0; k < n && i < final; k++) {
            real *y0 = room->outputs + 2 * (k * final + i) * size, *y1 = y0 + size;
            to_rows(f, v + k * step, y0, y1, 0, 0, l->q_out);
            enter(f, u + k * l->q_out * columns, y0, y1, job->diagonal[i + 1], 0, l->q_out);
        }
    }
    if (l->diagonals) sums -= l->p * l->q_out;
    for (num k = 0; k < n; k++)
        if (l->diagonals)
            ABOUT[first_radix](l->q_out, columns, f->turns, v + k * step, s[k].g[0], s[k].g[1], job->diagonal[final + 1], sums);
        else enter(f, v + k * step, s[k].g[0], s[k].g[1], 0, 0, l->q_out);
    for (num i = final; i >= 0; i--) { /* v: the gradient of factor i's output, that entered its transform */
        num q = inputs_of(l, i);
        u -= n * q * columns, m -= q * l->q_out * columns;
        if (one && (l->diagonals || l->input_gradient)) rest(f, GRADIENT, 1, v, job->spectra[i], u, m);
        else {
            for (num k = 0; k < n; k++) rest(f, FORTH, l->q_out, v + k * step, 0, 0, 0);
            moments(n, l->q_out, q, columns, u, q * columns, v, step, m);
            if (!l->diagonals && !l->input_gradient) return;
            through(f, n, 1, adjoint_grid(l, i), job->spectra[i], v, step, w, step);
        }
        if (l->diagonals) sums -= l->p * q;
        for (num k = 0; k < n; k++) {
            real *to[2] = {i ? row0 : s[k].out[0], i ? row1 : s[k].out[1]};
            const real *x0 = i ? room->outputs + 2 * (k * final + i - 1) * size : s[k].x[0], *x1 = i ? x0 + size : s[k].x[1];
            const cvec *from = w + k * step;
            if (l->diagonals)
                LAST_GRADIENT[first_radix](q, columns, f->turns, from, to[0], to[1], job->diagonal[i], x0, x1, sums);
            else LAST[first_radix](q, columns, f->turns, from, to[0], to[1], 0, 0);
            if (i) enter(f, v + k * step, row0, row1, 0, 0, q);
            else finish(l, s + k, l->d_in);
        }
    }
}

static cvec *backward_input(const Room *room) {
    const Layer *l = room->job->layer;
    return room->inputs + room->n * l->q_in * l->p / LANES;
}
static void backward_share(const Job *job, Share share) {
    Layer *l = job->layer;
    num size = widest(l), most = together(l), in = l->p * l->q_in, out = l->p * l->q_out;
    Room room = {.job = job, .fft = job->fft};
    room.fft.ahead = &room.ahead;
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
        if (!zero[0] && !zero[1] && alike(s->g, job->diagonal[l->circulants], out) && entered(&room, backward_input(&room), 1)) {
            next(&room, backward_signals);
            continue;
        }
        for (num k = 0; k <= two; k++) {
            s = load(&room, r + k, 0);
            if (!zero[k]) entered(&room, backward_input(&room), 0), next(&room, backward_signals);
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
    begin(l, backward_workspace(l), 1, 1);
    Job job = prepare(l);
    const Fft *f = &job.fft;
    run(l, workers(l), backward_rows, &job);
    real *total = l->workspace + shared_size(l);
    num sums = spectra_size(l) + diagonals_size(l);
    for (num id = 1; id < workers(l); id++)
        for (num i = 0; i < sums; i += LANES)
            *(vec *)(total + i) = plus(*(vec *)(total + i), *(const vec *)(total + id * backward_part(l) + i));
    real *row = total + sums, *waste = row + l->p; /* what the first share no longer needs */
    for (num i = 0; i < l->circulants; i++) {
        real *out = l->grad_circulant[i], scale = scale_of(l, i);
        for (num b = 0; b < l->q_out * inputs_of(l, i); b++, out += l->p, total += 2 * l->p) {
            rest(f, BACK, 1, (cvec *)total, 0, 0, 0);
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

#include "rates.h"
