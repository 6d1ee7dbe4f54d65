// Counter-based dropout of the rows of a tile: the bits of ops/random.py. For kernel.cpp alone.
#pragma once

#include "vectors.h"

namespace tgd {
namespace {

constexpr int kKeyRows = 16;  // rows whose keys are computed together

using Words = Vec<std::uint32_t>;
using Keep = Vec<std::int32_t>;
constexpr int kWordVecs = kVecs<std::uint32_t>;
constexpr std::uint32_t kGolden = 0x9E3779B1u, kMul1 = 0x7feb352du, kMul2 = 0x846ca68bu;

TGD_INLINE std::uint32_t mix32(std::uint32_t h) {
  h ^= h >> 16;
  h *= kMul1;
  h ^= h >> 15;
  h *= kMul2;
  return h ^ (h >> 16);
}

template <class T>
TGD_INLINE Vec<T> scaled_where(const Keep& keep, int part, Vec<T> v, Vec<T> scale) {
  if constexpr (sizeof(T) == 4) {
    return keep ? v * scale : Vec<T>{};
  } else {
    const auto half = load<HalfVec<std::int32_t>>(
        reinterpret_cast<const std::int32_t*>(&keep) + part * kLanes<T>);
    return __builtin_convertvector(half, Vec<std::int64_t>) ? v * scale : Vec<T>{};
  }
}

// Dropout of the rows of a tile in one step.
template <class T, int B>
struct Dropout {
  static constexpr int kPairs = (B + 1) / 2;
  Words counter[kPairs * kWordVecs], threshold;
  Vec<T> scale;
  std::uint32_t key0, key1, row_a[kKeyRows], row_b[kKeyRows];
  int first_shift;  // a tile of one block may start at the high half of its words

  TGD_INLINE Dropout(const Mask& mask, std::int64_t first_block)
      : key0(mask.key0), key1(mask.key1), first_shift(first_block & 1 ? 0 : 16) {
    threshold = Words{} + (mask.threshold << 16);
    scale = Vec<T>{} + static_cast<T>(mask.scale);
    for (int v = 0; v < kPairs * kWordVecs; ++v)
      for (int j = 0; j < kLanes<std::uint32_t>; ++j)
        counter[v][j] = (static_cast<std::uint32_t>(first_block / 2) * kBlock +
                         static_cast<std::uint32_t>(v * kLanes<std::uint32_t> + j)) * kGolden;
  }

  template <class I>
  TGD_INLINE void keys(std::int64_t row, int rows, const I* original) {
    std::uint32_t id[kKeyRows];
    for (int r = 0; r < kKeyRows; ++r)
      id[r] = original ? static_cast<std::uint32_t>(original[row + (r < rows ? r : 0)])
                       : static_cast<std::uint32_t>(row + r);
    for (int r = 0; r < kKeyRows; ++r) row_a[r] = mix32(id[r] ^ key0);
    for (int r = 0; r < kKeyRows; ++r) row_b[r] = mix32(id[r] + key1);
  }

  TGD_INLINE void apply(int r, Vec<T>* acc) const {
    constexpr int parts = static_cast<int>(sizeof(T)) / 4;  // vectors of T for one of words
#pragma GCC unroll 8
    for (int p = 0; p < kPairs; ++p)
#pragma GCC unroll 4
      for (int u = 0; u < kWordVecs; ++u) {
        Words h = counter[p * kWordVecs + u] + row_a[r];
        h ^= h >> 16;
        h *= kMul1;
        h ^= h >> 15;
        h += row_b[r];
        h *= kMul2;
        h ^= h >> 16;
        const Words low = B == 1 ? h << first_shift : h << 16;
        const Keep keep_low = (Keep)(low >= threshold), keep_high = (Keep)(h >= threshold);
        for (int part = 0; part < parts; ++part) {
          Vec<T>& a = acc[2 * p * kVecs<T> + u * parts + part];
          a = scaled_where<T>(keep_low, part, a, scale);
          if (2 * p + 1 < B) {
            Vec<T>& b = acc[(2 * p + 1) * kVecs<T> + u * parts + part];
            b = scaled_where<T>(keep_high, part, b, scale);
          }
        }
      }
  }
};

}  // namespace
}  // namespace tgd
