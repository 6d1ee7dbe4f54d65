// The inner loops, written in vector extensions of GCC and Clang and compiled once per instruction
// set: CMake defines TGD_LEVEL (name of the table), TGD_LEVEL_NAME and TGD_VECTOR_BYTES.
#include "kernel.h"

#include <cstring>

namespace tgd {
namespace {

#define TGD_INLINE inline __attribute__((always_inline))

constexpr int kBytes = TGD_VECTOR_BYTES;
constexpr int kKeyRows = 16;    // rows whose keys are computed together
constexpr int kPrefetchRows = 8;

template <class T>
using Vec __attribute__((vector_size(kBytes))) = T;
template <class T>
using HalfVec __attribute__((vector_size(kBytes / 2))) = T;
template <class T>
constexpr int kLanes = kBytes / static_cast<int>(sizeof(T));
template <class T>
constexpr int kVecs = kBlock / kLanes<T>;  // vectors of a block

using Words = Vec<std::uint32_t>;
using Keep = Vec<std::int32_t>;
constexpr int kWordVecs = kVecs<std::uint32_t>;
constexpr std::uint32_t kGolden = 0x9E3779B1u, kMul1 = 0x7feb352du, kMul2 = 0x846ca68bu;

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

// What a loop needs of a step, in registers: stores of T could alias the members of Step.
template <class T, class I>
struct Csr {
  const I *rowptr, *col;
  const T* value;
  const T* source;
  std::int64_t prefetch_end;
};

template <class T, class I, int B>
TGD_INLINE void accumulate(const Csr<T, I>& m, std::int64_t i, Vec<T>* acc) {
  constexpr int width = B * kBlock;
  for (int v = 0; v < B * kVecs<T>; ++v) acc[v] = Vec<T>{};
  const auto add = [&](std::int64_t e) {
    const T* from = m.source + static_cast<std::int64_t>(m.col[e]) * width;
    const T w = m.value[e];
#pragma GCC unroll 32
    for (int v = 0; v < B * kVecs<T>; ++v) acc[v] += w * load<Vec<T>>(from + v * kLanes<T>);
  };
  std::int64_t e = m.rowptr[i];
  const std::int64_t end = m.rowptr[i + 1];
  if (end <= m.prefetch_end) {
    for (; e < end; ++e) {
      const T* ahead = m.source + static_cast<std::int64_t>(m.col[e + kPrefetchBlocks / B]) * width;
#pragma GCC unroll 8
      for (int line = 0; line < width; line += 64 / static_cast<int>(sizeof(T)))
        __builtin_prefetch(ahead + line);
      add(e);
    }
  } else {
    for (; e < end; ++e) add(e);
  }
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

enum Kind { kLoad, kInner, kLast };

template <class T, class I, int B, bool Masked, Kind K>
void rows(const Step<T, I>& s) {
  constexpr int width = B * kBlock;
  const Csr<T, I> csr{s.rowptr, s.col, s.value, s.source, s.prefetch_end};
  const I* original = s.original;
  const std::int64_t last_row = s.last_row, stride = s.stride;
  const int columns = s.tile.columns;
  // In a feature matrix: the first column of the tile.
  const T* from = s.source + (K == kLoad ? s.tile.first_block * kBlock : 0);
  T* to = s.target + (K == kLast ? s.tile.first_block * kBlock : 0);
  const auto name = [&](std::int64_t i) -> std::int64_t { return original ? static_cast<std::int64_t>(original[i]) : i; };
  Dropout<T, B> dropout(Masked ? *s.mask : Mask{}, s.tile.first_block);
  for (std::int64_t i0 = s.first_row; i0 < last_row; i0 += kKeyRows) {
    const int n = static_cast<int>(last_row - i0 < kKeyRows ? last_row - i0 : kKeyRows);
    if constexpr (Masked) dropout.keys(i0, n, original);
    for (int r = 0; r < n; ++r) {
      const std::int64_t i = i0 + r;
      Vec<T> acc[B * kVecs<T>];
      if constexpr (K == kLoad) {
        if (i + kPrefetchRows < last_row) prefetch_row<0>(from + name(i + kPrefetchRows) * stride, columns);
        load_row<T, B>(from + name(i) * stride, columns, acc);
      } else {
        if (K == kLast && i + kPrefetchRows < last_row)
          prefetch_row<1>(to + name(i + kPrefetchRows) * stride, columns);
        accumulate<T, I, B>(csr, i, acc);
      }
      if constexpr (Masked) dropout.apply(r, acc);
      if constexpr (K == kLast) {
        store_row<T, B>(to + name(i) * stride, columns, acc);
      } else {
#pragma GCC unroll 32
        for (int v = 0; v < B * kVecs<T>; ++v) store(to + i * width + v * kLanes<T>, acc[v]);
      }
    }
  }
}

template <class T, class I, int B, Kind K>
void either(const Step<T, I>& s) {
  s.mask ? rows<T, I, B, true, K>(s) : rows<T, I, B, false, K>(s);
}

template <class T, class I, int B>
void blocks(const Step<T, I>& s) {
  if (!s.rowptr) either<T, I, B, kLoad>(s);
  else if (s.last) either<T, I, B, kLast>(s);
  else either<T, I, B, kInner>(s);
}

// The accumulators of a row take at most half of the vector registers.
template <class T>
constexpr int kFit = TGD_REGISTERS / 2 / kVecs<T>;
template <class T>
constexpr int kWidest = kFit<T> < kMaxBlocks ? kFit<T> : kMaxBlocks;

template <class T, class I, int B = kWidest<T>>
void step(const Step<T, I>& s) {
  if constexpr (B > 1)
    if (s.tile.blocks < B) return step<T, I, B - 1>(s);
  blocks<T, I, B>(s);
}

}  // namespace

extern const Level TGD_LEVEL = {TGD_LEVEL_NAME,
                                kWidest<float>,
                                kWidest<double>,
                                step<float, std::int32_t>,
                                step<float, std::int64_t>,
                                step<double, std::int32_t>,
                                step<double, std::int64_t>};

}  // namespace tgd
