// Vector types of one instruction set (TGD_VECTOR_BYTES) and the rows of a tile in them. For what is
// compiled once per instruction set: everything has internal linkage.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernel.h"

#define TGD_INLINE inline __attribute__((always_inline))
#define TGD_LAMBDA __attribute__((always_inline))  // else what it captures may stay in memory

namespace tgd {
namespace {

constexpr int kBytes = TGD_VECTOR_BYTES;

// A vector of n elements; a single one is the element itself.
template <class T, int N>
struct VectorOf {
  using type __attribute__((vector_size(N * sizeof(T)))) = T;
};
template <class T>
struct VectorOf<T, 1> {
  using type = T;
};

// The row of a tile of W columns: kVecs vectors of kLanes elements.
template <class T, int W>
constexpr int kLanes = W * static_cast<int>(sizeof(T)) < kBytes ? W : kBytes / static_cast<int>(sizeof(T));
template <class T, int W>
constexpr int kVecs = W / kLanes<T, W>;
template <class T, int W>
using Vec = typename VectorOf<T, kLanes<T, W>>::type;

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

// Ends an expression. A compiler may contract a product with this sum or that one, or take the products of
// a loop first and add them up later, but tiles of any width have to be rounded alike.
template <class V>
TGD_INLINE void round_here(V& v) {
#if defined(__x86_64__) || defined(__i386__)
  asm("" : "+x"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#else
  asm("" : "+m"(v));
#endif
}

// sum += factor * v, rounded twice: whether a compiler contracts it depends on what is around.
template <class V, class T>
TGD_INLINE void add_rounded(V& sum, T factor, V v) {
  v *= factor;
  round_here(v);
  sum += v;
  round_here(sum);
}

// The sum of N lanes, by halves.
template <class T, int N, class V>
TGD_INLINE T sum_lanes(V v) {
  if constexpr (N == 1) {
    return v;
  } else if constexpr (N == 2) {
    return v[0] + v[1];
  } else if constexpr (N == 4) {
    return (v[0] + v[2]) + (v[1] + v[3]);
  } else {
    using Half = typename VectorOf<T, N / 2>::type;
    const auto* half = reinterpret_cast<const T*>(&v);
    return sum_lanes<T, N / 2>(load<Half>(half) + load<Half>(half + N / 2));
  }
}

template <class T, int W>
TGD_INLINE void load_packed(const T* from, Vec<T, W>* acc) {
#pragma GCC unroll 32
  for (int v = 0; v < kVecs<T, W>; ++v) acc[v] = load<Vec<T, W>>(from + v * kLanes<T, W>);
}

template <class T, int W>
TGD_INLINE void store_packed(T* to, const Vec<T, W>* acc) {
#pragma GCC unroll 32
  for (int v = 0; v < kVecs<T, W>; ++v) store(to + v * kLanes<T, W>, acc[v]);
}

// Rows of the feature matrix lie far apart, which hardware does not prefetch.
template <int Write, class T>
TGD_INLINE void prefetch_row(const T* row, int columns) {
  for (int j = 0; j < columns; j += 64 / static_cast<int>(sizeof(T))) __builtin_prefetch(row + j, Write);
  __builtin_prefetch(row + columns - 1, Write);
}

// Copies the n < Size elements of an incomplete block.
template <int Size, class T>
TGD_INLINE void copy_part(T* to, const T* from, int n) {
  if constexpr (Size > 1) {
    constexpr int half = Size / 2;
    if (n & half) std::memcpy(to, from, half * sizeof(T));
    copy_part<half>(to + (n & half), from + (n & half), n);
  }
}

// A row of a feature matrix, which may have fewer columns than the tile; blocks are whole or the last.
template <class T, int W>
TGD_INLINE void load_row(const T* from, int columns, Vec<T, W>* acc) {
  constexpr int size = W < kBlock ? W : kBlock, vecs = kVecs<T, W> * size / W;
  const int full = columns / size;
  alignas(kBytes) T part[size] = {};
  if (full < W / size) copy_part<size>(part, from + full * size, columns % size);
#pragma GCC unroll 4
  for (int b = 0; b < W / size; ++b) {
    const T* block = b < full ? from + b * size : part;
#pragma GCC unroll 8
    for (int v = 0; v < vecs; ++v) acc[b * vecs + v] = load<Vec<T, W>>(block + v * kLanes<T, W>);
  }
}

template <class T, int W>
TGD_INLINE void store_row(T* to, int columns, const Vec<T, W>* acc) {
  constexpr int size = W < kBlock ? W : kBlock, vecs = kVecs<T, W> * size / W;
  const int full = columns / size;
#pragma GCC unroll 4
  for (int b = 0; b < W / size; ++b) {
    alignas(kBytes) T part[size];
    T* block = b < full ? to + b * size : part;
#pragma GCC unroll 8
    for (int v = 0; v < vecs; ++v) store(block + v * kLanes<T, W>, acc[b * vecs + v]);
    if (b == full) copy_part<size>(to + b * size, part, columns % size);
  }
}

}  // namespace
}  // namespace tgd
