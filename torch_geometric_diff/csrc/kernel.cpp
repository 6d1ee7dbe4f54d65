// The inner loops, written in vector extensions of GCC and Clang and compiled once per instruction
// set: CMake defines TGD_LEVEL (name of the table), TGD_LEVEL_NAME and TGD_VECTOR_BYTES.
#include "kernel.h"

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
  const auto row_at = [&](std::int64_t e) TGD_LAMBDA {
    return m.source + static_cast<std::int64_t>(Placed ? m.place[m.col[e]] : m.col[e]) * W;
  };
  if constexpr (Placed) i = m.row[i];
  Vec<T, W> sum[kVecs<T, W>];  // its own: in registers, whatever becomes of `acc`
#pragma GCC unroll 32
  for (int v = 0; v < kVecs<T, W>; ++v) sum[v] = Vec<T, W>{};
  const auto add = [&](std::int64_t e) TGD_LAMBDA {
    const T* from = row_at(e);
    const T w = m.value[e];
#pragma GCC unroll 32
    for (int v = 0; v < kVecs<T, W>; ++v) {
      sum[v] += w * load<Vec<T, W>>(from + v * kLanes<T, W>);
      if constexpr (W < kBlock) round_here(sum[v]);
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
#pragma GCC unroll 32
  for (int v = 0; v < kVecs<T, W>; ++v) acc[v] = sum[v];
}

// Row i of the product, where the rows may be in the order of slices.
template <bool MaySlice, bool Sliced, bool AnyOrder, class T, class I, int W>
TGD_INLINE void multiply_row(const Csr<T, I>& csr, std::int64_t i, Vec<T, W>* acc) {
  const auto ignore = [](std::int64_t, const T*) {};
  if constexpr (MaySlice)
    if (Sliced || (AnyOrder && csr.place)) return accumulate<true, T, I, W>(csr, i, acc, ignore);
  accumulate<false, T, I, W>(csr, i, acc, ignore);
}

// The product of a slice; false if it is empty.
template <int W, class T, class I>
TGD_INLINE bool multiply_slice(const Slices<T, I>& slices, std::int64_t number, const Csr<T, I>& csr, Whole* acc) {
  if (slices.start[number] == slices.start[number + 1]) return false;
  if (csr.prefetch_end) accumulate_slice<true, W>(slices, number, csr.source, acc);
  else accumulate_slice<false, W>(slices, number, csr.source, acc);
  return true;
}

template <int vecs, class V>
TGD_INLINE void clamp(V* acc, V low, V high) {
#pragma GCC unroll 32
  for (int v = 0; v < vecs; ++v) {  // NaN stays
    acc[v] = acc[v] < low ? low : acc[v];
    acc[v] = acc[v] > high ? high : acc[v];
  }
}

// Where a row of a packed tile lies in a feature matrix.
template <class T, class I>
struct FeatureRows {
  const I* original;
  std::int64_t stride;
  int columns;

  TGD_INLINE explicit FeatureRows(const Step<T, I>& s)
      : original(s.original), stride(s.stride), columns(s.tile.columns) {}
  TGD_INLINE std::int64_t name(std::int64_t i) const { return original ? static_cast<std::int64_t>(original[i]) : i; }
  TGD_INLINE std::int64_t at(std::int64_t i) const { return name(i) * stride; }
};

// The rules of the kinds of steps: `combine` makes z of a row in `acc` from its product (where there is one) and
// says whether `store` is to write it; `drop` applies dropout on the way, `masks_target` has it applied after.
template <class T_, class I_, int W_>
struct Rule {
  using T = T_;
  using I = I_;
  static constexpr int W = W_, vecs = kVecs<T, W>;
  using V = Vec<T, W>;

  static constexpr bool kPrefetches = false;  // prefetch(i) is to be called, some rows ahead
  static constexpr bool kSlices = false;      // has a loop over slices
  static constexpr bool kAnyMask = false;     // looks itself whether there is a mask
  static constexpr bool kAnyOrder = false;    // looks itself whether the rows are in the order of slices

  static constexpr bool masks_target() { return true; }
  static TGD_INLINE void store(T* target, std::int64_t i, const V* acc) { store_packed<T, W>(target + i * W, acc); }
  TGD_INLINE void flush() {}
};

// z = x, of one input.
template <class T, class I, int W>
struct Load : Rule<T, I, W> {
  static constexpr bool kPrefetches = true;
  const FeatureRows<T, I> rows;
  const T* from;

  TGD_INLINE explicit Load(const Step<T, I>& s) : rows(s), from(s.terms->from + s.tile.first) {}
  TGD_INLINE void prefetch(std::int64_t i) const { prefetch_row<0>(from + rows.at(i), rows.columns); }

  template <class Product, class Drop>
  TGD_INLINE bool combine(std::int64_t i, Vec<T, W>* acc, const Product&, const Drop&) {
    load_row<T, W>(from + rows.at(i), rows.columns, acc);
    return true;
  }
};

// z = P @ source, stored.
template <class T, class I, int W>
struct Inner : Rule<T, I, W> {
  static constexpr bool kSlices = true;
  using MaskedSlices = Inner;
  struct OfSlices {
    explicit OfSlices(const Step<T, I>&) {}
    TGD_INLINE bool combine(std::int64_t i, T* target, Whole* acc) const {
#pragma GCC unroll 32
      for (int v = 0; v < kWholes<W>; ++v) store(target + i * W + v * kWhole, acc[v]);
      return true;
    }
  };

  explicit Inner(const Step<T, I>&) {}

  template <class Product, class Drop>
  TGD_INLINE bool combine(std::int64_t, Vec<T, W>*, const Product& product, const Drop&) {
    product();
    return true;
  }
};

// What most steps are combined from and given to: little enough to be held in registers. It takes as many
// elements from row i on as there are in `vecs` vectors. A shape says what a step has; `AnyShape` leaves it open.
struct TermShape {  // one term, and bounds, which may be infinite
  static constexpr bool kOpen = false, kTerm = true, kSum = false;
};
struct SumShape {  // z is added to a sum
  static constexpr bool kOpen = false, kTerm = false, kSum = true;
};
struct AnyShape {
  static constexpr bool kOpen = true, kTerm = false, kSum = false;
};

template <class T, class I, int W, class Shape, class V = Vec<T, W>, int vecs = kVecs<T, W>>
struct Few : Rule<T, I, W> {
  static constexpr int lanes = sizeof(V) / sizeof(T);
  static constexpr bool kPrefetches = Shape::kOpen, kSlices = true;
  using MaskedSlices = Few<T, I, W, AnyShape>;
  struct OfSlices : Few<T, I, W, Shape, Whole, kWholes<W>> {
    using Few<T, I, W, Shape, Whole, kWholes<W>>::Few;

    // A slice of a step without dropout, if its rows are not the last of an output.
    TGD_INLINE bool combine(std::int64_t i, T* target, Whole* acc) {
      if (this->last()) return false;
      this->scale_product(acc);
      this->add_terms(i, acc);
      if (this->has_sink()) this->give(i, acc);
      if (!Shape::kOpen || target) this->put(target, i, acc);
      return true;
    }
  };

  static bool holds(const Step<T, I>& s) {
    if (!s.rowptr || s.num_terms > 2 || s.num_sinks > 1 || s.num_dots > 1) return false;
    if (s.mask && !s.mask_target && s.product_terms) return false;
    for (int t = 0; t < s.num_terms; ++t)
      if (!s.terms[t].packed) return false;
    return !s.num_dots || !s.dots->of_product;
  }

  const FeatureRows<T, I> rows;
  const T *first = nullptr, *second = nullptr, *with = nullptr;
  T *sum = nullptr, *to = nullptr;
  double* dot_sum = nullptr;
  T scale, first_factor{}, second_factor{}, sink_factor{};
  bool is_given = Shape::kSum, add = Shape::kSum;
  const bool bounded, mask_target, has_target;
  V low, high, dot{};

  TGD_INLINE explicit Few(const Step<T, I>& s)
      : rows(s), scale(s.scale), bounded(s.bounded), mask_target(s.mask_target), has_target(s.target),
        low(V{} + (bounded ? s.low : -static_cast<T>(__builtin_inf()))),
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

  TGD_INLINE bool has_first() const { return Shape::kTerm || (Shape::kOpen && first); }
  TGD_INLINE bool has_second() const { return Shape::kOpen && second; }
  TGD_INLINE bool has_bounds() const { return Shape::kTerm || (Shape::kOpen && bounded); }
  TGD_INLINE bool has_dot() const { return Shape::kOpen && with; }
  TGD_INLINE bool has_sink() const { return Shape::kSum || (Shape::kOpen && is_given); }
  TGD_INLINE T* last() const { return Shape::kOpen ? to : nullptr; }
  TGD_INLINE bool masks_target() const { return mask_target; }

  TGD_INLINE void prefetch(std::int64_t i) const {
    if (last()) prefetch_row<1>(to + rows.at(i), rows.columns);
  }

  template <class Product, class Drop>
  TGD_INLINE bool combine(std::int64_t i, V* acc, const Product& product, const Drop& drop) {
    product();
    scale_product(acc);
    if (!mask_target) drop();
    add_terms(i, acc);
    if (has_dot()) multiply(i, acc);
    if (last()) {
      V y[vecs];
      add_sum(i, acc, y);
      store_row<T, W>(to + rows.at(i), rows.columns, y);
    } else if (has_sink()) {
      give(i, acc);
    }
    return !Shape::kOpen || has_target;
  }

  TGD_INLINE void scale_product(V* acc) const {
#pragma GCC unroll 32
    for (int v = 0; v < vecs; ++v) round_here(acc[v] *= scale);
  }

  TGD_INLINE void add_terms(std::int64_t i, V* acc) const {
    if (has_first()) add_term(first, first_factor, i, acc);
    if (has_second()) add_term(second, second_factor, i, acc);
    if (has_bounds()) clamp<vecs>(acc, low, high);
  }

  static TGD_INLINE void add_term(const T* from, T factor, std::int64_t i, V* acc) {
#pragma GCC unroll 32
    for (int v = 0; v < vecs; ++v) add_rounded(acc[v], factor, load<V>(from + i * W + v * lanes));
  }

  TGD_INLINE void multiply(std::int64_t i, const V* acc) {
#pragma GCC unroll 32
    for (int v = 0; v < vecs; ++v) dot += acc[v] * load<V>(with + i * W + v * lanes);
  }

  // What is given to a sum; the last time, the whole sum of a row.
  TGD_INLINE void add_sum(std::int64_t i, const V* acc, V* y) const {
#pragma GCC unroll 32
    for (int v = 0; v < vecs; ++v) {
      y[v] = Shape::kSum || add ? load<V>(sum + i * W + v * lanes) : V{};
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
    for (int v = 0; v < vecs; ++v) tgd::store(to + i * W + v * lanes, acc[v]);
  }

  // Adds up in double what a few rows have left in the lanes.
  TGD_INLINE void flush() {
    if (!has_dot()) return;
    alignas(kBytes) T each[lanes];
    tgd::store(each, dot);
    double total = 0;
    for (int j = 0; j < lanes; ++j) total += static_cast<double>(each[j]);
    *dot_sum += total;
    dot = V{};
  }
};

// y = P @ source, of one output.
template <class T, class I, int W>
struct Last : Inner<T, I, W> {
  static constexpr bool kPrefetches = true;
  using MaskedSlices = Few<T, I, W, AnyShape>;
  struct OfSlices {
    explicit OfSlices(const Step<T, I>&) {}
    static bool combine(std::int64_t, T*, Whole*) { return false; }
  };
  const FeatureRows<T, I> rows;
  T* to;

  TGD_INLINE explicit Last(const Step<T, I>& s) : Inner<T, I, W>(s), rows(s), to(s.sinks->to + s.tile.first) {}
  TGD_INLINE void prefetch(std::int64_t i) const { prefetch_row<1>(to + rows.at(i), rows.columns); }
  TGD_INLINE void store(T*, std::int64_t i, const Vec<T, W>* acc) const {
    store_row<T, W>(to + rows.at(i), rows.columns, acc);
  }
};

// Any step: any number of terms, sinks and inner products.
template <class T, class I, int W>
struct Any : Rule<T, I, W> {
  static constexpr bool kPrefetches = true, kAnyMask = true, kAnyOrder = true;
  static constexpr int vecs = kVecs<T, W>, lanes_of_sum = kLanes<T, W>;
  using V = Vec<T, W>;
  const Step<T, I>& s;

  TGD_INLINE explicit Any(const Step<T, I>& step) : s(step) {}
  TGD_INLINE bool masks_target() const { return s.mask_target; }
  TGD_INLINE std::int64_t at(std::int64_t i) const { return FeatureRows<T, I>(s).at(i) + s.tile.first; }

  TGD_INLINE void prefetch(std::int64_t i) const {
    for (int t = 0; t < s.num_terms; ++t)
      if (!s.terms[t].packed) prefetch_row<0>(s.terms[t].from + at(i), s.tile.columns);
    for (int o = 0; o < s.num_sinks; ++o)
      if (s.sinks[o].to) prefetch_row<1>(s.sinks[o].to + at(i), s.tile.columns);
  }

  template <class Product, class Drop>
  TGD_INLINE bool combine(std::int64_t i, V* acc, const Product& product, const Drop& drop) const {
#pragma GCC unroll 32
    for (int v = 0; v < vecs; ++v) acc[v] = V{};
    if (s.rowptr) product();
    return combine_product(i, acc, drop);
  }

  template <class Drop>
  TGD_INLINE bool combine_product(std::int64_t i, V* acc, const Drop& drop) const {
    dot(true, i, acc);
#pragma GCC unroll 32
    for (int v = 0; v < vecs; ++v) {
      if (!s.scale) acc[v] = V{};  // it was for others, and may be infinite
      else round_here(acc[v] *= s.scale);
    }
    add(0, s.product_terms, i, acc);
    if (!s.mask_target) drop();
    add(s.product_terms, s.num_terms, i, acc);
    if (s.bounded) clamp<vecs>(acc, V{} + s.low, V{} + s.high);
    dot(false, i, acc);
    give(i, acc);
    return s.target;
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

  TGD_INLINE void dot(bool of_product, std::int64_t i, const V* acc) const {
    for (int t = 0; t < s.num_dots; ++t) {
      if (s.dots[t].of_product != of_product) continue;
      V x[vecs];
      load_packed<T, W>(s.dots[t].with + i * W, x);
      T* lanes = s.lanes + t * kBlock;
      V sum = load<V>(lanes);
#pragma GCC unroll 32
      for (int v = 0; v < vecs; ++v) sum += acc[v] * x[v];
      tgd::store(lanes, sum);
    }
  }

  // Adds up in double what a few rows have left in the lanes.
  TGD_INLINE void flush() const {
    for (int t = 0; t < s.num_dots; ++t) {
      T* lanes = s.lanes + t * kBlock;
      double sum = 0;
      for (int j = 0; j < lanes_of_sum; ++j) sum += static_cast<double>(lanes[j]);
      s.sums[s.dots[t].sum] += sum;
      tgd::store(lanes, V{});
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

// Any step, with the gradients of the entries.
template <class T, class I, int W>
struct Edges : Any<T, I, W> {
  static constexpr bool kAnyOrder = false;
  using V = Vec<T, W>;
  const Csr<T, I> csr;

  TGD_INLINE explicit Edges(const Step<T, I>& s)
      : Any<T, I, W>(s), csr{s.rowptr, s.col, s.value, s.source, s.prefetch_end, nullptr, nullptr} {}

  template <class Product, class Drop>
  TGD_INLINE bool combine(std::int64_t i, V* acc, const Product&, const Drop& drop) const {
    V u[kVecs<T, W>];
    load_packed<T, W>(this->s.edge_rows + i * W, u);
    T* edges = this->s.edges;
    const T scale = this->s.scale;
    accumulate<false, T, I, W>(csr, i, acc, [&](std::int64_t e, const T* from) TGD_LAMBDA {
      V sum{};
#pragma GCC unroll 32
      for (int v = 0; v < kVecs<T, W>; ++v) sum += u[v] * load<V>(from + v * kLanes<T, W>);
      edges[e] += scale * sum_lanes<T, kLanes<T, W>>(sum);
    });
    return this->combine_product(i, acc, drop);
  }
};

template <class T, class I, int W>
constexpr bool kMaySlice = kHasShort<T, I> && W <= kNarrow;

struct NoSlices {
  template <class S>
  explicit NoSlices(const S&) {}
};

template <bool Uses, class Rule>
struct OfSlices {
  using type = NoSlices;
};
template <class Rule>
struct OfSlices<true, Rule> {
  using type = typename Rule::OfSlices;
};

// The rows of a step, kKeyRows at a time, which is a slice of them.
template <class Rule, bool Masked, bool Sliced>
void rows(const Step<typename Rule::T, typename Rule::I>& s) {
  using T = typename Rule::T;
  using I = typename Rule::I;
  constexpr int W = Rule::W, vecs = kVecs<T, W>;
  static_assert(kKeyRows == kSliceRows);
  const Slices<T, I> slices = s.slices ? *s.slices : Slices<T, I>{};
  const Csr<T, I> csr{s.rowptr, s.col, s.value, s.source, s.prefetch_end, slices.row, slices.place};
  Rule rule(s);
  const FeatureRows<T, I> names(s);
  const std::int64_t last_row = s.last_row;
  T* target = s.target;
  const bool masked = Masked && (!Rule::kAnyMask || s.mask);
  Dropout<T, W> dropout(masked ? *s.mask : Mask{}, s.tile.first);
  typename OfSlices<Sliced && !Masked, Rule>::type of_slices(s);
  alignas(kBytes) T slice[Sliced ? kSliceRows * W : 1];
  for (std::int64_t i0 = s.first_row; i0 < last_row; i0 += kKeyRows) {
    const int n = static_cast<int>(last_row - i0 < kKeyRows ? last_row - i0 : kKeyRows);
    if (masked) {
      if (names.original) dropout.keys(n, [&](int r) { return names.name(i0 + r); });
      else dropout.keys(i0);
    }
    bool together = false;
    if constexpr (Sliced) {
      Whole acc[kWholes<W>];
      together = multiply_slice<W>(slices, i0 / kSliceRows, csr, acc);
      if (together) {
        if constexpr (!Masked)
          if (of_slices.combine(i0, target, acc)) continue;
        for (int v = 0; v < kWholes<W>; ++v) store(slice + v * kWhole, acc[v]);
      }
    }
    for (int r = 0; r < n; ++r) {
      const std::int64_t i = i0 + r;
      if constexpr (Rule::kPrefetches)
        if (i + kPrefetchRows < last_row) rule.prefetch(i + kPrefetchRows);
      Vec<T, W> acc[vecs];
      const auto product = [&]() TGD_LAMBDA {
        if (together) return load_packed<T, W>(slice + (Sliced ? r * W : 0), acc);
        multiply_row<kMaySlice<T, I, W>, Sliced, Rule::kAnyOrder, T, I, W>(csr, i, acc);
      };
      const auto drop = [&]() TGD_LAMBDA {
        if (!masked) return;
        dropout.apply(r, acc);
#pragma GCC unroll 32
        for (int v = 0; v < vecs; ++v) round_here(acc[v]);
      };
      if (!rule.combine(i, acc, product, drop)) continue;
      if (masked && rule.masks_target()) dropout.apply(r, acc);
      rule.store(target, i, acc);
    }
    rule.flush();
  }
}

// Only short steps are worth loops of their own without dropout, and over slices.
template <class Rule>
void step_of(const Step<typename Rule::T, typename Rule::I>& s) {
  if constexpr (Rule::kAnyMask) {
    rows<Rule, true, false>(s);
  } else {
    if constexpr (kMaySlice<typename Rule::T, typename Rule::I, Rule::W> && Rule::kSlices)
      if (s.slices) return s.mask ? rows<typename Rule::MaskedSlices, true, true>(s) : rows<Rule, false, true>(s);
    s.mask ? rows<Rule, true, false>(s) : rows<Rule, false, false>(s);
  }
}

// The short steps that Few has no shape of its own for: those of Euler diffusion.
template <class T, class I, int W>
bool plain_step(const Step<T, I>& s) {
  if (s.bounded || s.num_dots) return false;
  if (!s.rowptr) {
    if (s.num_sinks || s.num_terms != 1 || s.terms->packed || s.terms->factor != 1) return false;
    return step_of<Load<T, I, W>>(s), true;
  }
  if (s.scale != 1 || s.num_terms) return false;
  if (!s.num_sinks) return step_of<Inner<T, I, W>>(s), true;
  if (s.num_sinks > 1 || s.target || s.sinks->sum || s.sinks->factor != 1) return false;
  return step_of<Last<T, I, W>>(s), true;
}

template <class T, class I, int W>
void few_step(const Step<T, I>& s) {
  const bool open = !s.target || s.num_dots;
  if (!open && s.num_terms == 1 && !s.num_sinks) return step_of<Few<T, I, W, TermShape>>(s);
  if (!open && !s.num_terms && !s.bounded && s.num_sinks && s.sinks->sum && s.sinks->add && !s.sinks->to)
    return step_of<Few<T, I, W, SumShape>>(s);
  step_of<Few<T, I, W, AnyShape>>(s);
}

template <class T, class I, int W>
void columns(const Step<T, I>& s) {
  if constexpr (W >= kBlock)
    if (s.edges) return step_of<Edges<T, I, W>>(s);
  if (plain_step<T, I, W>(s)) return;
  if constexpr (kHasShort<T, I>)
    if (Few<T, I, W, AnyShape>::holds(s)) return few_step<T, I, W>(s);
  step_of<Any<T, I, W>>(s);
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
