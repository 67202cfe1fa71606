// Vectors of 8 floats on a CPU with AVX2 and FMA (Intel from Haswell, AMD from Zen), and with AVX-VNNI
// where the compiler is told so (Intel from Alder Lake, AMD from Zen 5). Without VNNI, values are
// multiplied as int16: the int8 instruction would saturate.

#define LANES 8
#define TILE_ROWS 4

typedef __m256 Floats;
typedef __m256i Ints;

#ifdef __AVXVNNI__
#define GROUP 4 // values of a 32-bit lane
typedef uint8_t Activation;
typedef int8_t Weight;
#else
#define GROUP 2
typedef int16_t Activation, Weight;
#endif

INLINE Floats load(const float *from) { return _mm256_loadu_ps(from); }
INLINE void store(float *to, Floats x) { _mm256_storeu_ps(to, x); }
INLINE Floats all(float x) { return _mm256_set1_ps(x); }
INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
INLINE Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
INLINE Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
INLINE Floats mul_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
INLINE Floats smaller(Floats a, Floats b) { return _mm256_min_ps(a, b); }
INLINE Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }
INLINE Floats nearest(Floats x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// n whole, in [-126, 127]
INLINE Floats times_power_of_2(Floats x, Floats n) {
    Ints exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return mul(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

// The first n lanes of x, and `other` in the rest; n may be above LANES.
INLINE Floats first_lanes(Floats x, long n, Floats other) {
    if (n >= LANES) return x;
    const Ints lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    Ints inside = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lanes);
    return _mm256_blendv_ps(other, x, _mm256_castsi256_ps(inside));
}

#define REDUCE(name, operation) \
    INLINE float name(Floats x) { \
        __m128 y = operation##_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)); \
        y = operation##_ps(y, _mm_movehl_ps(y, y)); \
        return _mm_cvtss_f32(operation##_ss(y, _mm_movehdup_ps(y))); \
    }
REDUCE(sum_of, _mm_add)
REDUCE(smallest_of, _mm_min)
REDUCE(largest_of, _mm_max)
#undef REDUCE

INLINE Floats load_int8(const int8_t *from) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from)));
}

// Rounds x, none below 0, and stores it, at most 255.
INLINE void store_activations(Activation *to, Floats x) {
    Ints whole = _mm256_cvtps_epi32(smaller(x, all(255)));
    __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
#ifdef __AVXVNNI__
    _mm_storel_epi64((__m128i *)to, _mm_packus_epi16(words, words));
#else
    _mm_storeu_si128((__m128i *)to, words);
#endif
}

INLINE Ints no_ints(void) { return _mm256_setzero_si256(); }
INLINE Ints load_ints(const void *from) { return _mm256_loadu_si256(from); }
INLINE void store_ints(Ints *to, Ints x) { _mm256_storeu_si256(to, x); }
INLINE Ints all_ints(int32_t x) { return _mm256_set1_epi32(x); }
INLINE Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }

// sum[i] + a[GROUP i] b[GROUP i] + …, GROUP of them
INLINE Ints dot_add(Ints sum, Ints a, Ints b) {
#ifdef __AVXVNNI__
    return _mm256_dpbusd_avx_epi32(sum, a, b);
#else
    return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
#endif
}

INLINE int cpu_has_it(void) {
    __builtin_cpu_init();
#ifdef __AVXVNNI__
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) || !(eax & 1u << 4)) return 0;
#endif
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
