// Counter-based dropout of the rows of a tile: the bits of ops/random.py. For kernel.cpp alone.
#pragma once

#include "vectors.h"

namespace tgd {
namespace {

constexpr int kKeyRows = 16;  // rows whose keys are computed together
constexpr std::uint32_t kGolden = 0x9E3779B1u, kMul1 = 0x7feb352du, kMul2 = 0x846ca68bu;

template <class W>
TGD_INLINE W mix32(W h) {
  h ^= h >> 16;
  h *= kMul1;
  h ^= h >> 15;
  h *= kMul2;
  return h ^ (h >> 16);
}

// Dropout of the rows of a tile in one step. A word serves a column and the one kBlock further: both are in
// a tile of 2 * kBlock columns or more, one in a narrower one, which may start anywhere in its words.
template <class T, int W>
struct Dropout {
  static constexpr int kWords = W < kBlock ? W : kBlock, kPairs = W > kBlock ? W / 2 / kBlock : 1;
  using Words = Vec<std::uint32_t, kWords>;
  using Keep = Vec<std::int32_t, kWords>;
  using V = Vec<T, W>;
  static constexpr int kWordLanes = kLanes<std::uint32_t, kWords>, kWordVecs = kVecs<std::uint32_t, kWords>;
  using Names = Vec<std::uint32_t, kKeyRows>;
  static constexpr int kNames = kLanes<std::uint32_t, kKeyRows>;
  static constexpr int kParts = kWordLanes / kLanes<T, W>;  // vectors of T for one of words

  Words counter[kPairs * kWordVecs], threshold;
  V scale;
  std::uint32_t key0, key1, row_a[kKeyRows], row_b[kKeyRows];
  int first_shift;

  TGD_INLINE Dropout(const Mask& mask, std::int64_t first)
      : key0(mask.key0), key1(mask.key1), first_shift(first & kBlock ? 0 : 16) {
    threshold = Words{} + (mask.threshold << 16);
    scale = V{} + static_cast<T>(mask.scale);
    const auto word = static_cast<std::uint32_t>(first / (2 * kBlock) * kBlock + first % kBlock);
    for (int v = 0; v < kPairs * kWordVecs; ++v) {
      std::uint32_t lanes[kWordLanes];
      for (int j = 0; j < kWordLanes; ++j) lanes[j] = (word + static_cast<std::uint32_t>(v * kWordLanes + j)) * kGolden;
      counter[v] = load<Words>(lanes);
    }
  }

  // Rows that are named `first` and on.
  TGD_INLINE void keys(std::int64_t first) {
    Names names;
    for (int j = 0; j < kNames; ++j) names[j] = static_cast<std::uint32_t>(j);
    names += static_cast<std::uint32_t>(first);
    for (int r = 0; r < kKeyRows; r += kNames, names += kNames) hash(r, names);
  }

  // id(r) names row r of `rows`. The names do not go through memory, where a vector has to wait for its elements.
  template <class Id>
  TGD_INLINE void keys(int rows, const Id& id) {
    for (int r = 0; r < kKeyRows; r += kNames) {
      Names names;
#pragma GCC unroll 16
      for (int j = 0; j < kNames; ++j) names[j] = static_cast<std::uint32_t>(id(r + j < rows ? r + j : 0));
      hash(r, names);
    }
  }

  TGD_INLINE void hash(int r, Names names) {
    store(row_a + r, mix32(names ^ key0));
    store(row_b + r, mix32(names + key1));
  }

  TGD_INLINE V scaled_where(const Keep& keep, int part, V v) const {
    if constexpr (sizeof(T) == 4 || kLanes<T, W> == 1) {
      return keep ? v * scale : V{};
    } else {
      using Few = typename VectorOf<std::int32_t, kLanes<T, W>>::type;
      using Mask64 = typename VectorOf<std::int64_t, kLanes<T, W>>::type;
      const auto few = load<Few>(reinterpret_cast<const std::int32_t*>(&keep) + part * kLanes<T, W>);
      return __builtin_convertvector(few, Mask64) ? v * scale : V{};
    }
  }

  TGD_INLINE void apply(int r, V* acc) const {
    constexpr int block = kWordVecs * kParts;  // vectors of kBlock columns
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
        const Words low = W <= kBlock ? h << first_shift : h << 16;
        const Keep keep_low = (Keep)(low >= threshold), keep_high = (Keep)(h >= threshold);
#pragma GCC unroll 4
        for (int part = 0; part < kParts; ++part) {
          V& a = acc[2 * p * block + u * kParts + part];
          a = scaled_where(keep_low, part, a);
          if constexpr (W > kBlock) {
            V& b = acc[(2 * p + 1) * block + u * kParts + part];
            b = scaled_where(keep_high, part, b);
          }
        }
      }
  }
};

}  // namespace
}  // namespace tgd
