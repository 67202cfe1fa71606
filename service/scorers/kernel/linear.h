// Linear maps in int8: exact dot products of uint8 activations and int8 weights.
#pragma once

#include <math.h>
#include <string.h>

#include "simd.h"

// The sums of TILE_ROWS tokens by TILE_VECTORS vectors of output channels are in registers at a time,
// with as many weights and an activation.
#define TILE_VECTORS 3
#define PANEL (LANES * TILE_VECTORS)

// y = x W + b. Weights lie in panels of output channels, [N/PANEL][K/GROUP][PANEL][GROUP], N rounded
// up to whole panels.
typedef struct {
    const Weight *weights;
    const float *scales;        // [N rounded up]
    const float *column_sums;   // of the weights, scales applied, [N rounded up]
    const float *bias;          // [N rounded up]
    int64_t inputs, outputs;    // K, N
} Linear;

// Rows of uint8, each `scale * value + low`.
typedef struct {
    Activation *values; // [rows, K]
    float *scales;   // [rows]
    float *lows;     // [rows]
} Quantised;

// x Φ(x), absolute error 2.5e-5: Φ(t) - 1/2 = t P(2 t²/4.5² - 1), a minimax fit on |t| <= 4.5.
INLINE Floats gelu(Floats x) {
    static const float fit[] = {0.15690513f,   -0.077190697f, 0.054688338f,  -0.040163174f,
                                0.028415911f,  -0.018780135f, 0.010978649f,  -0.0056399461f,
                                0.0033573273f, -0.0021351522f, 0.00067418412f};
    Floats t = smaller(larger(x, all(-4.5f)), all(4.5f));
    Floats u = mul_add(mul(t, t), all(2 / (4.5f * 4.5f)), all(-1));
    Floats p = all(fit[10]);
#pragma GCC unroll 10
    for (int i = 9; i >= 0; i--) p = mul_add(p, u, all(fit[i]));
    return mul(x, mul_add(t, p, all(0.5f)));
}

// Quantises each row of x [rows, n] to uint8 over its own range; after GELU, in place, where
// `activate` says so.
INLINE void quantise(float *x, int64_t rows, int64_t n, int activate, Quantised to) {
    for (int64_t row = 0; row < rows; row++, x += n) {
        Floats low = all(INFINITY), high = all(-INFINITY);
        for (int64_t i = 0; i < n; i += LANES) {
            Floats value = load(x + i);
            if (activate) {
                value = gelu(value);
                store(x + i, value);
            }
            low = smaller(low, value);
            high = larger(high, value);
        }
        const float least = smallest_of(low);
        const float scale = fmaxf((largest_of(high) - least) / 255, 1e-30f);
        const Floats steps = all(1 / scale), lowest = all(least);
        to.scales[row] = scale;
        to.lows[row] = least;
        for (int64_t i = 0; i < n; i += LANES)
            store_activations(to.values + row * n + i, mul(sub(load(x + i), lowest), steps));
    }
}

INLINE Quantised from_row(Quantised x, int64_t row, int64_t n) {
    return (Quantised){x.values + row * n, x.scales + row, x.lows + row};
}

// Dot products of `rows` tokens with one panel of weights; rows is known to the compiler. They go
// through memory to `finish`: with both in one function, registers run out in the inner loop.
INLINE void multiply(
    const int rows, const Activation *values, const Weight *weights, int64_t k, Ints *dots
) {
    Ints sums[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++) sums[row][0] = sums[row][1] = sums[row][2] = no_ints();
    for (int64_t i = 0; i < k; i += GROUP, weights += GROUP * PANEL) {
        Ints first = load_ints(weights), second = load_ints(weights + GROUP * LANES),
             third = load_ints(weights + 2 * GROUP * LANES);
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) {
            int32_t group;
            memcpy(&group, values + row * k + i, sizeof group);
            Ints some = all_ints(group);
            sums[row][0] = dot_add(sums[row][0], some, first);
            sums[row][1] = dot_add(sums[row][1], some, second);
            sums[row][2] = dot_add(sums[row][2], some, third);
        }
    }
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 3
        for (int v = 0; v < TILE_VECTORS; v++) store_ints(dots + row * TILE_VECTORS + v, sums[row][v]);
}

// Scales the dot products of `rows` tokens with the panel at `column` into y [rows, N].
static __attribute__((noinline)) void finish(
    const Linear *linear, int64_t column, Quantised x, int64_t rows, const Ints *dots, float *y
) {
    for (int v = 0; v < TILE_VECTORS; v++) {
        const int64_t at = column + v * LANES;
        if (at >= linear->outputs) break;
        Floats scales = load(linear->scales + at), bias = load(linear->bias + at);
        Floats column_sums = load(linear->column_sums + at);
        for (int64_t row = 0; row < rows; row++) {
            Floats from_low = mul_add(all(x.lows[row]), column_sums, bias);
            Floats steps = mul(to_floats(dots[row * TILE_VECTORS + v]), all(x.scales[row]));
            store(y + row * linear->outputs + at, mul_add(steps, scales, from_low));
        }
    }
}

// y [rows, N] = x [rows, K] W + b
static void apply(const Linear *linear, Quantised x, int64_t rows, float *y) {
    const int64_t k = linear->inputs, n = linear->outputs;
    Ints dots[TILE_ROWS * TILE_VECTORS];
    for (int64_t column = 0; column < n; column += PANEL) {
        const Weight *weights = linear->weights + column * k;
        for (int64_t row = 0; row < rows; row += TILE_ROWS) {
            const int64_t some = rows - row < TILE_ROWS ? rows - row : TILE_ROWS;
            const Quantised part = from_row(x, row, k);
#define MULTIPLY(height) case height: multiply(height, part.values, weights, k, dots); break
            switch (some) {
#if TILE_ROWS > 4
                MULTIPLY(8);
                MULTIPLY(7);
                MULTIPLY(6);
                MULTIPLY(5);
#endif
                MULTIPLY(4);
                MULTIPLY(3);
                MULTIPLY(2);
                MULTIPLY(1);
            }
#undef MULTIPLY
            finish(linear, column, part, some, dots, y + row * n);
        }
    }
}
