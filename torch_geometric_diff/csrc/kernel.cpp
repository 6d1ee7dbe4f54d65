// The inner loops, written in vector extensions of GCC and Clang and compiled once per instruction
// set: CMake defines TGD_LEVEL (name of the table), TGD_LEVEL_NAME and TGD_VECTOR_BYTES.
#include "kernel.h"

#include <type_traits>

#include "dropout.h"
#include "side_by_side.h"
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
  const I *row, *place;  // of slices
};

// Row i of the product; visit(e, row) sees every edge with the row of the source that it brings.
template <bool Placed, class T, class I, int W, class Visit>
TGD_INLINE void accumulate(const Csr<T, I>& m, std::int64_t i, Vec<T, W>* acc, const Visit& visit) {
  const auto row_at = [&](std::int64_t e) {
    return m.source + static_cast<std::int64_t>(Placed ? m.place[m.col[e]] : m.col[e]) * W;
  };
  if constexpr (Placed) i = m.row[i];
#pragma GCC unroll 32
  for (int v = 0; v < kVecs<T, W>; ++v) acc[v] = Vec<T, W>{};
  const auto add = [&](std::int64_t e) {
    const T* from = row_at(e);
    const T w = m.value[e];
#pragma GCC unroll 32
    for (int v = 0; v < kVecs<T, W>; ++v) {
      acc[v] += w * load<Vec<T, W>>(from + v * kLanes<T, W>);
      if constexpr (W < kBlock) round_here(acc[v]);
    }
    visit(e, from);
  };
  std::int64_t e = m.rowptr[i];
  const std::int64_t end = m.rowptr[i + 1];
  if (end <= m.prefetch_end) {
    for (; e < end; ++e) {
      const T* ahead = row_at(e + prefetch_distance(W));
#pragma GCC unroll 8
      for (int line = 0; line < W; line += 64 / static_cast<int>(sizeof(T))) __builtin_prefetch(ahead + line);
      add(e);
    }
  } else {
    for (; e < end; ++e) add(e);
  }
}

// What a row of a step is combined from and given to, beside the product.
template <class T, class I, int W>
struct Combination {
  static constexpr int vecs = kVecs<T, W>, lanes_of_sum = kLanes<T, W>;
  using V = Vec<T, W>;
  const Step<T, I>& s;

  TGD_INLINE std::int64_t at(std::int64_t i) const {  // row i in a feature matrix
    return (s.original ? static_cast<std::int64_t>(s.original[i]) : i) * s.stride + s.tile.first;
  }

  TGD_INLINE void prefetch(std::int64_t i) const {
    for (int t = 0; t < s.num_terms; ++t)
      if (!s.terms[t].packed) prefetch_row<0>(s.terms[t].from + at(i), s.tile.columns);
    for (int o = 0; o < s.num_sinks; ++o)
      if (s.sinks[o].to) prefetch_row<1>(s.sinks[o].to + at(i), s.tile.columns);
  }

  TGD_INLINE void add(int first, int last, std::int64_t i, V* acc) const {
    for (int t = first; t < last; ++t) {
      const Term<T> term = s.terms[t];
      V x[vecs];
      if (term.packed) load_packed<T, W>(term.from + i * W, x);
      else load_row<T, W>(term.from + at(i), s.tile.columns, x);
#pragma GCC unroll 32
      for (int v = 0; v < vecs; ++v) add_rounded(acc[v], term.factor, x[v]);
    }
  }

  TGD_INLINE void accumulate_edges(const Csr<T, I>& csr, std::int64_t i, V* acc) const {
    V u[vecs];
    load_packed<T, W>(s.edge_rows + i * W, u);
    T* edges = s.edges;
    const T scale = s.scale;
    accumulate<false, T, I, W>(csr, i, acc, [&](std::int64_t e, const T* from) {
      V sum{};
#pragma GCC unroll 32
      for (int v = 0; v < vecs; ++v) sum += u[v] * load<V>(from + v * lanes_of_sum);
      edges[e] += scale * sum_lanes<T, lanes_of_sum>(sum);
    });
  }

  TGD_INLINE void dot(bool of_product, std::int64_t i, const V* acc) const {
    for (int t = 0; t < s.num_dots; ++t) {
      if (s.dots[t].of_product != of_product) continue;
      V x[vecs];
      load_packed<T, W>(s.dots[t].with + i * W, x);
      T* lanes = s.lanes + t * kBlock;
      V sum = load<V>(lanes);
#pragma GCC unroll 32
      for (int v = 0; v < vecs; ++v) sum += acc[v] * x[v];
      store(lanes, sum);
    }
  }

  // Adds up in double what a few rows have left in the lanes.
  TGD_INLINE void flush() const {
    for (int t = 0; t < s.num_dots; ++t) {
      T* lanes = s.lanes + t * kBlock;
      double sum = 0;
      for (int j = 0; j < lanes_of_sum; ++j) sum += static_cast<double>(lanes[j]);
      s.sums[s.dots[t].sum] += sum;
      store(lanes, V{});
    }
  }

  TGD_INLINE void clamp(V* acc) const {
    const V low = V{} + s.low, high = V{} + s.high;
#pragma GCC unroll 32
    for (int v = 0; v < vecs; ++v) {  // NaN stays
      acc[v] = acc[v] < low ? low : acc[v];
      acc[v] = acc[v] > high ? high : acc[v];
    }
  }

  TGD_INLINE void give(std::int64_t i, const V* acc) const {
    for (int o = 0; o < s.num_sinks; ++o) {
      const Sink<T> sink = s.sinks[o];
      V y[vecs] = {};
      if (sink.add) load_packed<T, W>(sink.sum + i * W, y);
#pragma GCC unroll 32
      for (int v = 0; v < vecs; ++v) add_rounded(y[v], sink.factor, acc[v]);
      if (sink.to) store_row<T, W>(sink.to + at(i), s.tile.columns, y);
      else store_packed<T, W>(sink.sum + i * W, y);
    }
  }
};

// The steps of Euler diffusion, as short as they can be; those that add a term, or are added to a sum; those
// of few terms, any other one, and one with gradients of edges.
enum Kind { kLoad, kInner, kLast, kTerm, kSum, kFew, kAny, kEdges };

// What most steps are combined from and given to: little enough to be held in registers. It takes as many
// elements from row i on as there are in `vecs` vectors.
template <class T, class I, int W, Kind K, class V = Vec<T, W>, int vecs = kVecs<T, W>>
struct Few {
  static constexpr int lanes = sizeof(V) / sizeof(T);

  static bool holds(const Step<T, I>& s) {
    if (!s.rowptr || s.num_terms > 2 || s.num_sinks > 1 || s.num_dots > 1) return false;
    if (s.mask && !s.mask_target && s.product_terms) return false;
    for (int t = 0; t < s.num_terms; ++t)
      if (!s.terms[t].packed) return false;
    return !s.num_dots || !s.dots->of_product;
  }

  static constexpr bool is_any = K == kFew;  // what the other kinds have is known
  const T *first = nullptr, *second = nullptr, *with = nullptr;
  T *sum = nullptr, *to = nullptr;
  double* dot_sum = nullptr;
  T scale, first_factor{}, second_factor{}, sink_factor{};
  bool is_given = K == kSum, add = K == kSum;
  const bool bounded;
  V low, high, dot{};

  TGD_INLINE explicit Few(const Step<T, I>& s)
      : scale(s.scale), bounded(s.bounded), low(V{} + (bounded ? s.low : -static_cast<T>(__builtin_inf()))),
        high(V{} + (bounded ? s.high : static_cast<T>(__builtin_inf()))) {
    if (s.num_terms) {
      first = s.terms->from;
      first_factor = s.terms->factor;
    }
    if (s.num_terms > 1) {
      second = s.terms[1].from;
      second_factor = s.terms[1].factor;
    }
    if (s.num_sinks) {
      const Sink<T> sink = *s.sinks;
      is_given = true;
      sum = sink.sum;
      to = sink.to ? sink.to + s.tile.first : nullptr;
      sink_factor = sink.factor;
      add = sink.add;
    }
    if (s.num_dots) {
      with = s.dots->with;
      dot_sum = s.sums + s.dots->sum;
    }
  }

  static TGD_INLINE void add_term(const T* from, T factor, std::int64_t i, V* acc) {
#pragma GCC unroll 32
    for (int v = 0; v < vecs; ++v) add_rounded(acc[v], factor, load<V>(from + i * W + v * lanes));
  }

  TGD_INLINE bool has_first() const { return K == kTerm || (is_any && first); }
  TGD_INLINE bool has_second() const { return is_any && second; }
  TGD_INLINE bool has_bounds() const { return K == kTerm || (is_any && bounded); }
  TGD_INLINE bool has_dot() const { return is_any && with; }
  TGD_INLINE bool has_sink() const { return K == kSum || (is_any && is_given); }
  TGD_INLINE T* last() const { return is_any ? to : nullptr; }

  TGD_INLINE void scale_product(V* acc) const {
#pragma GCC unroll 32
    for (int v = 0; v < vecs; ++v) round_here(acc[v] *= scale);
  }

  TGD_INLINE void clamp(V* acc) const {
#pragma GCC unroll 32
    for (int v = 0; v < vecs; ++v) {  // NaN stays
      acc[v] = acc[v] < low ? low : acc[v];
      acc[v] = acc[v] > high ? high : acc[v];
    }
  }

  TGD_INLINE void multiply(std::int64_t i, const V* acc) {
#pragma GCC unroll 32
    for (int v = 0; v < vecs; ++v) dot += acc[v] * load<V>(with + i * W + v * lanes);
  }

  // What is given to a sum; the last time, the whole sum of a row.
  TGD_INLINE void add_sum(std::int64_t i, const V* acc, V* y) const {
#pragma GCC unroll 32
    for (int v = 0; v < vecs; ++v) {
      y[v] = K == kSum || add ? load<V>(sum + i * W + v * lanes) : V{};
      add_rounded(y[v], sink_factor, acc[v]);
    }
  }

  TGD_INLINE void give(std::int64_t i, const V* acc) const {
    V y[vecs];
    add_sum(i, acc, y);
    put(sum, i, y);
  }

  static TGD_INLINE void put(T* to, std::int64_t i, const V* acc) {
#pragma GCC unroll 32
    for (int v = 0; v < vecs; ++v) store(to + i * W + v * lanes, acc[v]);
  }

  // Adds up in double what a few rows have left in the lanes.
  TGD_INLINE void flush() {
    if (!has_dot()) return;
    alignas(kBytes) T each[lanes];
    store(each, dot);
    double total = 0;
    for (int j = 0; j < lanes; ++j) total += static_cast<double>(each[j]);
    *dot_sum += total;
    dot = V{};
  }
};

template <class T, class I, int W>
constexpr bool kMaySlice = kHasShort<T, I> && W <= kNarrow;

template <class T, class I>
Kind kind(const Step<T, I>& s) {
  if (s.edges) return kEdges;
  const bool plain = !s.bounded && !s.num_dots;
  if (plain && !s.rowptr && !s.num_sinks && s.num_terms == 1 && !s.terms->packed && s.terms->factor == 1) return kLoad;
  if (plain && s.rowptr && s.scale == 1 && !s.num_terms) {
    if (!s.num_sinks) return kInner;
    if (s.num_sinks == 1 && !s.target && !s.sinks->sum && s.sinks->factor == 1) return kLast;
  }
  if (!kHasShort<T, I> || !Few<T, I, 1, kFew>::holds(s)) return kAny;
  if (!s.target || s.num_dots) return kFew;
  if (s.num_terms == 1 && !s.num_sinks) return kTerm;
  const bool sums = !s.num_terms && !s.bounded && s.num_sinks && s.sinks->sum && s.sinks->add && !s.sinks->to;
  return sums ? kSum : kFew;
}

// A slice of a step without dropout, if its rows lie side by side and are not the last of an output.
template <class T, class I, int W, Kind K>
TGD_INLINE bool combine_slice(const Few<T, I, W, K, Whole, kWholes<W>>& few, std::int64_t i, T* target, Whole* acc) {
  if (K == kLast || few.last()) return false;
  if constexpr (K != kInner) {
    few.scale_product(acc);
    if (few.has_first()) few.add_term(few.first, few.first_factor, i, acc);
    if (few.has_second()) few.add_term(few.second, few.second_factor, i, acc);
    if (few.has_bounds()) few.clamp(acc);
    if (few.has_sink()) few.give(i, acc);
    if (K == kFew && !target) return true;
  }
  few.put(target, i, acc);
  return true;
}

struct Unused {
  template <class S>
  explicit Unused(const S&) {}
};

template <class T, class I, int W, bool Masked, Kind K, bool Sliced>
void rows(const Step<T, I>& s) {
  constexpr int vecs = kVecs<T, W>;
  const Slices<T, I> slices = s.slices ? *s.slices : Slices<T, I>{};
  const Csr<T, I> csr{s.rowptr, s.col, s.value, s.source, s.prefetch_end, slices.row, slices.place};
  const Combination<T, I, W> other{s};
  constexpr bool is_few = K >= kTerm && K <= kFew;
  Few<T, I, W, K> few(s);
  const I* original = s.original;
  const std::int64_t last_row = s.last_row, stride = s.stride;
  const int columns = s.tile.columns;
  const bool mask_target = s.mask_target;
  T* target = s.target;
  // In a feature matrix: the first column of the tile.
  const T* from = K == kLoad ? s.terms->from + s.tile.first : nullptr;
  T* to = K == kLast ? s.sinks->to + s.tile.first : nullptr;
  const auto ignore = [](std::int64_t, const T*) {};
  const auto name = [&](std::int64_t i) -> std::int64_t { return original ? static_cast<std::int64_t>(original[i]) : i; };
  const bool masked = K < kAny ? Masked : Masked && s.mask;
  Dropout<T, W> dropout(masked ? *s.mask : Mask{}, s.tile.first);
  std::conditional_t<Sliced && !Masked, Few<T, I, W, K, Whole, kWholes<W>>, Unused> whole(s);
  alignas(kBytes) T slice[Sliced ? kSliceRows * W : 1];
  for (std::int64_t i0 = s.first_row; i0 < last_row; i0 += kKeyRows) {
    const int n = static_cast<int>(last_row - i0 < kKeyRows ? last_row - i0 : kKeyRows);
    if (masked) {
      if (original) dropout.keys(n, [&](int r) { return name(i0 + r); });
      else dropout.keys(i0);
    }
    bool together = false;
    if constexpr (Sliced) {
      const std::int64_t number = i0 / kSliceRows;
      together = slices.start[number] < slices.start[number + 1];
      if (together) {
        Whole acc[kWholes<W>];
        if (csr.prefetch_end) accumulate_slice<true, W>(slices, number, csr.source, acc);
        else accumulate_slice<false, W>(slices, number, csr.source, acc);
        if constexpr (!Masked)
          if (combine_slice<T, I, W, K>(whole, i0, target, acc)) continue;
        for (int v = 0; v < kWholes<W>; ++v) store(slice + v * kWhole, acc[v]);
      }
    }
    for (int r = 0; r < n; ++r) {
      const std::int64_t i = i0 + r, ahead = i + kPrefetchRows < last_row ? i + kPrefetchRows : -1;
      Vec<T, W> acc[vecs];
      const auto product = [&] {
        if (together) return load_packed<T, W>(slice + (Sliced ? r * W : 0), acc);
        if constexpr (kMaySlice<T, I, W> && K != kEdges)
          if (Sliced || (K == kAny && csr.place)) return accumulate<true, T, I, W>(csr, i, acc, ignore);
        accumulate<false, T, I, W>(csr, i, acc, ignore);
      };
      if constexpr (K == kLoad) {
        if (ahead >= 0) prefetch_row<0>(from + name(ahead) * stride, columns);
        load_row<T, W>(from + name(i) * stride, columns, acc);
      } else if constexpr (is_few) {
        if (few.last() && ahead >= 0) prefetch_row<1>(few.to + name(ahead) * stride, columns);
        product();
        few.scale_product(acc);
        if (masked && !mask_target) {
          dropout.apply(r, acc);
#pragma GCC unroll 32
          for (int v = 0; v < vecs; ++v) round_here(acc[v]);
        }
        if (few.has_first()) few.add_term(few.first, few.first_factor, i, acc);
        if (few.has_second()) few.add_term(few.second, few.second_factor, i, acc);
        if (few.has_bounds()) few.clamp(acc);
        if (few.has_dot()) few.multiply(i, acc);
        if (few.last()) {
          Vec<T, W> y[vecs];
          few.add_sum(i, acc, y);
          store_row<T, W>(few.to + name(i) * stride, columns, y);
        } else if (few.has_sink()) {
          few.give(i, acc);
        }
        if (K == kFew && !target) continue;
      } else if constexpr (K < kTerm) {
        if (K == kLast && ahead >= 0) prefetch_row<1>(to + name(ahead) * stride, columns);
        product();
      } else {
        if (ahead >= 0) other.prefetch(ahead);
#pragma GCC unroll 32
        for (int v = 0; v < vecs; ++v) acc[v] = Vec<T, W>{};
        if constexpr (K == kEdges) other.accumulate_edges(csr, i, acc);
        else if (csr.rowptr) product();
        other.dot(true, i, acc);
#pragma GCC unroll 32
        for (int v = 0; v < vecs; ++v) {
          if (!s.scale) acc[v] = Vec<T, W>{};  // it was for others, and may be infinite
          else round_here(acc[v] *= s.scale);
        }
        other.add(0, s.product_terms, i, acc);
        if (masked && !mask_target) {
          dropout.apply(r, acc);
#pragma GCC unroll 32
          for (int v = 0; v < vecs; ++v) round_here(acc[v]);
        }
        other.add(s.product_terms, s.num_terms, i, acc);
        if (s.bounded) other.clamp(acc);
        other.dot(false, i, acc);
        other.give(i, acc);
        if (!target) continue;
      }
      if (masked && (K < kTerm || mask_target)) dropout.apply(r, acc);
      if constexpr (K == kLast) store_row<T, W>(to + name(i) * stride, columns, acc);
      else store_packed<T, W>(target + i * W, acc);
    }
    if constexpr (is_few) few.flush();
    if constexpr (K >= kAny) other.flush();
  }
}

template <class T, class I, int W, Kind K>
void either(const Step<T, I>& s) {
  // Only the short steps are worth a version of their own without dropout.
  const bool masked = K >= kAny || s.mask;
  if constexpr (kMaySlice<T, I, W> && K >= kInner && K <= kFew)
    if (s.slices) return masked ? rows<T, I, W, true, K == kInner ? K : kFew, true>(s) : rows<T, I, W, false, K, true>(s);
  masked ? rows<T, I, W, true, K, false>(s) : rows<T, I, W, K >= kAny, K, false>(s);
}

template <class T, class I, int W>
void columns(const Step<T, I>& s) {
  switch (kind(s)) {
    case kLoad: return either<T, I, W, kLoad>(s);
    case kInner: return either<T, I, W, kInner>(s);
    case kLast: return either<T, I, W, kLast>(s);
    case kTerm:
      if constexpr (kHasShort<T, I>) either<T, I, W, kTerm>(s);
      return;
    case kSum:
      if constexpr (kHasShort<T, I>) either<T, I, W, kSum>(s);
      return;
    case kFew:
      if constexpr (kHasShort<T, I>) either<T, I, W, kFew>(s);
      return;
    case kAny: return either<T, I, W, kAny>(s);
    case kEdges:
      if constexpr (W >= kBlock) either<T, I, W, kEdges>(s);
  }
}

// The accumulators of a row take at most half of the vector registers.
template <class T>
constexpr int kFit = TGD_REGISTERS / 2 * kBytes / static_cast<int>(sizeof(T));
template <class T>
constexpr int kMost = kFit<T> < kWidest ? kFit<T> : kWidest;

template <class T, class I, int W = kMost<T>>
void step(const Step<T, I>& s) {
  if constexpr (W > 1)
    if (s.tile.width < W) return step<T, I, W / 2>(s);
  columns<T, I, W>(s);
}

}  // namespace

extern const Level TGD_LEVEL = {TGD_LEVEL_NAME,
                                kMost<float>,
                                kMost<double>,
                                step<float, std::int32_t>,
                                step<float, std::int64_t>,
                                step<double, std::int32_t>,
                                step<double, std::int64_t>};

}  // namespace tgd
