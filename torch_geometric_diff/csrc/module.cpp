#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "gradients.h"
#include "knn.h"
#include "plan.h"
#include "propagate.h"

namespace nb = nanobind;
using std::int64_t;
using std::uintptr_t;

namespace {

std::vector<std::string> level_names() {
  std::vector<std::string> names;
  for (auto level = tgd::levels(); *level; ++level) names.emplace_back((*level)->name);
  return names;
}

const tgd::Level* find_level(const std::string& name) {
  for (auto level = tgd::levels(); *level; ++level)
    if (name == (*level)->name) return *level;
  throw std::invalid_argument("this processor has no instruction set '" + name + "'");
}

std::vector<int> tile_widths(int64_t columns, int widest, int64_t fit) {
  std::vector<int> widths;
  for (const tgd::Tile& tile : tgd::cut_columns(columns, widest, {fit})) widths.push_back(tile.width);
  return widths;
}

template <class T>
T* at(uintptr_t address) { return reinterpret_cast<T*>(address); }

struct Csr {
  uintptr_t rowptr, col, value;

  template <class T, class I>
  tgd::Operator<T, I> as(uintptr_t original, int64_t rows, int64_t sources) const {
    return {at<const I>(rowptr), at<const I>(col), at<const T>(value), at<const I>(original), rows, sources};
  }
};

// Calls f with a T and an I.
template <class F>
void with_types(bool is_double, bool is_int64, const F& f) {
  if (is_double) is_int64 ? f(double{}, int64_t{}) : f(double{}, int32_t{});
  else is_int64 ? f(float{}, int64_t{}) : f(float{}, int32_t{});
}

tgd::Options options(int threads, const std::string& level, int width) {
  return {threads, level.empty() ? nullptr : find_level(level), width};
}

void propagate(uintptr_t y, uintptr_t x, uintptr_t rowptr, uintptr_t col, uintptr_t value,
               uintptr_t original, int64_t rows, int64_t sources, int64_t batch, int64_t columns,
               bool is_double, bool is_int64, uintptr_t table, int inputs, int outputs, int64_t steps,
               uint32_t threshold, uintptr_t seeds, bool reverse, bool bounded, double low, double high,
               uintptr_t within, int64_t reach, int threads, const std::string& level, int width) {
  const tgd::Recurrence recurrence{at<const double>(table), steps, inputs, outputs, threshold, reverse, bounded,
                                   low, high};
  const tgd::Options how = options(threads, level, width);
  const nb::gil_scoped_release release;
  const tgd::Reach near{at<const int64_t>(within), reach};
  with_types(is_double, is_int64, [&](auto t, auto i) {
    using T = decltype(t);
    using I = decltype(i);
    const auto op = Csr{rowptr, col, value}.as<T, I>(original, rows, sources);
    tgd::propagate(at<T>(y), at<const T>(x), op, batch, columns, recurrence, at<const std::uint64_t>(seeds), how,
                   reach ? &near : nullptr);
  });
}

void gradients(uintptr_t dx, uintptr_t dvalue, uintptr_t dtable, unsigned kinds, uintptr_t x, uintptr_t g,
               uintptr_t rowptr, uintptr_t col, uintptr_t value, uintptr_t rowptr_t, uintptr_t col_t,
               uintptr_t value_t, uintptr_t original, int64_t rows, int64_t batch, int64_t columns,
               bool is_double, bool is_int64, uintptr_t table, int inputs, int outputs, int64_t steps,
               uint32_t threshold, uintptr_t seeds, int threads, const std::string& level, int width) {
  const tgd::Recurrence recurrence{at<const double>(table), steps, inputs, outputs, threshold};
  const tgd::Options how = options(threads, level, width);
  const nb::gil_scoped_release release;
  with_types(is_double, is_int64, [&](auto t, auto i) {
    using T = decltype(t);
    using I = decltype(i);
    const auto op = Csr{rowptr, col, value}.as<T, I>(original, rows, rows);
    const auto transpose = Csr{rowptr_t, col_t, value_t}.as<T, I>(original, rows, rows);
    tgd::gradients<T, I>({at<T>(dx), at<T>(dvalue), at<double>(dtable), kinds}, at<const T>(x), at<const T>(g), op,
                         transpose, batch, columns, recurrence, at<const std::uint64_t>(seeds), how);
  });
}

void knn(uintptr_t index, uintptr_t points, int64_t dim, uintptr_t start, int64_t sets, int64_t k,
         bool single, int threads, const std::string& level) {
  const tgd::Sets all{at<const double>(points), dim, at<const int64_t>(start), sets};
  const tgd::Level& chosen = level.empty() ? *tgd::levels()[0] : *find_level(level);
  const nb::gil_scoped_release release;
  tgd::knn(at<int64_t>(index), all, k, single, threads, chosen);
}

void knn_of(uintptr_t index, uintptr_t known, int64_t num_known, uintptr_t asked, int64_t num_asked,
            int64_t dim, int64_t k, bool single, int threads, const std::string& level) {
  const int64_t starts[2][2] = {{0, num_known}, {0, num_asked}};
  const tgd::Sets sets[2] = {{at<const double>(known), dim, starts[0], 1},
                             {at<const double>(asked), dim, starts[1], 1}};
  const tgd::Level& chosen = level.empty() ? *tgd::levels()[0] : *find_level(level);
  const nb::gil_scoped_release release;
  tgd::knn_of(at<int64_t>(index), sets[0], sets[1], k, single, threads, chosen);
}

}  // namespace

void bind_build(nb::module_& m);      // build_module.cpp
void bind_attention(nb::module_& m);  // attention_module.cpp

NB_MODULE(_C, m) {
  bind_build(m);
  bind_attention(m);
  m.doc() = "The CPU kernel; torch_geometric_diff.ops.kernels.cpu and .graph.sets call it.";
  m.def("levels", &level_names, "Names of the usable instruction sets, best first.");
  m.def("tile_widths", &tile_widths, "Widths of the tiles of so many columns, of which `fit` lie in the nearest cache.");
  m.def("propagate", &propagate, "K steps of a recurrence. The arrays are given by address and not checked.");
  m.def("gradients", &gradients, "Gradients of a recurrence; null addresses are not wanted.");
  m.def("knn", &knn, "The k nearest others of every point within its set. The arrays are as above.");
  m.def("knn_of", &knn_of, "The k nearest known points of every asked one. The arrays are as above.");
}
