#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "diffuse.h"

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

template <class T, class I>
void run(uintptr_t y, uintptr_t x, uintptr_t rowptr, uintptr_t col, uintptr_t value, uintptr_t original,
         int64_t rows, int64_t sources, int64_t columns, const tgd::Options& options) {
  const tgd::Operator<T, I> op{reinterpret_cast<const I*>(rowptr), reinterpret_cast<const I*>(col),
                               reinterpret_cast<const T*>(value), reinterpret_cast<const I*>(original),
                               rows, sources};
  nb::gil_scoped_release release;
  tgd::diffuse(reinterpret_cast<T*>(y), reinterpret_cast<const T*>(x), op, columns, options);
}

void diffuse(uintptr_t y, uintptr_t x, uintptr_t rowptr, uintptr_t col, uintptr_t value,
             uintptr_t original, int64_t rows, int64_t sources, int64_t columns, bool is_double,
             bool is_int64, int64_t steps, uint32_t threshold, uint64_t seed, bool reverse, int threads,
             const std::string& level, int width) {
  tgd::Options options;
  options.steps = steps;
  options.threshold = threshold;
  options.seed = seed;
  options.reverse = reverse;
  options.threads = threads;
  options.width = width;
  if (!level.empty()) options.level = find_level(level);
  const auto call = is_double ? (is_int64 ? run<double, int64_t> : run<double, int32_t>)
                              : (is_int64 ? run<float, int64_t> : run<float, int32_t>);
  call(y, x, rowptr, col, value, original, rows, sources, columns, options);
}

}  // namespace

NB_MODULE(_C, m) {
  m.doc() = "The CPU kernel; torch_geometric_diff.ops.kernels.cpu is its only caller.";
  m.def("levels", &level_names, "Names of the usable instruction sets, best first.");
  m.def("diffuse", &diffuse, "y = P D ... P D x. The arrays are given by address and not checked.",
        nb::arg("y"), nb::arg("x"), nb::arg("rowptr"), nb::arg("col"), nb::arg("value"),
        nb::arg("original"), nb::arg("rows"), nb::arg("sources"), nb::arg("columns"), nb::arg("is_double"),
        nb::arg("is_int64"), nb::arg("steps"), nb::arg("threshold"), nb::arg("seed"),
        nb::arg("reverse"), nb::arg("threads"), nb::arg("level") = "", nb::arg("width") = 0);
}
