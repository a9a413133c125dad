/* What this CPU does at most with vectors of this width: by which the kernels' times are judged. Included by layer.c. */

#define APART 12 /* sums that do not wait for each other, and fit 16 registers */

/* n times APART multiply-adds of whole vectors; sums are variables, since gcc keeps an array of so many in memory */
#define EACH_SUM(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11)
#define BEGIN_SUM(k) vec sum##k = all((real)k);
#define NEXT_SUM(k) sum##k = sum##k * a + b;
#define KEEP_SUM(k) *(loose *)(out + k * LANES) = sum##k;
void multiply_add(num n, real *out) {
    vec a = all((real)0.999), b = all((real)1e-3);
    HELD(a);
    HELD(b);
    EACH_SUM(BEGIN_SUM)
    for (num i = 0; i < n; i++) { EACH_SUM(NEXT_SUM) }
    EACH_SUM(KEEP_SUM)
}
/* Reads and writes n entries of memory, so many times, as a stage of a transform does to its signal. */
void read_and_write(real *memory, num n, num times_over) {
    for (num t = 0; t < times_over; t++)
        for (num i = 0; i + 4 * LANES <= n; i += 4 * LANES)
            UNROLL for (int k = 0; k < 4; k++) {
                vec v = *(loose *)(memory + i + k * LANES);
                HELD(v);
                *(loose *)(memory + i + k * LANES) = v;
            }
}
