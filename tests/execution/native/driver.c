/* The kernels beside sums over dense matrices, with no Python: for CPUs that run under an emulator.
 *
 * driver ROWS D_IN D_OUT P M FORMAT ROW RADIX...: prints lanes, and the relative error of the output, of a mixed batch of
 * two adapters' and of no adapter's rows, of the input's gradient, of the diagonals' gradients and of the circulants'.
 * Data are small random multiples of 1/64, exact in every format. */
#include "layer.c"
#include <stdio.h>

static uint64_t state = 88172645463325252u;
static double drawn(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (double)((int)(state >> 33 & 127) - 63) / 64 + 1.0 / 128;
}
static void *aligned(num bytes) {
    num size = (bytes + 127) / 64 * 64;
    char *found = aligned_alloc(64, (size_t)size);
    memset(found, 0, (size_t)size);
    return found;
}
typedef struct { double *wide; void *given; } Drawn;
static Drawn some(num n, num format) {
    Drawn d = {malloc((size_t)n * sizeof(double)), aligned(n * (num)sizeof(real))};
    for (num i = 0; i < n; i++) d.wide[i] = drawn();
    real *as = aligned(n * (num)sizeof(real));
    for (num i = 0; i < n; i++) as[i] = (real)d.wide[i];
    write_to(format, d.given, as, n);
    return d;
}
static double differ(num format, const void *found, const double *right, num n) {
    real *as = aligned(n * (num)sizeof(real));
    double error = 0, norm = 0;
    read_from(format, as, found, n);
    for (num i = 0; i < n; i++) error += (as[i] - right[i]) * (as[i] - right[i]), norm += right[i] * right[i];
    return sqrt(error / norm);
}

static num p, row;
/* entry (r, s) of a factor of q_in blocks a row */
static num entry(num r, num s, num q_in) { return (r / p * q_in + s / p) * p + ((row ? s % p - r % p : r % p - s % p) + p) % p; }

int main(int n_arguments, char **a) {
    num rows = atoll(a[1]), d_in = atoll(a[2]), d_out = atoll(a[3]), m = atoll(a[5]), format = atoll(a[6]), n = m > 1 ? m - 1 : 1;
    p = atoll(a[4]), row = atoll(a[7]);
    Layer l = {.rows = rows, .d_in = d_in, .d_out = d_out, .p = p, .q_in = (d_in + p - 1) / p, .q_out = (d_out + p - 1) / p,
               .diagonals = m, .circulants = n, .threads = 1, .stages = n_arguments - 8, .row_convention = row,
               .input_gradient = 1, .format = format, .alpha = 0.5};
    for (num s = 0; s < l.stages; s++) l.radices[s] = atoll(a[8 + s]);
    real *tables = aligned(table_size(p, l.radices, l.stages) * (num)sizeof(real));
    make_tables(p, l.radices, l.stages, tables);
    l.tables = tables;
    Drawn x = some(rows * d_in, format), g = some(rows * d_out, format), bias = some(d_out, format), diagonal[MOST], circulant[MOST];
    for (num i = 0; i < m; i++) l.diagonal[i] = (diagonal[i] = some(2 * width_of(&l, i), REALS)).given;
    for (num i = 0; i < n; i++) l.circulant[i] = (circulant[i] = some(2 * l.q_out * inputs_of(&l, i) * p, REALS)).given;
    num most = d_in > d_out ? d_in : d_out;
    double *after[MOST + 1], *out = calloc((size_t)(rows * d_out), 8), *grad = calloc((size_t)(rows * most), 8);
    double *grad_a[MOST], *grad_c[MOST], *next = calloc((size_t)most, 8);
    for (num i = 0; i < MOST; i++) grad_a[i] = calloc((size_t)most, 8), after[i] = calloc((size_t)most, 8);
    for (num i = 0; i < n; i++) grad_c[i] = calloc((size_t)(l.q_out * inputs_of(&l, i) * p), 8);
    after[MOST] = calloc((size_t)most, 8);
    for (num r = 0; r < rows; r++) { /* after[i]: the input of factor i, diagonals applied */
        for (num j = 0; j < d_in; j++) after[0][j] = x.wide[r * d_in + j] * (m ? diagonal[0].wide[j] : 1);
        double raw[MOST][4096];
        for (num i = 0; i < n; i++)
            for (num k = 0; k < d_out; k++) {
                double sum = 0;
                for (num j = 0; j < width_of(&l, i); j++) sum += circulant[i].wide[entry(k, j, inputs_of(&l, i))] * after[i][j];
                raw[i][k] = sum, after[i + 1][k] = sum * (m ? diagonal[i + 1].wide[k] : 1);
            }
        double *up = grad + r * most;
        for (num k = 0; k < d_out; k++) {
            out[r * d_out + k] = 0.5 * after[n][k] + bias.wide[k];
            up[k] = 0.5 * g.wide[r * d_out + k];
        }
        for (num i = n - 1; i >= 0; i--) {
            num width = width_of(&l, i);
            for (num k = 0; k < d_out && m; k++) grad_a[i + 1][k] += up[k] * raw[i][k], up[k] *= diagonal[i + 1].wide[k];
            memset(next, 0, (size_t)most * 8);
            for (num k = 0; k < d_out; k++)
                for (num j = 0; j < width; j++) {
                    num at = entry(k, j, inputs_of(&l, i));
                    grad_c[i][at] += up[k] * after[i][j], next[j] += up[k] * circulant[i].wide[at];
                }
            memcpy(up, next, (size_t)most * 8);
        }
        for (num j = 0; j < d_in && m; j++) grad_a[0][j] += up[j] * x.wide[r * d_in + j], up[j] *= diagonal[0].wide[j];
    }
    l.x = x.given, l.bias = bias.given, l.out = aligned(rows * most * (num)sizeof(real));
    l.workspace = aligned(forward_workspace(&l) * (num)sizeof(real));
    forward(&l);
    printf("%d %.3g ", (int)lanes(), differ(format, l.out, out, rows * d_out));
    num adapters[64], order[64], at = 0;
    for (num r = 0; r < rows; r++) adapters[r] = r % 3 - 1;
    for (num k = -1; k < 2; k++)
        for (num r = rows - 1; r >= 0; r--)
            if (adapters[r] == k) order[at++] = r;
    for (num r = 0; r < rows; r++) {
        double *given = calloc((size_t)most, 8), *made = calloc((size_t)most, 8);
        num k = adapters[r];
        for (num j = 0; j < d_in && k >= 0; j++) given[j] = x.wide[r * d_in + j] * (m ? diagonal[0].wide[k * d_in + j] : 1);
        for (num i = 0; i < n && k >= 0; i++) {
            num q = inputs_of(&l, i), width = width_of(&l, i);
            for (num o = 0; o < d_out; o++) {
                made[o] = 0;
                for (num j = 0; j < width; j++) made[o] += circulant[i].wide[k * l.q_out * q * p + entry(o, j, q)] * given[j];
                made[o] *= m ? diagonal[i + 1].wide[k * d_out + o] : 1;
            }
            memcpy(given, made, (size_t)d_out * 8);
        }
        for (num o = 0; o < d_out; o++) out[r * d_out + o] = 0.5 * made[o];
    }
    l.adapters = adapters, l.order = order, l.bias = 0;
    l.workspace = aligned(mixed_workspace(&l) * (num)sizeof(real));
    mixed(&l, 2);
    l.order = 0, l.bias = bias.given;
    printf("%.3g ", differ(format, l.out, out, rows * d_out));
    l.g = g.given;
    l.workspace = aligned(backward_workspace(&l) * (num)sizeof(real));
    for (num i = 0; i < m; i++) l.grad_diagonal[i] = aligned(most * (num)sizeof(real));
    for (num i = 0; i < n; i++) l.grad_circulant[i] = aligned(l.q_out * inputs_of(&l, i) * p * (num)sizeof(real));
    backward(&l);
    for (num r = 0; r < rows; r++) memmove(grad + r * d_in, grad + r * most, (size_t)d_in * 8);
    printf("%.3g ", differ(format, l.out, grad, rows * d_in));
    double worst_a = 0, worst_c = 0;
    for (num i = 0; i < m; i++) worst_a = fmax(worst_a, differ(REALS, l.grad_diagonal[i], grad_a[i], width_of(&l, i)));
    for (num i = 0; i < n; i++)
        worst_c = fmax(worst_c, differ(REALS, l.grad_circulant[i], grad_c[i], l.q_out * inputs_of(&l, i) * p));
    printf("%.3g %.3g\n", worst_a, worst_c);
    return 0;
}
