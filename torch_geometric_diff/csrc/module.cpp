#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

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

template <class T, class I>
void run(uintptr_t y, uintptr_t x, uintptr_t rowptr, uintptr_t col, uintptr_t value, uintptr_t original,
         int64_t rows, int64_t sources, int64_t batch, int64_t columns, const tgd::Recurrence& recurrence,
         uintptr_t seeds, const tgd::Options& options) {
  const tgd::Operator<T, I> op{reinterpret_cast<const I*>(rowptr), reinterpret_cast<const I*>(col),
                               reinterpret_cast<const T*>(value), reinterpret_cast<const I*>(original),
                               rows, sources};
  nb::gil_scoped_release release;
  tgd::propagate(reinterpret_cast<T*>(y), reinterpret_cast<const T*>(x), op, batch, columns, recurrence,
                 reinterpret_cast<const std::uint64_t*>(seeds), options);
}

void propagate(uintptr_t y, uintptr_t x, uintptr_t rowptr, uintptr_t col, uintptr_t value,
               uintptr_t original, int64_t rows, int64_t sources, int64_t batch, int64_t columns,
               bool is_double, bool is_int64, uintptr_t table, int inputs, int outputs, int64_t steps,
               uint32_t threshold, uintptr_t seeds, bool reverse, bool bounded, double low, double high,
               int threads, const std::string& level, int width) {
  const tgd::Recurrence recurrence{reinterpret_cast<const double*>(table), steps, inputs, outputs,
                                   threshold, reverse, bounded, low, high};
  const tgd::Options options{threads, level.empty() ? nullptr : find_level(level), width};
  const auto call = is_double ? (is_int64 ? run<double, int64_t> : run<double, int32_t>)
                              : (is_int64 ? run<float, int64_t> : run<float, int32_t>);
  call(y, x, rowptr, col, value, original, rows, sources, batch, columns, recurrence, seeds, options);
}

}  // namespace

void bind_build(nb::module_& m);  // build_module.cpp

NB_MODULE(_C, m) {
  bind_build(m);
  m.doc() = "The CPU kernel; torch_geometric_diff.ops.kernels.cpu is its only caller.";
  m.def("levels", &level_names, "Names of the usable instruction sets, best first.");
  m.def("propagate", &propagate, "K steps of a recurrence. The arrays are given by address and not checked.");
}
