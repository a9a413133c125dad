/* Rows that each have an adapter of their own, of many: one pass over x, forward alone. Included by layer.c. */

#define AT_ONCE 64 /* rows of one adapter that share its spectra: few enough to share work among threads by */

typedef struct {
    Layer *layer;
    num *starts, chunks;           /* in `order`, of the rows that go together; their number */
    num part, next;                /* workspace for the next thread, chunk for whoever asks next */
} Mixed;

/* What a row has, cheaply, as a size: the largest of its lanes' sums of squares. Copies it, times a diagonal or NULL. */
static real size_of(real *to, const real *from, const real *scale, num n) {
    vec sums = {0};
    for (num i = 0; i < n; i += LANES) {
        vec v = scale ? times(get(from + i), get(scale + i)) : get(from + i);
        *(vec *)(to + i) = v;
        sums = plus_times(sums, v, v);
    }
    return largest(sums);
}
static void scale_by(real *row, real a, num n) {
    for (num i = 0; i < n; i += LANES) *(vec *)(row + i) = times(*(vec *)(row + i), all(a));
}
static const real *padded(const real *a, num width, num p, real *room) { /* a factor, as a whole block */
    if (width == p) return a;
    read_from(REALS, room, a, width);
    memset(room + width, 0, (size_t)(p - width) * sizeof(real));
    return room;
}

/* One row of an adapter whose factors are one block each. The circular convolution of k u + i s c with itself has
 * 2 k s (u * c) as its imaginary part: two transforms, where one of c comes on top else and half of each signal is
 * zeros. k and s make both parts alike, and k s = alpha / 2 p. What rounds differently from pairs of rows stays below
 * sqrt(p) / 2 times that. 0 where sizes say nothing (zeros, not finite): the usual way has to do. */
static int lone(const Layer *l, const Fft *f, real *memory) {
    num p = l->p, r = row_at(l, 0), final = l->circulants - 1, whole_rows = l->format == REALS && l->d_out == p;
    real *u = take_from(&memory, p), *c = take_from(&memory, p), *room = take_from(&memory, p), *waste = take_from(&memory, p);
    real *out = take_from(&memory, p);
    cvec *z = (cvec *)take_from(&memory, 2 * p);
    char *to = (char *)l->out + r * l->d_out * bytes_of(l->format);
    const real *from = row_of(l, l->x, r, l->d_in, 1, out), *a = l->diagonals ? padded(l->diagonal[0], l->d_in, p, room) : 0;
    for (num i = 0; i <= final; i++) {
        const real *given = l->circulant[i];
        for (num j = 0; l->row_convention && j < p; j++) waste[j] = get1(given + (j ? p - j : 0));
        double sizes[2] = {(double)size_of(u, from, i ? 0 : a, p), (double)size_of(c, l->row_convention ? waste : given, 0, p)};
        if (sizes[0] < 1e-30 || sizes[1] < 1e-30) return 0;
        double scale = (i == final ? l->alpha : 1.0) / (2 * (double)p), ratio = sqrt(sqrt(sizes[1] / sizes[0]) * fabs(scale));
        scale_by(u, (real)ratio, p), scale_by(c, (real)(ratio > 0 ? scale / ratio : 0), p);
        spectrum(f, z, u, c, 0);
        rest(f, TIMES, 1, z, z, z, 0);
        real *next = i == final && whole_rows ? (real *)to : out;
        a = l->diagonals ? padded(l->diagonal[i + 1], l->d_out, p, room) : 0;
        to_rows(f, z, waste, next, a, 0, 1);
        from = next;
    }
    if (from != (real *)to) write_to(l->format, to, from, l->d_out);
    return 1;
}

static void no_change(const Layer *l, num first, num end) {
    num n = l->d_out * bytes_of(l->format);
    for (; first < end; first++) {
        char *to = (char *)l->out + row_at(l, first) * n;
        TOUCH(to, n, WRITTEN);
        memset(to, 0, (size_t)n);
    }
}

static void mixed_chunk(const Layer *l, num first, num end, real *memory) {
    num adapter = l->adapters[l->order[first]];
    if (adapter < 0) {
        no_change(l, first, end);
        return;
    }
    Layer own = *l;
    own.rows = end - first, own.order += first, own.workspace = memory, own.parallel = 0;
    for (num i = 0; i < l->diagonals; i++) own.diagonal[i] += adapter * width_of(l, i);
    for (num i = 0; i < l->circulants; i++) own.circulant[i] += adapter * l->q_out * inputs_of(l, i) * l->p;
    if (own.rows == 1 && together(l) == 1) {
        Fft fft = fft_of(l->p, l->radices, l->stages, l->tables, &nothing);
        if (lone(&own, &fft, memory)) return;
    }
    Job job = prepare(&own);
    forward_share(&job, (Share){0, 0, own.rows});
}

static void mixed_rows(void *given) {
    Mixed *m = given;
    num part = __atomic_fetch_add(&m->part, 1, __ATOMIC_RELAXED);
    if (part >= mixed_workers(m->layer)) return;
    for (num i; (i = __atomic_fetch_add(&m->next, 1, __ATOMIC_RELAXED)) < m->chunks;)
        mixed_chunk(m->layer, m->starts[i], m->starts[i + 1], m->layer->workspace + part * mixed_part(m->layer));
}

/* out = alpha dW_k x, k of each row its adapter, of so many; rows of adapter -1 become zeros */
void mixed(Layer *l, num adapters) {
    begin(l, mixed_workspace(l), 0, adapters);
    (void)adapters;
    Mixed m = {.layer = l, .starts = (num *)(l->workspace + mixed_workers(l) * mixed_part(l))};
    for (num i = 0, of = 0, before = -2; i < l->rows; i++, of++) {
        num adapter = l->adapters[l->order[i]];
        TOUCH(l->adapters + l->order[i], sizeof(num), READ);
        if (adapter != before || of == AT_ONCE) m.starts[m.chunks++] = i, of = 0;
        before = adapter;
    }
    m.starts[m.chunks] = l->rows;
    run(l, least(mixed_workers(l), m.chunks), mixed_rows, &m);
    end(l);
}
