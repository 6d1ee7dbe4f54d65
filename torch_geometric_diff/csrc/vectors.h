// Vector types of one instruction set (TGD_VECTOR_BYTES) and the rows of a tile in them. For kernel.cpp
// alone: everything has internal linkage, since it is compiled once per instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernel.h"

#define TGD_INLINE inline __attribute__((always_inline))

namespace tgd {
namespace {

constexpr int kBytes = TGD_VECTOR_BYTES;

template <class T>
using Vec __attribute__((vector_size(kBytes))) = T;
template <class T>
using HalfVec __attribute__((vector_size(kBytes / 2))) = T;
template <class T>
constexpr int kLanes = kBytes / static_cast<int>(sizeof(T));
template <class T>
constexpr int kVecs = kBlock / kLanes<T>;  // vectors of a block

template <class V, class T>
TGD_INLINE V load(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class V, class T>
TGD_INLINE void store(T* p, V v) {
  std::memcpy(p, &v, sizeof v);
}

// The sum of the lanes, by halves.
template <class T, int Bytes = kBytes, class V>
TGD_INLINE T sum_lanes(V v) {
  if constexpr (Bytes == 2 * sizeof(T)) {
    return v[0] + v[1];
  } else if constexpr (Bytes == 16) {
    return (v[0] + v[2]) + (v[1] + v[3]);
  } else {
    using Half __attribute__((vector_size(Bytes / 2))) = T;
    const auto* half = reinterpret_cast<const T*>(&v);
    return sum_lanes<T, Bytes / 2>(load<Half>(half) + load<Half>(half + Bytes / 2 / sizeof(T)));
  }
}

// Copies the n < kBlock elements of an incomplete block.
template <class T>
TGD_INLINE void copy_part(T* to, const T* from, int n) {
  for (int size = kBlock / 2; size; size /= 2)
    if (n & size) {
      for (int j = 0; j < size; ++j) to[j] = from[j];
      to += size;
      from += size;
    }
}

template <class T, int B>
TGD_INLINE void load_packed(const T* from, Vec<T>* acc) {
#pragma GCC unroll 32
  for (int v = 0; v < B * kVecs<T>; ++v) acc[v] = load<Vec<T>>(from + v * kLanes<T>);
}

template <class T, int B>
TGD_INLINE void store_packed(T* to, const Vec<T>* acc) {
#pragma GCC unroll 32
  for (int v = 0; v < B * kVecs<T>; ++v) store(to + v * kLanes<T>, acc[v]);
}

// Rows of the feature matrix lie far apart, which hardware does not prefetch.
template <int Write, class T>
TGD_INLINE void prefetch_row(const T* row, int columns) {
  for (int j = 0; j < columns; j += 64 / static_cast<int>(sizeof(T))) __builtin_prefetch(row + j, Write);
  __builtin_prefetch(row + columns - 1, Write);
}

template <class T, int B>
TGD_INLINE void load_row(const T* from, int columns, Vec<T>* acc) {
  const int full = columns / kBlock;
  alignas(kBytes) T part[kBlock] = {};
  if (full < B) copy_part(part, from + full * kBlock, columns % kBlock);
#pragma GCC unroll 4
  for (int b = 0; b < B; ++b) {
    const T* block = b < full ? from + b * kBlock : part;
#pragma GCC unroll 8
    for (int v = 0; v < kVecs<T>; ++v) acc[b * kVecs<T> + v] = load<Vec<T>>(block + v * kLanes<T>);
  }
}

template <class T, int B>
TGD_INLINE void store_row(T* to, int columns, const Vec<T>* acc) {
  const int full = columns / kBlock;
#pragma GCC unroll 4
  for (int b = 0; b < B; ++b) {
    alignas(kBytes) T part[kBlock];
    T* block = b < full ? to + b * kBlock : part;
#pragma GCC unroll 8
    for (int v = 0; v < kVecs<T>; ++v) store(block + v * kLanes<T>, acc[b * kVecs<T> + v]);
    if (b == full) copy_part(to + b * kBlock, part, columns % kBlock);
  }
}

}  // namespace
}  // namespace tgd
