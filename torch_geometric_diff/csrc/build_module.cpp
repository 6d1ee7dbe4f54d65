#include <nanobind/nanobind.h>
#include <nanobind/stl/unique_ptr.h>

#include <memory>

#include "build.h"
#include "tensors.h"

namespace nb = nanobind;
using std::int64_t;
using tgd::border::Array;
using tgd::border::Csr;
using tgd::border::Type;

namespace {

tgd::Edges edges(const Array& row, const Array& col, const Array& weight, int64_t nodes) {
  const void* weights = nullptr;
  if (weight.type() == Type::float32) weights = weight.as<const float>(row.size());
  else if (weight) weights = weight.as<const double>(row.size());
  const int bytes = !weight ? 0 : weight.type() == Type::float32 ? 4 : 8;
  return {row.as<const int64_t>(), col.as<const int64_t>(row.size()), weights, bytes, row.size(), nodes};
}

std::unique_ptr<tgd::Build> build(nb::handle row, nb::handle col, nb::handle weight, int64_t nodes,
                                  tgd::Normalization normalization, tgd::Diagonal diagonal, double scale,
                                  bool count_loops, bool is_signed, int threads) {
  const tgd::Edges given = edges({row, "row"}, {col, "col"}, {weight, "weight"}, nodes);
  const nb::gil_scoped_release release;
  return tgd::build(given, {normalization, diagonal, scale, count_loops, is_signed}, threads);
}

std::unique_ptr<tgd::Pattern> pattern(nb::handle row, nb::handle col, int64_t nodes, int threads) {
  const tgd::Edges given = edges({row, "row"}, {col, "col"}, {nb::none(), "weight"}, nodes);
  const nb::gil_scoped_release release;
  return tgd::pattern(given, threads);
}

// The address of an array of indices to be filled, of the type that `made` asks for.
void* index(const tgd::Sorted& made, nb::handle tensor, const char* name, int64_t size) {
  const Array array(tensor, name);
  if (made.is_int64) return array.as<int64_t>(size);
  return array.as<std::int32_t>(size);
}

bool fill(tgd::Build& self, nb::handle rowptr, nb::handle col, nb::handle value, int threads) {
  void* const starts = index(self, rowptr, "rowptr", self.nodes + 1);
  void* const cols = index(self, col, "col", self.entries);
  const Array values(value, "value");
  const bool is_double = values.type() == Type::float64;
  void* const entries =
      is_double ? static_cast<void*>(values.as<double>(self.entries)) : values.as<float>(self.entries);
  const nb::gil_scoped_release release;
  return self.fill(starts, cols, entries, is_double, threads);
}

void fill_pattern(tgd::Pattern& self, nb::handle rowptr, nb::handle col, nb::handle entry, int threads) {
  void* const starts = index(self, rowptr, "rowptr", self.nodes + 1);
  void* const cols = index(self, col, "col", self.entries);
  void* const entries = index(self, entry, "entry", self.edges);
  const nb::gil_scoped_release release;
  self.fill(starts, cols, entries, threads);
}

tgd::Symmetry symmetry(nb::handle rowptr, nb::handle col, nb::handle value, int threads) {
  const Csr csr(rowptr, col);
  const Array values(value, "value");
  return csr.with_index([&](auto i) {
    using I = decltype(i);
    const I *starts = csr.rowptr.as<const I>(), *cols = csr.col.as<const I>();
    const void* entries = nullptr;
    const bool is_float = values.type() == Type::float32;
    if (values)
      entries = is_float ? static_cast<const void*>(values.as<const float>(csr.col.size()))
                         : values.as<const double>(csr.col.size());
    const nb::gil_scoped_release release;
    return tgd::symmetry(starts, cols, entries, !values ? 0 : is_float ? 4 : 8, csr.rows, threads);
  });
}

void transpose(nb::handle rowptr_t, nb::handle col_t, nb::handle entry, nb::handle rowptr, nb::handle col,
               int threads) {
  const Csr csr(rowptr, col);
  csr.with_index([&](auto i) {
    using I = decltype(i);
    I* const starts_t = Array(rowptr_t, "rowptr_t").as<I>(csr.rows + 1);
    I* const cols_t = Array(col_t, "col_t").as<I>(csr.col.size());
    I* const entries = Array(entry, "entry").as<I>(csr.col.size());
    const I *starts = csr.rowptr.as<const I>(), *cols = csr.col.as<const I>();
    const nb::gil_scoped_release release;
    tgd::transpose(starts_t, cols_t, entries, starts, cols, csr.rows, threads);
  });
}

}  // namespace

void bind_build(nb::module_& m) {
  using namespace nb::literals;
  nb::enum_<tgd::Normalization>(m, "Normalization")
      .value("none", tgd::Normalization::none)
      .value("sym", tgd::Normalization::symmetric)
      .value("row", tgd::Normalization::row);
  nb::enum_<tgd::Diagonal>(m, "Diagonal")
      .value("given", tgd::Diagonal::given)
      .value("step", tgd::Diagonal::step)
      .value("keep", tgd::Diagonal::keep)
      .value("add", tgd::Diagonal::add)
      .value("set", tgd::Diagonal::set);
  nb::enum_<tgd::Symmetry>(m, "Symmetry")
      .value("none", tgd::Symmetry::none)
      .value("pattern", tgd::Symmetry::pattern)
      .value("full", tgd::Symmetry::full);
  nb::class_<tgd::Sorted>(m, "Sorted")
      .def_ro("valid", &tgd::Sorted::valid)
      .def_ro("is_int64", &tgd::Sorted::is_int64)
      .def_ro("entries", &tgd::Sorted::entries);
  nb::class_<tgd::Build, tgd::Sorted>(m, "Build")
      .def_ro("largest_degree", &tgd::Build::largest_degree)
      .def("fill", &fill, "rowptr"_a, "col"_a, "value"_a, "threads"_a);
  nb::class_<tgd::Pattern, tgd::Sorted>(m, "Pattern")
      .def("fill", &fill_pattern, "rowptr"_a, "col"_a, "entry"_a, "threads"_a);
  m.def("build", &build, "row"_a, "col"_a, "weight"_a.none(), "nodes"_a, "normalization"_a, "diagonal"_a, "scale"_a,
        "count_loops"_a, "signed"_a, "threads"_a, "Edges sorted into the CSR of an operator, which `fill` writes.");
  m.def("pattern", &pattern, "row"_a, "col"_a, "nodes"_a, "threads"_a, "The same for the pattern alone.");
  m.def("symmetry", &symmetry, "rowptr"_a, "col"_a, "value"_a.none(), "threads"_a,
        "Whether a CSR equals its transpose, or only its pattern does.");
  m.def("transpose", &transpose, "rowptr_t"_a.none(), "col_t"_a.none(), "entry"_a, "rowptr"_a, "col"_a, "threads"_a,
        "The transposed pattern (None if it is the same) and the entry at each of its places.");
}
