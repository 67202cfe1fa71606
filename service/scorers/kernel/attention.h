// One head of self-attention, in float32.
#pragma once

#include <math.h>

#include "simd.h"

enum { QUERY_ROWS = 6 }; // queries at a time: 12 sums, 2 keys or values, 1 query or weight

// exp(x), x <= 0; relative error 1e-7. A fit of 2^f on [-1/2, 1/2].
INLINE Floats exponential(Floats x) {
    Floats y = larger(mul(x, all(1.44269504f)), all(-126));
    Floats whole = nearest(y);
    Floats f = sub(y, whole);
    Floats p = all(0.0013276472f);
    p = mul_add(p, f, all(0.0096755419f));
    p = mul_add(p, f, all(0.055507130f));
    p = mul_add(p, f, all(0.24022120f));
    p = mul_add(p, f, all(0.69314694f));
    p = mul_add(p, f, all(1));
    return times_power_of_2(p, whole);
}

// Rounds up to whole vectors: attention's rows of keys are padded to that.
INLINE int64_t whole_vectors(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

// Scores of `vectors` vectors of keys for `rows` queries; both are known to the compiler.
INLINE void compare(
    const int rows, const int vectors, const float *queries, int64_t hidden,
    const float *keys_across, int64_t width, int64_t padded, float *weights
) {
    Floats dots[QUERY_ROWS][2];
#pragma GCC unroll 6
    for (int row = 0; row < rows; row++) dots[row][0] = dots[row][1] = all(0);
    for (int64_t i = 0; i < width; i++, keys_across += padded) {
        Floats first = load(keys_across), second = vectors == 2 ? load(keys_across + LANES) : first;
#pragma GCC unroll 6
        for (int row = 0; row < rows; row++) {
            Floats query = all(queries[row * hidden + i]);
            dots[row][0] = mul_add(query, first, dots[row][0]);
            if (vectors == 2) dots[row][1] = mul_add(query, second, dots[row][1]);
        }
    }
#pragma GCC unroll 6
    for (int row = 0; row < rows; row++) {
        store(weights + row * padded, dots[row][0]);
        if (vectors == 2) store(weights + row * padded + LANES, dots[row][1]);
    }
}

// Replaces scores by exp(score - highest) and returns 1 over their sum; beyond length they are 0.
INLINE float exponentiate(float *weights, int64_t length, float scale) {
    const Floats lowest = all(-INFINITY);
    Floats high = lowest, sum = all(0);
    for (int64_t key = 0; key < length; key += LANES)
        high = larger(high, first_lanes(load(weights + key), length - key, lowest));
    const Floats highest = all(largest_of(high));
    for (int64_t key = 0; key < length; key += LANES) {
        Floats e = exponential(mul(sub(load(weights + key), highest), all(scale)));
        e = first_lanes(e, length - key, all(0));
        sum = add(sum, e);
        store(weights + key, e);
    }
    return 1 / sum_of(sum);
}

// Sums of `vectors` vectors of the values, weighted; rows and vectors are known to the compiler.
INLINE void weigh(
    const int rows, const int vectors, const float *weights, int64_t padded, const float *inverse,
    const float *values, int64_t length, int64_t hidden, float *out
) {
    Floats sums[QUERY_ROWS][2];
#pragma GCC unroll 6
    for (int row = 0; row < rows; row++) sums[row][0] = sums[row][1] = all(0);
    for (int64_t key = 0; key < length; key++, values += 2 * hidden) {
        Floats first = load(values), second = vectors == 2 ? load(values + LANES) : first;
#pragma GCC unroll 6
        for (int row = 0; row < rows; row++) {
            Floats weight = all(weights[row * padded + key]);
            sums[row][0] = mul_add(weight, first, sums[row][0]);
            if (vectors == 2) sums[row][1] = mul_add(weight, second, sums[row][1]);
        }
    }
#pragma GCC unroll 6
    for (int row = 0; row < rows; row++) {
        store(out + row * hidden, mul(sums[row][0], all(inverse[row])));
        if (vectors == 2) store(out + row * hidden + LANES, mul(sums[row][1], all(inverse[row])));
    }
}

// One head of one pair for `rows` of its tokens; rows is known to the compiler.
INLINE void attend_rows(
    const int rows, const float *queries, const float *values, const float *keys_across,
    int64_t length, int64_t hidden, int64_t width, float *weights, float *out
) {
    const int64_t padded = whole_vectors(length);
    float inverse[QUERY_ROWS];
    int64_t at = 0;
    for (; at + 2 * LANES <= padded; at += 2 * LANES)
        compare(rows, 2, queries, hidden, keys_across + at, width, padded, weights + at);
    if (at < padded)
        compare(rows, 1, queries, hidden, keys_across + at, width, padded, weights + at);
    for (int row = 0; row < rows; row++)
        inverse[row] = exponentiate(weights + row * padded, length, 1 / sqrtf((float)width));
    at = 0;
    for (; at + 2 * LANES <= width; at += 2 * LANES)
        weigh(rows, 2, weights, padded, inverse, values + at, length, hidden, out + at);
    if (at < width)
        weigh(rows, 1, weights, padded, inverse, values + at, length, hidden, out + at);
}
