// Who runs the passes of attention.h, and how Python calls them.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <optional>
#include <tuple>
#include <string>
#include <vector>

#include "attention.h"
#include "parallel.h"
#include "propagate.h"

namespace nb = nanobind;
using std::int64_t;

namespace tgd {

extern const AttentionLevel kBaselineAttention;
#ifdef TGD_X86
extern const AttentionLevel kAvx2Attention;  // for AVX-512 too
#endif

namespace {

const AttentionLevel& attention_level(const Level& level) {
#ifdef TGD_X86
  if (std::strcmp(level.name, "baseline") != 0) return kAvx2Attention;
#endif
  (void)level;
  return kBaselineAttention;
}

template <class T>
const AttentionPasses<T>& passes(const Level& level) {
  const AttentionLevel& found = attention_level(level);
  if constexpr (sizeof(T) == 4) return found.f32;
  else return found.f64;
}

}  // namespace

template <class T>
void attend(Pass pass, const Attention<T>& a, T* out, const AttentionGradient<T>& gradient, int threads,
            const Level& level) {
  const AttentionPasses<T>& run = passes<T>(level);
  int64_t longest = 0;
  if (pass == Pass::kForward)
    for (int64_t row = 0; row < a.rows; ++row) longest = std::max(longest, a.rowptr[row + 1] - a.rowptr[row]);
  const std::size_t size = static_cast<std::size_t>((longest + 4) * padded_heads(a.heads));
  const int64_t chunks = (a.rows + kChunkRows - 1) / kChunkRows;
  const int team = static_cast<int>(std::clamp<int64_t>(chunks / 4, 1, threads));
  std::vector<T> scratch(size * team);
  std::atomic<int64_t> next{0};
  parallel(team, [&](int thread, int) {
    for (int64_t chunk; (chunk = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) {
      const int64_t first = chunk * kChunkRows, last = std::min(first + kChunkRows, a.rows);
      const Rows<T> rows{first, last, scratch.data() + size * thread};
      if (pass == Pass::kForward) run.forward(a, out, rows);
      else (pass == Pass::kTargets ? run.targets : run.sources)(a, gradient, rows);
    }
  });
}

template void attend(Pass, const Attention<float>&, float*, const AttentionGradient<float>&, int, const Level&);
template void attend(Pass, const Attention<double>&, double*, const AttentionGradient<double>&, int, const Level&);

}  // namespace tgd

namespace {

template <class T>
using Array = std::optional<nb::ndarray<T, nb::c_contig, nb::device::cpu>>;
template <class T>
using Matrix = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using Index = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class A>
auto data(const std::optional<A>& array) -> decltype(array->data()) {
  return array ? array->data() : nullptr;
}

// One pass; shapes are those of attention.h, and checked by their sizes.
template <class T>
void attend(tgd::Pass pass, tgd::Score score, std::tuple<Index, Index, Index> csr, int heads, double factor,
            Matrix<const T> target, Matrix<const T> source, Array<const T> weight, Array<const T> bias,
            Array<const T> value, Matrix<T> largest, Matrix<T> inverse, std::tuple<uint32_t, uint32_t, uint32_t> mask,
            Array<T> out, Array<const T> grad, Array<const T> weights, Array<T> inner, Array<T> d_node,
            Array<T> d_value, Array<T> d_edges, Array<T> d_weight, int threads) {
  const auto& [rowptr, col, edge] = csr;
  const int64_t rows = static_cast<int64_t>(rowptr.size()) - 1, targets = target.shape(0), sources = source.shape(0);
  if (rows != (pass == tgd::Pass::kSources ? sources : targets) || col.size() != edge.size() ||
      largest.size() != static_cast<std::size_t>(targets * heads) || inverse.size() != largest.size() ||
      (value && static_cast<int64_t>(value->shape(0)) != sources))
    throw nb::value_error("Expected the arrays of an attention to fit each other");
  const auto width = [&](const auto& array, int64_t count) {
    return count * heads ? static_cast<int>(array.size() / (count * heads)) : 0;
  };
  const tgd::Attention<T> a{rowptr.data(),
                            col.data(),
                            edge.data(),
                            rows,
                            heads,
                            value ? width(*value, sources) : 0,
                            width(source, sources),
                            score,
                            static_cast<T>(factor),
                            source.data(),
                            target.data(),
                            data(weight),
                            data(bias),
                            data(value),
                            largest.data(),
                            inverse.data(),
                            std::get<0>(mask),
                            std::get<1>(mask),
                            std::get<2>(mask)};
  const tgd::AttentionGradient<T> gradient{data(grad),    data(weights), data(inner),   data(d_node),
                                           data(d_value), data(d_edges), data(d_weight)};
  T* to = data(out);
  const nb::gil_scoped_release release;
  tgd::attend(pass, a, to, gradient, threads, *tgd::levels()[0]);
}

}  // namespace

void bind_attention(nb::module_& m) {
  nb::enum_<tgd::Pass>(m, "Pass")
      .value("FORWARD", tgd::Pass::kForward)
      .value("TARGETS", tgd::Pass::kTargets)
      .value("SOURCES", tgd::Pass::kSources);
  nb::enum_<tgd::Score>(m, "Score")
      .value("ADDITIVE", tgd::Score::kAdditive)
      .value("DOT", tgd::Score::kDot)
      .value("JOINT", tgd::Score::kJoint);
  const auto bind = [&](auto function) {
    m.def("attend", function, nb::arg("step"), nb::arg("score"), nb::arg("csr"), nb::arg("heads"), nb::arg("factor"),
          nb::arg("target"), nb::arg("source"), nb::arg("weight").none(), nb::arg("bias").none(),
          nb::arg("value").none(), nb::arg("largest"), nb::arg("inverse"), nb::arg("mask"),
          nb::arg("out").none() = nb::none(), nb::arg("grad").none() = nb::none(),
          nb::arg("weights").none() = nb::none(), nb::arg("inner").none() = nb::none(),
          nb::arg("d_node").none() = nb::none(), nb::arg("d_value").none() = nb::none(),
          nb::arg("d_edges").none() = nb::none(), nb::arg("d_weight").none() = nb::none(), nb::arg("threads") = 1,
          "One pass of attention over the edges of a graph.");
  };
  bind(&attend<float>);
  bind(&attend<double>);
}
