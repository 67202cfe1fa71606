// Linear maps in int8: exact dot products of uint8 activations and int8 weights.
#pragma once

#include <math.h>
#include <string.h>

#include "simd.h"

enum {
    TILE_ROWS = 8,    // tokens whose sums are in registers at a time, by
    TILE_VECTORS = 3, // vectors of output channels: 24 sums, 3 weights, 1 activation
    PANEL = LANES * TILE_VECTORS
};

// y = x W + b. Weights in panels of 48 output channels, [N/48][K/4][48][4], N rounded up to 48.
typedef struct {
    const int8_t *weights;
    const float *scales;        // [N rounded up]
    const float *column_sums;   // of the weights, scales applied, [N rounded up]
    const float *bias;          // [N rounded up]
    int64_t inputs, outputs;    // K, N
} Linear;

// Rows of uint8, each `scale * value + low`.
typedef struct {
    uint8_t *values; // [rows, K]
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
            store_uint8(to.values + row * n + i, mul(sub(load(x + i), lowest), steps));
    }
}

INLINE Quantised from_row(Quantised x, int64_t row, int64_t n) {
    return (Quantised){x.values + row * n, x.scales + row, x.lows + row};
}

// `rows` tokens times one panel of output channels; rows is known to the compiler.
INLINE void tile(const int rows, const Linear *linear, int64_t column, Quantised x, float *y) {
    const int64_t k = linear->inputs;
    const int8_t *weights = linear->weights + column * k;
    Ints sums[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 8
    for (int row = 0; row < rows; row++)
        sums[row][0] = sums[row][1] = sums[row][2] = no_ints();
    for (int64_t i = 0; i < k; i += 4, weights += 4 * PANEL) {
        Ints first = load_ints(weights), second = load_ints(weights + 4 * LANES),
             third = load_ints(weights + 8 * LANES);
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) {
            int32_t four;
            memcpy(&four, x.values + row * k + i, sizeof four);
            Ints values = all_ints(four);
            sums[row][0] = dot_add(sums[row][0], values, first);
            sums[row][1] = dot_add(sums[row][1], values, second);
            sums[row][2] = dot_add(sums[row][2], values, third);
        }
    }
#pragma GCC unroll 3
    for (int v = 0; v < TILE_VECTORS; v++) {
        const int64_t at = column + v * LANES;
        if (at >= linear->outputs) break;
        Floats scales = load(linear->scales + at), bias = load(linear->bias + at);
        Floats column_sums = load(linear->column_sums + at);
#pragma GCC unroll 8
        for (int row = 0; row < rows; row++) {
            Floats from_low = mul_add(all(x.lows[row]), column_sums, bias);
            Floats dots = mul(to_floats(sums[row][v]), all(x.scales[row]));
            store(y + row * linear->outputs + at, mul_add(dots, scales, from_low));
        }
    }
}

// y [rows, N] = x [rows, K] W + b
static void apply(const Linear *linear, Quantised x, int64_t rows, float *y) {
    const int64_t k = linear->inputs, n = linear->outputs;
    for (int64_t column = 0; column < n; column += PANEL) {
        int64_t row = 0;
#define TILE(height) tile(height, linear, column, from_row(x, row, k), y + row * n)
        for (; row + TILE_ROWS <= rows; row += TILE_ROWS) TILE(TILE_ROWS);
        switch (rows - row) {
            case 7: TILE(7); break;
            case 6: TILE(6); break;
            case 5: TILE(5); break;
            case 4: TILE(4); break;
            case 3: TILE(3); break;
            case 2: TILE(2); break;
            case 1: TILE(1); break;
        }
#undef TILE
    }
}
