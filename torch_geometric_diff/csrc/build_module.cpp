#include <nanobind/nanobind.h>
#include <nanobind/stl/unique_ptr.h>

#include <algorithm>

#include "build.h"

namespace nb = nanobind;
using std::int64_t;
using std::uintptr_t;

namespace {

template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

tgd::Edges edges(uintptr_t row, uintptr_t col, uintptr_t weight, int weight_bytes, int64_t count, int64_t nodes) {
  return {at<const int64_t>(row), at<const int64_t>(col), at<const void>(weight), weight_bytes, count, nodes};
}

std::unique_ptr<tgd::Build> build(uintptr_t row, uintptr_t col, uintptr_t weight, int weight_bytes, int64_t count,
                                  int64_t nodes, int normalization, int diagonal, double scale, bool count_loops,
                                  bool is_signed, int threads) {
  const tgd::Recipe recipe{static_cast<tgd::Normalization>(normalization), static_cast<tgd::Diagonal>(diagonal),
                           scale, count_loops, is_signed};
  nb::gil_scoped_release release;
  return tgd::build(edges(row, col, weight, weight_bytes, count, nodes), recipe, threads);
}

bool fill(tgd::Build& self, uintptr_t rowptr, uintptr_t col, uintptr_t value, bool is_double, int threads) {
  nb::gil_scoped_release release;
  return self.fill(at<void>(rowptr), at<void>(col), at<void>(value), is_double, threads);
}

std::unique_ptr<tgd::Pattern> pattern(uintptr_t row, uintptr_t col, int64_t count, int64_t nodes, int threads) {
  nb::gil_scoped_release release;
  return tgd::pattern(edges(row, col, 0, 0, count, nodes), threads);
}

void fill_pattern(tgd::Pattern& self, uintptr_t rowptr, uintptr_t col, uintptr_t entry, int threads) {
  nb::gil_scoped_release release;
  self.fill(at<void>(rowptr), at<void>(col), at<void>(entry), threads);
}

int symmetry(uintptr_t rowptr, uintptr_t col, uintptr_t value, int value_bytes, bool is_int64, int64_t nodes,
             int threads) {
  nb::gil_scoped_release release;
  const auto run = [&](auto index) {
    using I = decltype(index);
    return tgd::symmetry(at<const I>(rowptr), at<const I>(col), at<const void>(value), value_bytes, nodes, threads);
  };
  return static_cast<int>(is_int64 ? run(int64_t{}) : run(std::int32_t{}));
}

void transpose(uintptr_t rowptr_t, uintptr_t col_t, uintptr_t entry, uintptr_t rowptr, uintptr_t col,
               bool is_int64, int64_t nodes, int threads) {
  nb::gil_scoped_release release;
  const auto run = [&](auto index) {
    using I = decltype(index);
    tgd::transpose(at<I>(rowptr_t), at<I>(col_t), at<I>(entry), at<const I>(rowptr), at<const I>(col), nodes,
                   threads);
  };
  if (is_int64) run(int64_t{}); else run(std::int32_t{});
}

}  // namespace

void bind_build(nb::module_& m) {
  nb::class_<tgd::Build>(m, "Build")
      .def_ro("valid", &tgd::Build::valid)
      .def_ro("is_int64", &tgd::Build::is_int64)
      .def_ro("entries", &tgd::Build::entries)
      .def_ro("largest_degree", &tgd::Build::largest_degree)
      .def("fill", &fill);
  nb::class_<tgd::Pattern>(m, "Pattern")
      .def_ro("valid", &tgd::Pattern::valid)
      .def_ro("is_int64", &tgd::Pattern::is_int64)
      .def_ro("entries", &tgd::Pattern::entries)
      .def("fill", &fill_pattern);
  m.def("build", &build, "Edges sorted into the CSR of an operator, which `fill` writes.");
  m.def("pattern", &pattern, "The same for the pattern alone.");
  m.def("symmetry", &symmetry, "0: the pattern differs from its transpose's, 1: only values do, 2: equal.");
  m.def("transpose", &transpose, "The transposed pattern and the entry at each of its places.");
}
