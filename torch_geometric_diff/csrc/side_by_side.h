// The rows of a slice side by side in whole vectors, so that narrow rows fill them. For kernel.cpp alone.
#pragma once

#include "vectors.h"

#if TGD_VECTOR_BYTES > 16
#include <immintrin.h>
#endif

namespace tgd {
namespace {

constexpr int kWhole = kBytes / static_cast<int>(sizeof(float));
using Whole = VectorOf<float, kWhole>::type;
template <int W>
constexpr int kWholes = kSliceRows * W / kWhole;  // vectors of a slice of rows of W elements

TGD_INLINE const float* at(const float* source, std::int32_t offset, int width) {
  return reinterpret_cast<const float*>(reinterpret_cast<const char*>(source) +
                                        static_cast<std::int64_t>(offset) * width);
}

// As many rows of the source as fill a vector, at `offset` (of Slices).
template <int W>
TGD_INLINE Whole rows_at(const float* source, const std::int32_t* offset) {
  const auto row = [&](int r) { return at(source, offset[r], W); };
  if constexpr (W >= kWhole) return load<Whole>(row(0));
#if TGD_VECTOR_BYTES == 64
  if constexpr (W == 1) return (Whole)_mm512_i32gather_ps(_mm512_loadu_si512(offset), source, 1);
  if constexpr (W == 2) {
    const auto index = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(offset));
    return (Whole)_mm512_i32gather_pd(index, source, 2);
  }
  if constexpr (W == 4) {
    const auto two = [&](int r) {
      return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row(r))), _mm_loadu_ps(row(r + 1)), 1);
    };
    return (Whole)_mm512_insertf32x8(_mm512_castps256_ps512(two(0)), two(2), 1);
  }
  return (Whole)_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(row(0))), _mm256_loadu_ps(row(1)), 1);
#else
  const auto pair = [&](int r) { return load<double>(row(r)); };  // two elements
#if TGD_VECTOR_BYTES == 32
  if constexpr (W == 1) return Whole{*row(0), *row(1), *row(2), *row(3), *row(4), *row(5), *row(6), *row(7)};
  if constexpr (W == 2) return (Whole)_mm256_set_pd(pair(3), pair(2), pair(1), pair(0));
  return (Whole)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row(0))), _mm_loadu_ps(row(1)), 1);
#else
  if constexpr (W == 1) return Whole{*row(0), *row(1), *row(2), *row(3)};
  return (Whole)(VectorOf<double, 2>::type{pair(0), pair(1)});
#endif
#endif
}

// As many values as rows_at brings rows, each W times.
template <int W>
TGD_INLINE Whole spread(const float* value) {
  if constexpr (W >= kWhole) return Whole{} + *value;
  if constexpr (W == 1) return load<Whole>(value);
#if TGD_VECTOR_BYTES == 64
  if constexpr (W == 2) {
    const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    return (Whole)_mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(value)));
  }
  if constexpr (W == 4) {
    const __m512i own = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    return (Whole)_mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(value)), own);
  }
  const __m512i own = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
  return (Whole)_mm512_permutevar_ps(_mm512_castpd_ps(_mm512_set1_pd(load<double>(value))), own);
#elif TGD_VECTOR_BYTES == 32
  if constexpr (W == 2) {
    const __m256i own = _mm256_set_epi32(3, 3, 2, 2, 1, 1, 0, 0);
    return (Whole)_mm256_permutevar_ps(_mm256_broadcast_ps(reinterpret_cast<const __m128*>(value)), own);
  }
  const __m256i own = _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0);
  return (Whole)_mm256_permutevar_ps(_mm256_castpd_ps(_mm256_set1_pd(load<double>(value))), own);
#else
  return Whole{value[0], value[0], value[1], value[1]};
#endif
}

// The product of a slice.
template <bool Ahead, int W>
TGD_INLINE void accumulate_slice(const Slices<float, std::int32_t>& slices, std::int64_t slice, const float* source,
                                 Whole* acc) {
  constexpr int vecs = kWholes<W>, together = vecs < 8 ? vecs : 8, ahead = together * kWhole / W;
  const std::int64_t begin = slices.start[slice], end = slices.start[slice + 1];
  for (int first = 0; first < vecs; first += together) {
    Whole sum[together];  // unrolled loops alone leave it in registers
#pragma GCC unroll 8
    for (int v = 0; v < together; ++v) sum[v] = Whole{};
    for (std::int64_t e = begin + first * kWhole / W; e < end; e += kSliceRows) {
      if constexpr (Ahead)
#pragma GCC unroll 16
        for (int r = 0; r < ahead; ++r) __builtin_prefetch(at(source, slices.offset[e + r + kSliceAhead], W));
#pragma GCC unroll 8
      for (int v = 0; v < together; ++v) {
        const std::int64_t row = e + v * kWhole / W;
        const float* part = source + (W > kWhole ? v * kWhole % W : 0);
        sum[v] += spread<W>(slices.value + row) * rows_at<W>(part, slices.offset + row);
        round_here(sum[v]);
      }
    }
#pragma GCC unroll 8
    for (int v = 0; v < together; ++v) acc[first + v] = sum[v];
  }
}

}  // namespace
}  // namespace tgd
