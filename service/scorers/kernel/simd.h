// The widest vectors that the compiler was told to use, and what is done with them.
#pragma once

#include <cpuid.h>
#include <immintrin.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

#ifdef __AVX512VNNI__
#include "simd_avx512.h"
#else
#include "simd_avx2.h"
#endif
