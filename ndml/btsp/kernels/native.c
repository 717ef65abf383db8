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

/* Bit-sliced sums over the rows of `code`; silent blocks (-1) add nothing. Writes max(4, bits of the count) planes, returns how many. */
static inline __attribute__((always_inline)) int sum_rows(const uint64_t *synapses, ptrdiff_t words, const int32_t *code, int32_t units,
                                                           const uint64_t *zeros, uint64_t *planes) {
    const uint64_t *rows[UNITS + GROUP];
    int32_t count = 0;
    for (int32_t i = 0; i < units; i++)
        if (code[i] >= 0) rows[count++] = synapses + (ptrdiff_t)code[i] * words;
    int used = bits_of(count);
    if (used < 4) used = 4;
    for (int32_t k = count; k % GROUP; k++) rows[k] = zeros;
    memset(planes, 0, sizeof(uint64_t) * (size_t)words * (size_t)used);
    for (int32_t i = 0; i < count; i += GROUP) add_group(rows + i, planes, words, used - 4);
    return used;
}

static inline __attribute__((always_inline)) uint32_t sum_at(const uint64_t *planes, int used, ptrdiff_t words, ptrdiff_t w, int bit) {
    uint32_t value = 0;
    for (int p = 0; p < used; p++) value |= (uint32_t)(planes[p * words + w] >> bit & 1) << p;
    return value;
}

/* Sums [n, words * 64]. `zeros` [words], all off; `planes` [PLANES * words]. */
CLONES void btsp_sums(const uint64_t *synapses, int64_t words, const int32_t *codes, int64_t n, int32_t units, const uint64_t *zeros,
                           uint64_t *planes, uint16_t *sums) {
    for (int64_t i = 0; i < n; i++) {
        int used = sum_rows(synapses, words, codes + i * units, units, zeros, planes);
        uint16_t *mine = sums + i * words * 64;
        for (ptrdiff_t w = 0; w < words; w++)
            for (int bit = 0; bit < 64; bit++) mine[w * 64 + bit] = (uint16_t)sum_at(planes, used, words, w, bit);
    }
}

/* Splits the neurons by the k-th largest sum: `above` has those beyond it, `level` those equal to it. A binary search down the planes. */
static inline __attribute__((always_inline)) void split(const uint64_t *planes, int used, ptrdiff_t words, int32_t k, uint64_t *above,
                                                         uint64_t *level) {
    memset(above, 0, sizeof(uint64_t) * (size_t)words);
    memset(level, 0xff, sizeof(uint64_t) * (size_t)words);
    for (int p = used - 1; p >= 0; p--) {
        const uint64_t *plane = planes + p * words;
        int64_t reach = 0;
        for (ptrdiff_t w = 0; w < words; w++) reach += __builtin_popcountll((level[w] & plane[w]) | above[w]);
        if (reach >= k)
            for (ptrdiff_t w = 0; w < words; w++) level[w] &= plane[w];
        else
            for (ptrdiff_t w = 0; w < words; w++) above[w] |= level[w] & plane[w], level[w] &= ~plane[w];
    }
}

/* Takes the neurons of `from`, lowest first, until `k` are `taken`; keeps them by falling sum. */
static inline __attribute__((always_inline)) int32_t take(const uint64_t *from, const uint64_t *planes, int used, ptrdiff_t words,
                                                           int32_t k, int32_t taken, int32_t *neurons, int32_t *sums) {
    for (ptrdiff_t w = 0; w < words && taken < k; w++)
        for (uint64_t rest = from[w]; rest && taken < k; rest &= rest - 1) {
            int bit = __builtin_ctzll(rest);
            int32_t sum = (int32_t)sum_at(planes, used, words, w, bit), at = taken++;
            for (; at && sums[at - 1] < sum; at--) sums[at] = sums[at - 1], neurons[at] = neurons[at - 1];
            sums[at] = sum, neurons[at] = (int32_t)(w * 64 + bit);
        }
    return taken;
}

/* The k largest sums of every code and their neurons, [n, k]. `zeros` [words]; `scratch` [(PLANES + 2) * words]. */
CLONES void btsp_strongest(const uint64_t *synapses, int64_t words, const int32_t *codes, int64_t n, int32_t units, int32_t k,
                                const uint64_t *zeros, uint64_t *scratch, int32_t *neurons, int32_t *sums) {
    uint64_t *above = scratch + PLANES * words, *level = above + words;
    for (int64_t i = 0; i < n; i++, neurons += k, sums += k) {
        int used = sum_rows(synapses, words, codes + i * units, units, zeros, scratch);
        split(scratch, used, words, k, above, level);
        int32_t taken = take(above, scratch, used, words, k, 0, neurons, sums);
        take(level, scratch, used, words, k, taken, neurons, sums);
    }
}

static uint64_t splitmix64(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ull;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBull;
    return value ^ (value >> 31);
}

static int64_t draw(uint64_t seed, int32_t turn, int64_t first, int64_t end) {
    uint64_t random = splitmix64(seed + ((uint64_t)turn + 1) * 0x9E3779B97F4A7C15ull);
    return first + (int64_t)((random >> 32) * (uint64_t)(end - first) >> 32);
}

/* Plateau p of a trace potentiates the least loaded of `choices` neurons of its share and depresses one more: up, down [n, plateaus]. */
void btsp_recruit(const uint64_t *keys, int64_t n, int32_t *load, int64_t neurons, int32_t plateaus, int32_t choices, int32_t *up,
                       int32_t *down) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t seed = splitmix64(splitmix64(keys[2 * i]) ^ keys[2 * i + 1]);
        for (int32_t p = 0; p < plateaus; p++) {
            int64_t first = neurons * p / plateaus, end = neurons * (p + 1) / plateaus;
            int32_t turn = p * (choices + 1);
            int64_t chosen = draw(seed, turn, first, end);
            for (int32_t c = 1; c < choices; c++) {
                int64_t other = draw(seed, turn + c, first, end);
                if (load[other] < load[chosen]) chosen = other;
            }
            int64_t lost = draw(seed, turn + choices, first, end);
            if (lost == chosen) lost = first + (chosen + 1 - first) % (end - first);
            load[chosen]++;
            *up++ = (int32_t)chosen;
            *down++ = (int32_t)lost;
        }
    }
}

static inline __attribute__((always_inline)) void change(uint64_t *row, int32_t neuron, int on, int flip) {
    if (neuron < 0) return;
    uint64_t bit = (uint64_t)1 << (neuron & 63), *word = row + (neuron >> 6);
    *word = flip ? *word ^ bit : on ? *word | bit : *word & ~bit;
}

/* One-shot plasticity, in order: on the active rows of code i, neurons up [n, ups] are set and down [n, downs] cleared, or both flipped. */
void btsp_store(uint64_t *synapses, int64_t words, const int32_t *codes, int64_t n, int32_t units, const int32_t *up, int32_t ups,
                     const int32_t *down, int32_t downs, int32_t flip) {
    for (int64_t i = 0; i < n; i++, up += ups, down += downs)
        for (int32_t u = 0; u < units; u++) {
            if (codes[i * units + u] < 0) continue;
            uint64_t *row = synapses + (int64_t)codes[i * units + u] * words;
            for (int32_t j = 0; j < ups; j++) change(row, up[j], 1, flip);
            for (int32_t j = 0; j < downs; j++) change(row, down[j], 0, flip);
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
CLONES void btsp_encode(const int16_t *vectors, int64_t n, int32_t width, const int16_t *signs, int32_t rounds, int32_t half,
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
