/* Late interaction of services/memory_node/signals/late.py, the same numbers: read that first. Integers throughout. */
#include <stdint.h>
#include <string.h>

/* Twice as quick where the processor has AVX2; GCC picks at load. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define PICKED __attribute__((target_clones("avx2", "default")))
#else
#define PICKED
#endif

/* bits[b][i]: bit i of byte b, the highest first. */
static int16_t bits[256][8];

void late_prepare(void) {
    for (int b = 0; b < 256; b++)
        for (int i = 0; i < 8; i++) bits[b][i] = (int16_t)((b >> (7 - i)) & 1);
}

/* query [m, 8 width] with zeros behind its last component, words [.., width], start and count [n] in words, scratch [8 width], best [m, n]:
 * of each query word the largest sum over the set bits, twice, less the sum over all; a row without words keeps what stands there. */
PICKED void late_best(const int16_t *restrict query, const int32_t *restrict total, int64_t m, const uint8_t *restrict words, int64_t width,
               const int64_t *restrict start, const int32_t *restrict count, int64_t n, int16_t *restrict scratch, int32_t *restrict best) {
    for (int64_t row = 0; row < n; row++) {
        for (int32_t word = 0; word < count[row]; word++) {
            const uint8_t *packed = words + (start[row] + word) * width;
            for (int64_t i = 0; i < width; i++) memcpy(scratch + 8 * i, bits[packed[i]], sizeof bits[0]);
            for (int64_t q = 0; q < m; q++) {
                const int16_t *restrict one = query + q * 8 * width;
                int32_t sum = 0;
                for (int64_t i = 0; i < 8 * width; i++) sum += (int32_t)one[i] * scratch[i];
                const int32_t value = 2 * sum - total[q];
                if (!word || value > best[q * n + row]) best[q * n + row] = value;
            }
        }
    }
}
