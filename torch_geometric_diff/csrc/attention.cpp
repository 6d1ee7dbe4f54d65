// The passes of attention.h over some rows. Compiled once per instruction set.
#include "attention.h"

#include <math.h>

#include <initializer_list>
#include <type_traits>

#include "dropout.h"

namespace tgd {
namespace {

template <class T>
using Eight = typename VectorOf<T, 8>::type;

// What loops over heads or columns take at once: eight where their number is a multiple, else one.
template <class T, bool Eights>
using Lanes = typename VectorOf<T, Eights ? 8 : 1>::type;

// Whether a number of heads, and one of columns, is worked on in vectors of eight; of columns the rest alone.
template <bool Heads, bool Columns>
struct By {
  static constexpr int kHeads = Heads ? 8 : 1, kColumns = Columns ? 8 : 1;
};

// [a0+a1, b0+b1, a2+a3, b2+b3, ...]
template <class T>
TGD_INLINE Eight<T> add_pairs(Eight<T> a, Eight<T> b) {
  using Index = typename VectorOf<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>, 8>::type;
  return __builtin_shuffle(a, b, Index{0, 8, 2, 10, 4, 12, 6, 14}) +
         __builtin_shuffle(a, b, Index{1, 9, 3, 11, 5, 13, 7, 15});
}
template <class T>
TGD_INLINE Eight<T> add_fours(Eight<T> a, Eight<T> b) {
  using Index = typename VectorOf<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>, 8>::type;
  return __builtin_shuffle(a, b, Index{0, 1, 8, 9, 4, 5, 12, 13}) +
         __builtin_shuffle(a, b, Index{2, 3, 10, 11, 6, 7, 14, 15});
}
// The sums of eight vectors.
template <class T>
TGD_INLINE Eight<T> add_lanes(const Eight<T>* v) {
  using Index = typename VectorOf<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>, 8>::type;
  const auto a = add_fours<T>(add_pairs<T>(v[0], v[1]), add_pairs<T>(v[2], v[3]));
  const auto b = add_fours<T>(add_pairs<T>(v[4], v[5]), add_pairs<T>(v[6], v[7]));
  return __builtin_shuffle(a, b, Index{0, 1, 2, 3, 8, 9, 10, 11}) +
         __builtin_shuffle(a, b, Index{4, 5, 6, 7, 12, 13, 14, 15});
}

// out[h] = the sum over the columns of a head of term(offset, lanes), `lanes` saying how many at once.
template <class T, class By, class Term>
TGD_INLINE void sum_columns(int heads, int columns, const Term& term, T* out) {
  const int whole = columns / By::kColumns * By::kColumns;
  for (int h = 0; h < heads; h += By::kHeads) {
    using V = Lanes<T, By::kColumns == 8>;
    V parts[By::kHeads] = {};
    if (columns == By::kColumns) {  // the most common heads, without a loop in the loop
#pragma GCC unroll 8
      for (int u = 0; u < By::kHeads; ++u) parts[u] = term((h + u) * By::kColumns, V{});
    } else {
#pragma GCC unroll 8
      for (int u = 0; u < By::kHeads; ++u)
        for (int d = 0; d < whole; d += By::kColumns) parts[u] += term((h + u) * columns + d, V{});
    }
    if constexpr (By::kColumns == 1) {
      out[h] = parts[0];
      continue;
    } else if constexpr (By::kHeads == 8) {
      store(out + h, add_lanes<T>(parts));
    } else {
      out[h] = sum_lanes<T, 8>(parts[0]);
    }
    for (int d = whole; d < columns; ++d)
      for (int u = 0; u < By::kHeads; ++u) out[h + u] += term((h + u) * columns + d, T{});
  }
}

// each(offset, head, lanes) for the columns of every head.
template <class T, class By, class Each>
TGD_INLINE void for_columns(int heads, int columns, const Each& each) {
  if (columns == By::kColumns) {
    for (int h = 0; h < heads; ++h) each(h * By::kColumns, h, Lanes < T, By::kColumns == 8 > {});
    return;
  }
  const int whole = columns / By::kColumns * By::kColumns;
  for (int h = 0; h < heads; ++h) {
    for (int d = 0; d < whole; d += By::kColumns) each(h * columns + d, h, Lanes < T, By::kColumns == 8 > {});
    for (int d = whole; d < columns; ++d) each(h * columns + d, h, T{});
  }
}

// exp(x) of x <= 0, or NaN: of floats by a polynomial (Cephes' expf, 2 ulp), eight at a time.
TGD_INLINE void exponentials(float* x, int n) {
  using F = Eight<float>;
  using I = Eight<std::int32_t>;
  for (int k = 0; k < n; k += 8) {
    const F at = load<F>(x + k), magic = F{} + 12582912.0f;
    const F clamped = at < -87.0f ? F{} - 87.0f : at;
    F whole = clamped * 1.44269504088896341f + magic;
    const I exponent = ((I)whole - 0x4B400000 + 127) << 23;
    whole -= magic;
    const F r = clamped - whole * 0.693359375f + whole * 2.12194440e-4f;
    F p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * r * r + r + 1.0f) * (F)exponent;
    store(x + k, at < -87.0f ? F{} : (at == at ? p : at));
  }
}
TGD_INLINE void exponentials(double* x, int n) {
  for (int k = 0; k < n; ++k) x[k] = ::exp(x[k]);
}

template <class V, class T>
TGD_INLINE V leaky(V x, T slope) {
  return x > 0 ? x : x * slope;
}

template <class T, class By>
class Edges {
 public:
  using L = Lanes<T, By::kHeads == 8>;

  Edges(const Attention<T>& a, T* scratch)
      : a_(a), padded_(padded_heads(a.heads)), mask_(scratch), weights_(scratch + padded_) {
    for (int h = 0; h < padded_; ++h) weights_[h] = 0;
  }

  int padded() const { return padded_; }
  int edge_width() const { return a_.value ? 2 * a_.heads : a_.heads; }

  // The scores of the edge e from j to i.
  TGD_INLINE void scores(std::int64_t i, std::int64_t j, std::int64_t e, T* out) const {
    const int heads = a_.heads, width = a_.score_columns;
    const T *s = a_.source + j * heads * width, *t = a_.target + i * heads * width, factor = a_.factor;
    if (a_.score == Score::kAdditive) {
      for (int h = 0; h < heads; h += By::kHeads) store(out + h, leaky(sum_at(s, t, e, h), factor));
      return;
    }
    if (a_.score == Score::kDot) {
      sum_columns<T, By>(
          heads, width,
          [=](int at, auto lanes) {
            using V = decltype(lanes);
            return load<V>(s + at) * load<V>(t + at) * factor;
          },
          out);
    } else {
      const T* w = a_.weight;
      sum_columns<T, By>(
          heads, width,
          [=](int at, auto lanes) {
            using V = decltype(lanes);
            return load<V>(w + at) * leaky(load<V>(s + at) + load<V>(t + at), factor);
          },
          out);
    }
    if (a_.bias)
      for (int h = 0; h < heads; ++h) out[h] += a_.bias[e * heads + h];
  }

  // The weights of the edge, before dropout.
  TGD_INLINE const T* weights(std::int64_t i, std::int64_t j, std::int64_t e) const {
    T* w = weights_;
    scores(i, j, e, w);
    const T *largest = a_.largest + i * a_.heads, *inverse = a_.inverse + i * a_.heads;
    subtract(w, largest);
    exponentials(w, padded_);
    multiply(w, inverse);
    return w;
  }

  // What dropout multiplies the weights of an edge with: the bits of ops/_random.py at step 1, the edge being
  // the row and the head the column.
  TGD_INLINE const T* mask(std::int64_t e) const {
    const auto row = static_cast<std::uint32_t>(e);
    const std::uint32_t first = mix32(row ^ a_.key0), second = mix32(row + a_.key1);
    const T scale = T(65536) / T(65536 - a_.threshold);
    for (int h = 0; h < a_.heads; ++h) {
      std::uint32_t bits = first + static_cast<std::uint32_t>((h >> 5) * 16 + (h & 15)) * kGolden;
      bits = (bits ^ (bits >> 16)) * kMul1;
      bits = ((bits ^ (bits >> 15)) + second) * kMul2;
      bits ^= bits >> 16;
      mask_[h] = ((bits >> (16 * ((h >> 4) & 1))) & 0xFFFF) >= a_.threshold ? scale : T{0};
    }
    return mask_;
  }

  // The gradient of the weights of an edge: of the output with the source's value, or as given; with dropout.
  TGD_INLINE void weight_gradients(const T* grad, std::int64_t i, std::int64_t j, std::int64_t e, T* out) const {
    const int heads = a_.heads;
    if (a_.value) {
      const T *g = grad + i * heads * a_.columns, *v = a_.value + j * heads * a_.columns;
      sum_columns<T, By>(
          heads, a_.columns,
          [=](int at, auto lanes) {
            using V = decltype(lanes);
            return load<V>(g + at) * load<V>(v + at);
          },
          out);
    } else {
      for (int h = 0; h < heads; ++h) out[h] = grad[e * heads + h];
    }
    if (a_.threshold) multiply(out, mask(e));
  }

  // The gradient of the scores of an edge (of an additive one, before leaky_relu) in the place of its weights'.
  TGD_INLINE void score_gradients(std::int64_t i, std::int64_t j, std::int64_t e, const T* w, const T* inner,
                                  T* grad) const {
    const int heads = a_.heads;
    for (int h = 0; h < heads; h += By::kHeads)
      store(grad + h, load<L>(w + h) * (load<L>(grad + h) - load<L>(inner + h)));
    if (a_.score != Score::kAdditive) return;
    const T *s = a_.source + j * heads, *t = a_.target + i * heads;
    for (int h = 0; h < heads; h += By::kHeads) {
      const L g = load<L>(grad + h);
      store(grad + h, static_cast<L>(sum_at(s, t, e, h) > 0 ? g : g * a_.factor));
    }
  }

  // node += the gradient of one end of an edge by those of its scores, and likewise of the joint weight.
  template <bool OfSource>
  TGD_INLINE void add_node(std::int64_t i, std::int64_t j, const T* grad, T* node, T* weight) const {
    const int heads = a_.heads, width = a_.score_columns;
    const T *s = a_.source + j * heads * width, *t = a_.target + i * heads * width, factor = a_.factor;
    if (a_.score == Score::kAdditive) {
      for (int h = 0; h < heads; h += By::kHeads) store(node + h, load<L>(node + h) + load<L>(grad + h));
    } else if (a_.score == Score::kDot) {
      const T* other = OfSource ? t : s;
      for_columns<T, By>(heads, width, [=](int at, int h, auto lanes) {
        using V = decltype(lanes);
        store(node + at, load<V>(node + at) + grad[h] * factor * load<V>(other + at));
      });
    } else {
      const T* w = a_.weight;
      for_columns<T, By>(heads, width, [=](int at, int h, auto lanes) {
        using V = decltype(lanes);
        const V x = load<V>(s + at) + load<V>(t + at), g = grad[h] * load<V>(w + at);
        store(node + at, static_cast<V>(load<V>(node + at) + (x > 0 ? g : g * factor)));
        if (!OfSource && weight) store(weight + at, static_cast<V>(load<V>(weight + at) + grad[h] * leaky(x, factor)));
      });
    }
  }

  // to += the weights of an edge times the columns of its heads.
  TGD_INLINE void add_scaled(T* to, const T* w, const T* from) const {
    for_columns<T, By>(a_.heads, a_.columns, [=](int at, int h, auto lanes) {
      using V = decltype(lanes);
      store(to + at, static_cast<V>(load<V>(to + at) + w[h] * load<V>(from + at)));
    });
  }

  // Fetches what the gradients of an entry some edges ahead read of its other end.
  template <bool OfSource>
  TGD_INLINE void prefetch(std::int64_t at, const AttentionGradient<T>* to) const {
    if (at + kAhead >= a_.rowptr[a_.rows]) return;
    const std::int64_t other = a_.col[at + kAhead], heads = a_.heads, columns = heads * a_.columns;
    const std::int64_t width = heads * a_.score_columns;
    if (!OfSource || a_.score != Score::kAdditive) fetch((OfSource ? a_.target : a_.source) + other * width, width);
    if (const T* rows = OfSource ? to->grad : a_.value; rows && a_.value) fetch(rows + other * columns, columns);
    if constexpr (OfSource) fetch(to->edges + a_.edge[at + kAhead] * edge_width(), edge_width());
  }

  // each(head, lanes) for all heads.
  template <class Each>
  TGD_INLINE void each_head(const Each& each) const {
    for (int h = 0; h < a_.heads; h += By::kHeads) each(h, L{});
  }

  TGD_INLINE void subtract(T* s, const T* from_each) const {
    each_head([=](int h, L) { store(s + h, load<L>(s + h) - load<L>(from_each + h)); });
  }

  TGD_INLINE void multiply(T* w, const T* factor) const {
    each_head([=](int h, L) { store(w + h, load<L>(w + h) * load<L>(factor + h)); });
  }

 private:
  static constexpr std::int64_t kAhead = 6;  // edges

  static TGD_INLINE void fetch(const T* row, std::int64_t columns) {
    for (std::int64_t d = 0; d < columns; d += 64 / static_cast<std::int64_t>(sizeof(T))) __builtin_prefetch(row + d);
  }

  TGD_INLINE L sum_at(const T* s, const T* t, std::int64_t e, int h) const {
    const L sum = load<L>(s + h) + load<L>(t + h);
    return a_.bias ? sum + load<L>(a_.bias + e * a_.heads + h) : sum;
  }

  const Attention<T>& a_;
  int padded_;
  T *mask_, *weights_;
};

// Exponentials of the scores of a row, edges x padded heads, and what makes a softmax of them.
template <class T, class By>
void softmax(const Attention<T>& a, const Edges<T, By>& edges, std::int64_t row, T* scores) {
  const std::int64_t begin = a.rowptr[row], count = a.rowptr[row + 1] - begin;
  const int padded = edges.padded();
  T *largest = a.largest + row * a.heads, *inverse = a.inverse + row * a.heads;
  for (int h = 0; h < a.heads; ++h) largest[h] = count ? -static_cast<T>(INFINITY) : T{0}, inverse[h] = 0;
  for (std::int64_t n = 0; n < count; ++n) {
    T* s = scores + n * padded;
    for (int h = a.heads; h < padded; ++h) s[h] = 0;
    edges.scores(row, a.col[begin + n], a.edge[begin + n], s);
    edges.each_head([&](int h, auto lanes) {
      using L = decltype(lanes);
      const L score = load<L>(s + h), most = load<L>(largest + h);
      store(largest + h, static_cast<L>((score > most) | (score != score) ? score : most));
    });
  }
  for (std::int64_t n = 0; n < count; ++n) {
    T* s = scores + n * padded;
    edges.subtract(s, largest);
    exponentials(s, padded);
    edges.each_head([&](int h, auto lanes) {
      using L = decltype(lanes);
      store(inverse + h, load<L>(inverse + h) + load<L>(s + h));
    });
  }
  for (int h = 0; h < a.heads; ++h) inverse[h] = count ? 1 / inverse[h] : T{0};
}

template <class T, class By>
void forward_rows(const Attention<T>& a, T* out, Rows<T> rows) {
  const Edges<T, By> edges(a, rows.scratch);
  const int heads = a.heads, width = a.columns, padded = edges.padded();
  T* scores = rows.scratch + 4 * padded;
  for (std::int64_t row = rows.first; row < rows.last; ++row) {
    softmax(a, edges, row, scores);
    const T* inverse = a.inverse + row * heads;
    T* y = a.value ? out + row * heads * width : nullptr;
    if (y) std::memset(y, 0, sizeof(T) * heads * width);
    for (std::int64_t at = a.rowptr[row], n = 0; at < a.rowptr[row + 1]; ++at, ++n) {
      T* w = scores + n * padded;
      edges.template prefetch<false>(at, nullptr);
      edges.multiply(w, inverse);
      if (a.threshold) edges.multiply(w, edges.mask(a.edge[at]));
      if (y) edges.add_scaled(y, w, a.value + a.col[at] * heads * width);
      else std::memcpy(out + a.edge[at] * heads, w, sizeof(T) * heads);
    }
  }
}

// The gradients of what a target gives to its scores. Without values the product of output and gradient, which
// every edge of the row needs, is added up first.
template <class T, class By>
void target_rows(const Attention<T>& a, const AttentionGradient<T>& to, Rows<T> rows) {
  const Edges<T, By> edges(a, rows.scratch);
  const int heads = a.heads, width = a.score_columns;
  T* grad = rows.scratch + 2 * edges.padded();
  T* weight = to.weight ? to.weight + rows.first / kChunkRows * heads * width : nullptr;
  for (std::int64_t row = rows.first; row < rows.last; ++row) {
    T *inner = to.inner + row * heads, *node = to.node + row * heads * width;
    std::memset(node, 0, sizeof(T) * heads * width);
    if (!a.value) {
      std::memset(inner, 0, sizeof(T) * heads);
      for (std::int64_t at = a.rowptr[row]; at < a.rowptr[row + 1]; ++at) {
        const std::int64_t e = a.edge[at];
        const T* w = to.weights ? to.weights + e * heads : edges.weights(row, a.col[at], e);
        edges.weight_gradients(to.grad, row, a.col[at], e, grad);
        for (int h = 0; h < heads; ++h) inner[h] += w[h] * grad[h], to.edges[e * heads + h] = w[h];
      }
    }
    for (std::int64_t at = a.rowptr[row]; at < a.rowptr[row + 1]; ++at) {
      const std::int64_t j = a.col[at], e = a.edge[at];
      edges.template prefetch<false>(at, nullptr);
      T* edge = to.edges + e * edges.edge_width();
      const T* w = a.value ? edges.weights(row, j, e) : edge;
      edges.weight_gradients(to.grad, row, j, e, grad);
      edges.score_gradients(row, j, e, w, inner, grad);
      edges.template add_node<false>(row, j, grad, node, weight);
      if (a.value) {
        std::memcpy(edge + heads, w, sizeof(T) * heads);
        if (a.threshold) edges.multiply(edge + heads, edges.mask(e));
      }
      std::memcpy(edge, grad, sizeof(T) * heads);
    }
  }
}

template <class T, class By>
void source_rows(const Attention<T>& a, const AttentionGradient<T>& to, Rows<T> rows) {
  const Edges<T, By> edges(a, rows.scratch);
  const int heads = a.heads, width = a.columns;
  for (std::int64_t j = rows.first; j < rows.last; ++j) {
    T* node = to.node + j * heads * a.score_columns;
    std::memset(node, 0, sizeof(T) * heads * a.score_columns);
    if (to.value) std::memset(to.value + j * heads * width, 0, sizeof(T) * heads * width);
    for (std::int64_t at = a.rowptr[j]; at < a.rowptr[j + 1]; ++at) {
      const std::int64_t i = a.col[at];
      const T* edge = to.edges + a.edge[at] * edges.edge_width();
      edges.template prefetch<true>(at, &to);
      if (to.value) edges.add_scaled(to.value + j * heads * width, edge + heads, to.grad + i * heads * width);
      edges.template add_node<true>(i, j, edge, node, nullptr);
    }
  }
}

// Calls f with how heads and columns are taken; of doubles fewer ways, for a smaller library.
template <class T, class F>
void by_width(const Attention<T>& a, const F& f) {
  if (a.columns < 8 && a.score_columns < 8) return f(By<false, false>{});
  if constexpr (sizeof(T) == 4)
    if (a.heads % 8 == 0) return f(By<true, true>{});
  f(By<false, true>{});
}

template <class T>
void forward(const Attention<T>& a, T* out, Rows<T> rows) {
  by_width(a, [&](auto by) { forward_rows<T, decltype(by)>(a, out, rows); });
}
template <class T>
void targets(const Attention<T>& a, const AttentionGradient<T>& to, Rows<T> rows) {
  by_width(a, [&](auto by) { target_rows<T, decltype(by)>(a, to, rows); });
}
template <class T>
void sources(const Attention<T>& a, const AttentionGradient<T>& to, Rows<T> rows) {
  by_width(a, [&](auto by) { source_rows<T, decltype(by)>(a, to, rows); });
}

}  // namespace

#define TGD_ATTENTION_OF(level) level##Attention
#define TGD_ATTENTION(level) TGD_ATTENTION_OF(level)
extern const AttentionLevel TGD_ATTENTION(TGD_LEVEL);
const AttentionLevel TGD_ATTENTION(TGD_LEVEL) = {TGD_LEVEL_NAME,
                                                 {forward<float>, targets<float>, sources<float>},
                                                 {forward<double>, targets<double>, sources<double>}};

}  // namespace tgd
