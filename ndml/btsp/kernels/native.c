/* BTSP kernels for one CPU core: integers only, so that every build on every machine gives the same bits.

   Loaded by ctypes (native.py), which lets go of Python's lock during a call. No function keeps state, allocates, or touches memory
   outside its arguments; native.py checks the shapes.

   Synapses are stored by input: row u has one bit for every neuron, so that a cue reads the rows of its active units and nothing else.
   Sums of bits are held bit-sliced: plane b has bit b of the sum of every neuron. Rows go in sixteen at a time through a tree of full
   adders (about five logic operations a row and vector; one by one would take two for every plane). */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PLANES 12      /* sums up to 4095: more active units than any code has */
#define UNITS 4095     /* as many rows can be summed */
#define GROUP 16

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(NDML_PORTABLE)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

typedef uint64_t v4 __attribute__((vector_size(32), aligned(8), may_alias));
typedef int16_t h16 __attribute__((vector_size(32), aligned(2), may_alias));

/* (carry, sum) of three bits in every lane */
#define FULL_ADD(carry, sum, a, b, c)                                                                                                     \
    do {                                                                                                                                  \
        v4 x_ = (a) ^ (b), c_ = (c);                                                                                                      \
        (carry) = ((a) & (b)) | (x_ & c_);                                                                                                \
        (sum) = x_ ^ c_;                                                                                                                  \
    } while (0)

/* Add sixteen rows into the planes; `high` is how many planes above the fourth can become non-zero. */
static inline __attribute__((always_inline)) void add_group(const uint64_t *const *rows, uint64_t *planes, ptrdiff_t words, int high) {
    for (ptrdiff_t w = 0; w < words; w += 4) {
#define ROW(k) (*(const v4 *)(rows[k] + w))
        uint64_t *at = planes + w;
        v4 ones = *(v4 *)at, twos = *(v4 *)(at + words), fours = *(v4 *)(at + 2 * words), eights = *(v4 *)(at + 3 * words);
        v4 two_a, two_b, four_a, four_b, eight_a, eight_b, carry;
        FULL_ADD(two_a, ones, ones, ROW(0), ROW(1));
        FULL_ADD(two_b, ones, ones, ROW(2), ROW(3));
        FULL_ADD(four_a, twos, twos, two_a, two_b);
        FULL_ADD(two_a, ones, ones, ROW(4), ROW(5));
        FULL_ADD(two_b, ones, ones, ROW(6), ROW(7));
        FULL_ADD(four_b, twos, twos, two_a, two_b);
        FULL_ADD(eight_a, fours, fours, four_a, four_b);
        FULL_ADD(two_a, ones, ones, ROW(8), ROW(9));
        FULL_ADD(two_b, ones, ones, ROW(10), ROW(11));
        FULL_ADD(four_a, twos, twos, two_a, two_b);
        FULL_ADD(two_a, ones, ones, ROW(12), ROW(13));
        FULL_ADD(two_b, ones, ones, ROW(14), ROW(15));
        FULL_ADD(four_b, twos, twos, two_a, two_b);
        FULL_ADD(eight_b, fours, fours, four_a, four_b);
        FULL_ADD(carry, eights, eights, eight_a, eight_b);
#undef ROW
        *(v4 *)at = ones;
        *(v4 *)(at + words) = twos;
        *(v4 *)(at + 2 * words) = fours;
        *(v4 *)(at + 3 * words) = eights;
        for (int p = 4; p < 4 + high; p++) {
            v4 plane = *(v4 *)(at + p * words);
            *(v4 *)(at + p * words) = plane ^ carry;
            carry &= plane;
        }
    }
}

static inline __attribute__((always_inline)) int bits_of(int32_t value) {
    int bits = 0;
    while (value >> bits) bits++;
    return bits;
}

/* Bit-sliced sums over the rows of `code`; silent blocks (-1) add nothing. Writes and returns max(4, bits of the count) planes. */
static inline __attribute__((always_inline)) int sum_rows(const uint64_t *synapses, ptrdiff_t words, const int32_t *code, int32_t units,
                                                           const uint64_t *zeros, uint64_t *planes, int32_t *active) {
    const uint64_t *rows[UNITS + GROUP];
    int32_t count = 0;
    for (int32_t i = 0; i < units; i++)
        if (code[i] >= 0) rows[count++] = synapses + (ptrdiff_t)code[i] * words;
    int used = bits_of(count);
    if (used < 4) used = 4;
    *active = count;
    for (int32_t k = count; k % GROUP; k++) rows[k] = zeros;
    memset(planes, 0, sizeof(uint64_t) * (size_t)words * (size_t)used);
    for (int32_t i = 0; i < count; i += GROUP) add_group(rows + i, planes, words, used - 4);
    return used;
}

static inline __attribute__((always_inline)) int64_t population(const uint64_t *a, const uint64_t *b, const uint64_t *c, ptrdiff_t words) {
    int64_t bits = 0; /* of (a & b) | c */
    for (ptrdiff_t w = 0; w < words; w++) bits += __builtin_popcountll((a[w] & b[w]) | c[w]);
    return bits;
}

/* `above`: sums beyond the k-th largest; `level`: sums equal to it. Returns the sum of the k largest. A binary search down the planes. */
static inline __attribute__((always_inline)) int64_t largest(const uint64_t *planes, int used, ptrdiff_t words, int64_t k, const uint64_t *zeros,
                                                              uint64_t *above, uint64_t *level, int64_t *kth) {
    int64_t total = 0, value = 0, beyond = 0;
    memset(above, 0, sizeof(uint64_t) * (size_t)words);
    memset(level, 0xff, sizeof(uint64_t) * (size_t)words);
    for (int p = used - 1; p >= 0; p--) {
        const uint64_t *plane = planes + p * words;
        int64_t reach = population(level, plane, above, words);
        if (reach >= k) {
            value |= (int64_t)1 << p;
            for (ptrdiff_t w = 0; w < words; w++) level[w] &= plane[w];
        } else {
            beyond = reach;
            for (ptrdiff_t w = 0; w < words; w++) above[w] |= level[w] & plane[w], level[w] &= ~plane[w];
        }
    }
    for (int p = 0; p < used; p++) total += population(above, planes + p * words, zeros, words) << p;
    *kth = value;
    return total + (k - beyond) * value;
}

/* Sums, [n, PLANES, words]. `zeros` [words]. */
CLONES void ndml_btsp_sums(const uint64_t *synapses, int64_t words, const int32_t *codes, int64_t n, int32_t units, const uint64_t *zeros,
                           uint64_t *planes) {
    int32_t active;
    for (int64_t i = 0; i < n; i++) {
        uint64_t *mine = planes + i * PLANES * words;
        int used = sum_rows(synapses, words, codes + i * units, units, zeros, mine, &active);
        memset(mine + used * words, 0, sizeof(uint64_t) * (size_t)(words * (PLANES - used)));
    }
}

/* The k largest sums of every code: their total and the k-th, [n] each; the neurons of the k-th value and above, [n, words], unless NULL.
   `zeros` [words]; `scratch` [(PLANES + 2) * words]. */
CLONES void ndml_btsp_largest(const uint64_t *synapses, int64_t words, const int32_t *codes, int64_t n, int32_t units, int64_t k,
                              const uint64_t *zeros, uint64_t *scratch, int64_t *totals, int64_t *kth, uint64_t *winners) {
    uint64_t *above = scratch + PLANES * words, *level = above + words;
    int32_t active;
    for (int64_t i = 0; i < n; i++) {
        int used = sum_rows(synapses, words, codes + i * units, units, zeros, scratch, &active);
        totals[i] = largest(scratch, used, words, k, zeros, above, level, kth + i);
        if (winners)
            for (int64_t w = 0; w < words; w++) winners[i * words + w] = above[w] | level[w];
    }
}

/* One-shot plasticity, in order: on the active rows of code i, neurons `up` [n, k] and `down` [n, k] are set and cleared, or, flipped. */
void ndml_btsp_store(uint64_t *synapses, int64_t words, const int32_t *codes, int64_t n, int32_t units, const int32_t *up, const int32_t *down,
                     int32_t k, int32_t flip) {
    for (int64_t i = 0; i < n; i++, up += k, down += k)
        for (int32_t u = 0; u < units; u++) {
            if (codes[i * units + u] < 0) continue;
            uint64_t *row = synapses + (int64_t)codes[i * units + u] * words;
            for (int32_t j = 0; j < k; j++) {
                uint64_t on = (uint64_t)1 << (up[j] & 63), off = (uint64_t)1 << (down[j] & 63);
                uint64_t *a = row + (up[j] >> 6), *b = row + (down[j] >> 6);
                *a = flip ? *a ^ on : *a | on;
                *b = flip ? *b ^ off : *b & ~off;
            }
        }
}

#define LANES 16

/* Walsh-Hadamard transform of sixteen columns at once, in place: x [width][LANES]. */
static inline __attribute__((always_inline)) void transform(h16 *x, int32_t width) {
    int32_t h = 1;
    for (; 4 * h <= width; h *= 4)
        for (int32_t i = 0; i < width; i += 4 * h)
            for (int32_t j = i; j < i + h; j++) {
                h16 a = x[j] + x[j + h], b = x[j] - x[j + h], c = x[j + 2 * h] + x[j + 3 * h], d = x[j + 2 * h] - x[j + 3 * h];
                x[j] = a + c, x[j + h] = b + d, x[j + 2 * h] = a - c, x[j + 3 * h] = b - d;
            }
    for (; h < width; h *= 2)
        for (int32_t i = 0; i < width; i += 2 * h)
            for (int32_t j = i; j < i + h; j++) {
                h16 a = x[j], b = x[j + h];
                x[j] = a + b, x[j + h] = a - b;
            }
}

/* Where |x| is largest among x [count][LANES], lowest first: twice the position, plus one where x is negative. */
static inline __attribute__((always_inline)) h16 winner(const h16 *x, int32_t count) {
    h16 best = (x[0] ^ (x[0] >> 15)) - (x[0] >> 15), who = -(x[0] >> 15);
    for (int32_t j = 1; j < count; j++) {
        h16 minus = x[j] >> 15, size = (x[j] ^ minus) - minus, more = size > best;
        best = (size & more) | (best & ~more);
        who = (((int16_t)(2 * j) - minus) & more) | (who & ~more);
    }
    return who;
}

/* Codes [n, rounds * width / half]: each round multiplies the vector [width] by its signs, transforms it, and takes the winner of every
   `half` sums. `signs` [ceil(rounds / LANES)][width][LANES], `scratch` [width * LANES]. */
CLONES void ndml_btsp_encode(const int16_t *vectors, int64_t n, int32_t width, const int16_t *signs, int32_t rounds, int32_t half,
                             int16_t *scratch, int32_t *codes) {
    const int32_t blocks = width / half;
    h16 *x = (h16 *)scratch;
    for (int64_t i = 0; i < n; i++)
        for (int32_t first = 0; first < rounds; first += LANES) {
            const h16 *s = (const h16 *)(signs + (ptrdiff_t)first * width);
            const int32_t lanes = rounds - first < LANES ? rounds - first : LANES;
            for (int32_t j = 0; j < width; j++) x[j] = s[j] * vectors[i * width + j];
            transform(x, width);
            for (int32_t b = 0; b < blocks; b++) {
                h16 who = winner(x + b * half, half);
                for (int32_t r = 0; r < lanes; r++) {
                    const int64_t block = (int64_t)(first + r) * blocks + b;
                    codes[i * rounds * blocks + block] = (int32_t)(block * 2 * half + who[r]);
                }
            }
        }
}
