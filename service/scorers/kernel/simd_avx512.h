// Vectors of 16 floats on a CPU with AVX-512 and VNNI (Intel from Ice Lake, AMD from Zen 4).

#define LANES 16
#define TILE_ROWS 8
#define GROUP 4 // values of a 32-bit lane

typedef __m512 Floats;
typedef __m512i Ints;
typedef uint8_t Activation;
typedef int8_t Weight;

INLINE Floats load(const float *from) { return _mm512_loadu_ps(from); }
INLINE void store(float *to, Floats x) { _mm512_storeu_ps(to, x); }
INLINE Floats all(float x) { return _mm512_set1_ps(x); }
INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
INLINE Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
INLINE Floats mul_add(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
INLINE Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
INLINE Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
INLINE Floats nearest(Floats x) { return _mm512_roundscale_ps(x, 0); }
INLINE Floats times_power_of_2(Floats x, Floats n) { return _mm512_scalef_ps(x, n); }

// The first n lanes of x, and `other` in the rest; n may be above LANES.
INLINE Floats first_lanes(Floats x, long n, Floats other) {
    return n >= LANES ? x : _mm512_mask_mov_ps(other, (__mmask16)((1u << n) - 1), x);
}

INLINE float sum_of(Floats x) { return _mm512_reduce_add_ps(x); }
INLINE float smallest_of(Floats x) { return _mm512_reduce_min_ps(x); }
INLINE float largest_of(Floats x) { return _mm512_reduce_max_ps(x); }

INLINE Floats load_int8(const int8_t *from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
}

// Rounds x, none below 0, and stores it, at most 255.
INLINE void store_activations(Activation *to, Floats x) {
    _mm_storeu_si128((__m128i *)to, _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(x)));
}

INLINE Ints no_ints(void) { return _mm512_setzero_si512(); }
INLINE Ints load_ints(const void *from) { return _mm512_loadu_si512(from); }
INLINE void store_ints(Ints *to, Ints x) { _mm512_storeu_si512(to, x); }
INLINE Ints all_ints(int32_t x) { return _mm512_set1_epi32(x); }

// sum[i] + a[4i] b[4i] + … + a[4i+3] b[4i+3]
INLINE Ints dot_add(Ints sum, Ints a, Ints b) { return _mm512_dpbusd_epi32(sum, a, b); }

INLINE Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }

INLINE int cpu_has_it(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}
