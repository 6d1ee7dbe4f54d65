// The inner loops, written in vector extensions of GCC and Clang and compiled once per instruction
// set: CMake defines TGD_LEVEL (name of the table), TGD_LEVEL_NAME and TGD_VECTOR_BYTES.
#include "kernel.h"

#include "dropout.h"
#include "vectors.h"

namespace tgd {
namespace {

constexpr int kPrefetchRows = 8;

// What a loop needs of a step, in registers: stores of T could alias the members of Step.
template <class T, class I>
struct Csr {
  const I *rowptr, *col;
  const T* value;
  const T* source;
  std::int64_t prefetch_end;
};

// Row i of the product; visit(e, row) sees every edge with the row of the source that it brings.
template <class T, class I, int B, class Visit>
TGD_INLINE void accumulate(const Csr<T, I>& m, std::int64_t i, Vec<T>* acc, const Visit& visit) {
  constexpr int width = B * kBlock;
  for (int v = 0; v < B * kVecs<T>; ++v) acc[v] = Vec<T>{};
  const auto add = [&](std::int64_t e) {
    const T* from = m.source + static_cast<std::int64_t>(m.col[e]) * width;
    const T w = m.value[e];
#pragma GCC unroll 32
    for (int v = 0; v < B * kVecs<T>; ++v) acc[v] += w * load<Vec<T>>(from + v * kLanes<T>);
    visit(e, from);
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

// What a row of a step is combined from and given to, beside the product.
template <class T, class I, int B>
struct Combination {
  static constexpr int width = B * kBlock;
  const Step<T, I>& s;
  const std::int64_t first_column = s.tile.first_block * kBlock;

  TGD_INLINE std::int64_t at(std::int64_t i) const {  // row i in a feature matrix
    return (s.original ? static_cast<std::int64_t>(s.original[i]) : i) * s.stride + first_column;
  }

  TGD_INLINE void prefetch(std::int64_t i) const {
    for (int t = 0; t < s.num_terms; ++t)
      if (!s.terms[t].packed) prefetch_row<0>(s.terms[t].from + at(i), s.tile.columns);
    for (int o = 0; o < s.num_sinks; ++o)
      if (s.sinks[o].to) prefetch_row<1>(s.sinks[o].to + at(i), s.tile.columns);
  }

  TGD_INLINE void add(int first, int last, std::int64_t i, Vec<T>* acc) const {
    for (int t = first; t < last; ++t) {
      const Term<T> term = s.terms[t];
      Vec<T> x[B * kVecs<T>];
      if (term.packed) load_packed<T, B>(term.from + i * width, x);
      else load_row<T, B>(term.from + at(i), s.tile.columns, x);
#pragma GCC unroll 32
      for (int v = 0; v < B * kVecs<T>; ++v) acc[v] += term.factor * x[v];
    }
  }

  TGD_INLINE void accumulate_edges(const Csr<T, I>& csr, std::int64_t i, Vec<T>* acc) const {
    Vec<T> u[B * kVecs<T>];
    load_packed<T, B>(s.edge_rows + i * width, u);
    T* edges = s.edges;
    const T scale = s.scale;
    accumulate<T, I, B>(csr, i, acc, [&](std::int64_t e, const T* from) {
      Vec<T> sum{};
#pragma GCC unroll 32
      for (int v = 0; v < B * kVecs<T>; ++v) sum += u[v] * load<Vec<T>>(from + v * kLanes<T>);
      edges[e] += scale * sum_lanes<T>(sum);
    });
  }

  TGD_INLINE void dot(bool of_product, std::int64_t i, const Vec<T>* acc) const {
    for (int t = 0; t < s.num_dots; ++t) {
      if (s.dots[t].of_product != of_product) continue;
      Vec<T> x[B * kVecs<T>];
      load_packed<T, B>(s.dots[t].with + i * width, x);
      T* lanes = s.lanes + t * kBlock;
      Vec<T> sum = load<Vec<T>>(lanes);
#pragma GCC unroll 32
      for (int v = 0; v < B * kVecs<T>; ++v) sum += acc[v] * x[v];
      store(lanes, sum);
    }
  }

  // Adds up in double what a few rows have left in the lanes.
  TGD_INLINE void flush() const {
    for (int t = 0; t < s.num_dots; ++t) {
      T* lanes = s.lanes + t * kBlock;
      double sum = 0;
      for (int j = 0; j < kLanes<T>; ++j) sum += static_cast<double>(lanes[j]);
      s.sums[s.dots[t].sum] += sum;
      store(lanes, Vec<T>{});
    }
  }

  TGD_INLINE void clamp(Vec<T>* acc) const {
    const Vec<T> low = Vec<T>{} + s.low, high = Vec<T>{} + s.high;
#pragma GCC unroll 32
    for (int v = 0; v < B * kVecs<T>; ++v) {  // NaN stays
      acc[v] = acc[v] < low ? low : acc[v];
      acc[v] = acc[v] > high ? high : acc[v];
    }
  }

  TGD_INLINE void give(std::int64_t i, const Vec<T>* acc) const {
    for (int o = 0; o < s.num_sinks; ++o) {
      const Sink<T> sink = s.sinks[o];
      Vec<T> y[B * kVecs<T>];
      if (sink.add) {
        load_packed<T, B>(sink.sum + i * width, y);
#pragma GCC unroll 32
        for (int v = 0; v < B * kVecs<T>; ++v) y[v] += sink.factor * acc[v];
      } else {
#pragma GCC unroll 32
        for (int v = 0; v < B * kVecs<T>; ++v) y[v] = sink.factor * acc[v];
      }
      if (sink.to) store_row<T, B>(sink.to + at(i), s.tile.columns, y);
      else store_packed<T, B>(sink.sum + i * width, y);
    }
  }
};

// The steps of Euler diffusion, as short as they can be, any other one, and one with gradients of edges.
enum Kind { kLoad, kInner, kLast, kAny, kEdges };

template <class T, class I>
Kind kind(const Step<T, I>& s) {
  if (s.edges) return kEdges;
  if (s.bounded || s.num_dots) return kAny;
  if (!s.rowptr)
    return s.num_sinks == 0 && s.num_terms == 1 && !s.terms->packed && s.terms->factor == 1 ? kLoad : kAny;
  if (s.scale != 1 || s.num_terms) return kAny;
  if (s.num_sinks == 0) return kInner;
  return s.num_sinks == 1 && !s.target && !s.sinks->sum && s.sinks->factor == 1 ? kLast : kAny;
}

template <class T, class I, int B, bool Masked, Kind K>
void rows(const Step<T, I>& s) {
  constexpr int width = B * kBlock;
  const Csr<T, I> csr{s.rowptr, s.col, s.value, s.source, s.prefetch_end};
  const Combination<T, I, B> other{s};
  const I* original = s.original;
  const std::int64_t last_row = s.last_row, stride = s.stride;
  const int columns = s.tile.columns;
  T* target = s.target;
  // In a feature matrix: the first column of the tile.
  const T* from = K == kLoad ? s.terms->from + s.tile.first_block * kBlock : nullptr;
  T* to = K == kLast ? s.sinks->to + s.tile.first_block * kBlock : nullptr;
  const auto ignore = [](std::int64_t, const T*) {};
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
      } else if constexpr (K < kAny) {
        if (K == kLast && i + kPrefetchRows < last_row)
          prefetch_row<1>(to + name(i + kPrefetchRows) * stride, columns);
        accumulate<T, I, B>(csr, i, acc, ignore);
      } else {
        if (i + kPrefetchRows < last_row) other.prefetch(i + kPrefetchRows);
        for (int v = 0; v < B * kVecs<T>; ++v) acc[v] = Vec<T>{};
        if constexpr (K == kEdges) other.accumulate_edges(csr, i, acc);
        else if (csr.rowptr) accumulate<T, I, B>(csr, i, acc, ignore);
        other.dot(true, i, acc);
        for (int v = 0; v < B * kVecs<T>; ++v) acc[v] *= s.scale;
        other.add(0, s.product_terms, i, acc);
        if (Masked && !s.mask_target) dropout.apply(r, acc);
        other.add(s.product_terms, s.num_terms, i, acc);
        if (s.bounded) other.clamp(acc);
        other.dot(false, i, acc);
        other.give(i, acc);
        if (!target) continue;
      }
      if (Masked && (K < kAny || s.mask_target)) dropout.apply(r, acc);
      if constexpr (K == kLast) store_row<T, B>(to + name(i) * stride, columns, acc);
      else store_packed<T, B>(target + i * width, acc);
    }
    if constexpr (K >= kAny) other.flush();
  }
}

template <class T, class I, int B, Kind K>
void either(const Step<T, I>& s) {
  s.mask ? rows<T, I, B, true, K>(s) : rows<T, I, B, false, K>(s);
}

template <class T, class I, int B>
void blocks(const Step<T, I>& s) {
  switch (kind(s)) {
    case kLoad: return either<T, I, B, kLoad>(s);
    case kInner: return either<T, I, B, kInner>(s);
    case kLast: return either<T, I, B, kLast>(s);
    case kAny: return either<T, I, B, kAny>(s);
    case kEdges: return either<T, I, B, kEdges>(s);
  }
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
