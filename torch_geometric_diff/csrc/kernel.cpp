// The inner loops, written in vector extensions of GCC and Clang and compiled once per instruction
// set: CMake defines TGD_LEVEL (name of the table), TGD_LEVEL_NAME and TGD_VECTOR_BYTES.
#include "kernel.h"

#include <cstring>

namespace tgd {
namespace {

#define TGD_INLINE inline __attribute__((always_inline))

constexpr int kBytes = TGD_VECTOR_BYTES;
constexpr int kKeyRows = 16;    // rows whose keys are computed together
constexpr int kPrefetch = 16;   // edges that a prefetch runs ahead

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

template <class T, class I, int B>
TGD_INLINE void accumulate(const Step<T, I>& s, std::int64_t i, Vec<T>* acc) {
  constexpr int width = B * kBlock;
  for (int v = 0; v < B * kVecs<T>; ++v) acc[v] = Vec<T>{};
  for (std::int64_t e = s.rowptr[i], end = s.rowptr[i + 1]; e < end; ++e) {
    if (e < s.prefetch_end) {
      const char* ahead =
          reinterpret_cast<const char*>(s.source + static_cast<std::int64_t>(s.col[e + kPrefetch]) * width);
      for (int line = 0; line < width * static_cast<int>(sizeof(T)); line += 64)
        __builtin_prefetch(ahead + line);
    }
    const Vec<T> w = Vec<T>{} + s.value[e];
    const T* from = s.source + static_cast<std::int64_t>(s.col[e]) * width;
#pragma GCC unroll 32
    for (int v = 0; v < B * kVecs<T>; ++v)
      acc[v] += w * load<Vec<T>>(from + v * kLanes<T>);
  }
}

template <class T, class I, int B>
TGD_INLINE void load_row(const Step<T, I>& s, std::int64_t row, Vec<T>* acc) {
  const T* from = s.source + row * s.stride + s.tile.first_block * kBlock;
  alignas(kBytes) T part[kBlock] = {};
  const int full = s.tile.columns / kBlock;
  copy_part(part, from + full * kBlock, s.tile.columns % kBlock);
  for (int b = 0; b < B; ++b) {
    const T* block = b < full ? from + b * kBlock : part;
    for (int v = 0; v < kVecs<T>; ++v)
      acc[b * kVecs<T> + v] = load<Vec<T>>(block + v * kLanes<T>);
  }
}

template <class T, class I, int B>
TGD_INLINE void store_row(const Step<T, I>& s, std::int64_t row, const Vec<T>* acc) {
  T* to = s.target + row * s.stride + s.tile.first_block * kBlock;
  const int full = s.tile.columns / kBlock;
  for (int b = 0; b < B; ++b) {
    alignas(kBytes) T part[kBlock];
    T* block = b < full ? to + b * kBlock : part;
    for (int v = 0; v < kVecs<T>; ++v) store(block + v * kLanes<T>, acc[b * kVecs<T> + v]);
    if (b == full) copy_part(to + b * kBlock, part, s.tile.columns % kBlock);
  }
}

template <class T, class I, int B, bool Masked, bool Load>
void rows(const Step<T, I>& s) {
  Dropout<T, B> dropout(Masked ? *s.mask : Mask{}, s.tile.first_block);
  for (std::int64_t i0 = s.first_row; i0 < s.last_row; i0 += kKeyRows) {
    const int n = static_cast<int>(s.last_row - i0 < kKeyRows ? s.last_row - i0 : kKeyRows);
    if constexpr (Masked) dropout.keys(i0, n, s.original);
    for (int r = 0; r < n; ++r) {
      const std::int64_t i = i0 + r, row = s.original ? static_cast<std::int64_t>(s.original[i]) : i;
      Vec<T> acc[B * kVecs<T>];
      if constexpr (Load)
        load_row<T, I, B>(s, row, acc);
      else
        accumulate<T, I, B>(s, i, acc);
      if constexpr (Masked) dropout.apply(r, acc);
      if (!Load && s.last) {
        store_row<T, I, B>(s, row, acc);
      } else {
        for (int v = 0; v < B * kVecs<T>; ++v)
          store(s.target + i * (B * kBlock) + v * kLanes<T>, acc[v]);
      }
    }
  }
}

template <class T, class I, int B>
void blocks(const Step<T, I>& s) {
  if (s.rowptr)
    s.mask ? rows<T, I, B, true, false>(s) : rows<T, I, B, false, false>(s);
  else
    s.mask ? rows<T, I, B, true, true>(s) : rows<T, I, B, false, true>(s);
}

template <class T, class I>
void step(const Step<T, I>& s) {
  switch (s.tile.blocks) {
    case 1: return blocks<T, I, 1>(s);
    case 2: return blocks<T, I, 2>(s);
    case 3: return blocks<T, I, 3>(s);
    default: return blocks<T, I, 4>(s);
  }
}

// Accumulators take at most half of the vector registers.
constexpr int kRegisters = TGD_REGISTERS / 2;
template <class T>
constexpr int kWidest = kRegisters / kVecs<T> < kMaxBlocks ? kRegisters / kVecs<T> : kMaxBlocks;

}  // namespace

extern const Level TGD_LEVEL = {TGD_LEVEL_NAME,
                                kWidest<float>,
                                kWidest<double>,
                                step<float, std::int32_t>,
                                step<float, std::int64_t>,
                                step<double, std::int32_t>,
                                step<double, std::int64_t>};

}  // namespace tgd
