/* The oscillators of ndml/crdt/oscillator.py, bit for bit: read that first. 64-bit integers; >> of a negative number floors with every
 * compiler that builds this. */
#include <stdint.h>

enum { SHIFT = 8 };

#define SUPPLY ((int64_t)1 << 20)
#define HIGH (SUPPLY * 8 / 10)
#define LOW (SUPPLY * 2 / 10)

/* One network of n cells; scratch holds 4 n numbers. */
static void network(const int64_t *restrict pull, const int64_t *restrict push, int64_t n, int64_t steps, int64_t *restrict last,
                    int64_t *restrict lapse, int64_t *restrict scratch) {
    int64_t *restrict v = scratch, *restrict f = scratch + n, *restrict target = scratch + 2 * n, *restrict moved = scratch + 3 * n;
    for (int64_t i = 0; i < n; i++) {
        v[i] = LOW + (HIGH - LOW) * (i + 1) / (n + 1);
        target[i] = SUPPLY;
        last[i] = -1;
        lapse[i] = 0;
    }
    for (int64_t step = 0; step < steps; step++) {
        for (int64_t i = 0; i < n; i++) f[i] = target[i] - v[i];
        for (int64_t i = 0; i < n; i++) {
            const int64_t *r = pull + i * n, *c = push + i * n;
            int64_t together = 0, apart = 0;
            for (int64_t j = 0; j < n; j++) {
                together += r[j] * (v[j] - v[i]);
                apart += c[j] * (f[j] - f[i]);
            }
            moved[i] = (f[i] + (together >> SHIFT) + (apart >> SHIFT)) >> SHIFT;
        }
        for (int64_t i = 0; i < n; i++) {
            v[i] += moved[i];
            if (target[i] && v[i] >= HIGH) {
                if (last[i] >= 0) lapse[i] = step - last[i];
                last[i] = step;
                target[i] = 0;
            } else if (!target[i] && v[i] <= LOW) {
                target[i] = SUPPLY;
            }
        }
    }
}

/* Couplings [count, n, n], last and lapse [count, n], scratch [4 n]. */
void oscillator_relax(const int64_t *pull, const int64_t *push, int64_t count, int64_t n, int64_t steps, int64_t *last, int64_t *lapse,
                      int64_t *scratch) {
    for (int64_t b = 0; b < count; b++)
        network(pull + b * n * n, push + b * n * n, n, steps, last + b * n, lapse + b * n, scratch);
}
