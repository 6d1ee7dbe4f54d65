#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "gradients.h"
#include "knn.h"
#include "plan.h"
#include "propagate.h"
#include "tensors.h"

namespace nb = nanobind;
using std::int64_t;
using tgd::border::Array;
using tgd::border::Csr;
using tgd::border::Type;

namespace {

std::vector<std::string> level_names() {
  std::vector<std::string> names;
  for (auto level = tgd::levels(); *level; ++level) names.emplace_back((*level)->name);
  return names;
}

const tgd::Level* find_level(const std::string& name) {
  if (name.empty()) return *tgd::levels();
  for (auto level = tgd::levels(); *level; ++level)
    if (name == (*level)->name) return *level;
  throw std::invalid_argument("Expected 'level' to be an instruction set of this processor (got '" + name + "')");
}

std::vector<int> tile_widths(int64_t columns, int widest, int64_t fit) {
  std::vector<int> widths;
  for (const tgd::Tile& tile : tgd::cut_columns(columns, widest, {fit})) widths.push_back(tile.width);
  return widths;
}

// An operator's CSR with its values, and the rows of the features that its rows act on.
struct Matrix : Csr {
  Array value, original;

  Matrix(const nb::tuple& csr, nb::handle original)
      : Csr(csr[0], csr[1]), value(csr[2], "value"), original(original, "original") {}

  template <class T, class I>
  tgd::Operator<T, I> as(int64_t sources) const {
    return {rowptr.as<const I>(),
            col.as<const I>(),
            value.as<const T>(col.size()),
            original.as<const I>(rows),
            rows,
            sources};
  }
};

// A table of coefficients, of rows a, d, b, one of c for each input and one of w for each output.
tgd::Recurrence recurrence(const Array& table, int64_t inputs, int threshold) {
  const auto [rows, columns] = table.shape<2>();
  if (rows < 3 + inputs || columns < 1)
    throw std::invalid_argument("Expected 'table' to have a column and at least " + std::to_string(3 + inputs) +
                                " rows (got " + std::to_string(columns) + " and " + std::to_string(rows) + ")");
  tgd::Recurrence r{table.as<const double>(), columns - 1};
  r.inputs = static_cast<int>(inputs);
  r.outputs = static_cast<int>(rows - 3 - inputs);
  r.threshold = static_cast<std::uint32_t>(threshold);
  return r;
}

const std::uint64_t* seeds_of(const Array& seeds, int64_t batch, int threshold) {
  if (threshold == 0) return nullptr;
  return reinterpret_cast<const std::uint64_t*>(seeds.as<const int64_t>(batch));
}

// Calls f with a T and an I.
template <class F>
void with_types(const Array& x, const Csr& csr, const F& f) {
  csr.with_index([&](auto i) { x.type() == Type::float64 ? f(double{}, i) : f(float{}, i); });
}

void propagate(nb::handle y, nb::handle x, const nb::tuple& csr, nb::handle table, nb::handle seeds, int threshold,
               bool reverse, std::optional<std::pair<double, double>> bounds, nb::handle original, nb::handle within,
               int threads, const std::string& level, int width) {
  const Array to(y, "y"), from(x, "x"), near(within, "within"), seed(seeds, "seeds");
  const Matrix matrix(csr, original);
  const auto [inputs, batch, x_rows, columns] = from.shape<4>();
  tgd::Recurrence r = recurrence({table, "table"}, inputs, threshold);
  r.reverse = reverse;
  r.bounded = bounds.has_value();
  if (bounds) std::tie(r.low, r.high) = *bounds;
  const tgd::Reach reach{near.as<const int64_t>(), near.size()};
  if (near && near.size() == 0)
    throw std::invalid_argument("Expected 'within' to have at least one element (got none)");
  const int64_t x_wanted = near && reverse ? reach.within[0] : near || matrix.original ? matrix.rows : x_rows;
  if (x_rows != x_wanted)
    throw std::invalid_argument("Expected 'x' to have " + std::to_string(x_wanted) + " rows (got " +
                                std::to_string(x_rows) + ")");
  const int64_t sources = near ? matrix.rows : x_rows, wanted = near && !reverse ? reach.within[0] : matrix.rows;
  const int64_t y_size = r.outputs * batch * wanted * columns;
  const std::uint64_t* seed_of_batch = seeds_of(seed, batch, threshold);
  const tgd::Options options{threads, find_level(level), width};
  with_types(from, matrix, [&](auto t, auto i) {
    using T = decltype(t);
    const auto op = matrix.as<T, decltype(i)>(sources);
    T* output = to.as<T>(y_size);
    const T* input = from.as<const T>();
    const nb::gil_scoped_release release;
    tgd::propagate(output, input, op, batch, columns, r, seed_of_batch, options, near ? &reach : nullptr);
  });
}

void multiply_tile(nb::handle y, nb::handle x, const nb::tuple& csr, int64_t first, int count, int threads) {
  const Array to(y, "y"), from(x, "x");
  const Matrix matrix(csr, nb::none());
  const auto [rows, columns] = to.shape<2>();
  const auto [sources, width] = from.shape<2>();
  if (rows != matrix.rows || first < 0 || count < 1 || first + count > columns || count > width)
    throw std::invalid_argument("Expected 'y' to have the " + std::to_string(matrix.rows) +
                                " rows of the operator and " + std::to_string(count) + " columns from " +
                                std::to_string(first) + " on");
  if (width > 16 || (width & (width - 1)))
    throw std::invalid_argument("Expected 'x' to have 1, 2, 4, 8 or 16 columns (got " + std::to_string(width) + ")");
  const tgd::Tile tile{first, static_cast<int>(width), count};
  with_types(from, matrix, [&](auto t, auto i) {
    using T = decltype(t);
    const auto op = matrix.as<T, decltype(i)>(sources);
    T* output = to.as<T>();
    const T* input = from.as<const T>();
    const nb::gil_scoped_release release;
    tgd::multiply_tile(output, input, op, columns, tile, {threads});
  });
}

unsigned coefficients(const std::string& letters) {
  unsigned kinds = 0;
  for (const char letter : letters) {
    const auto at = std::string("adbcw").find(letter);
    if (at == std::string::npos)
      throw std::invalid_argument("Expected 'coefficients' to be of the letters 'adbcw' (got '" + letters + "')");
    kinds |= 1u << at;  // as in tgd::Coefficients
  }
  return kinds;
}

void gradients(nb::handle dx, nb::handle dvalue, nb::handle dtable, nb::handle x, nb::handle g, const nb::tuple& csr,
               const nb::tuple& csr_t, nb::handle table, nb::handle seeds, int threshold, const std::string& letters,
               nb::handle original, int threads, const std::string& level, int width) {
  const Array from(x, "x"), given(g, "g"), seed(seeds, "seeds"), to_x(dx, "dx"), to_value(dvalue, "dvalue"),
      to_table(dtable, "dtable");
  const Matrix matrix(csr, original), transpose(csr_t, original);
  const auto [inputs, batch, rows, columns] = from.shape<4>();
  const tgd::Recurrence r = recurrence({table, "table"}, inputs, threshold);
  const int64_t size = batch * rows * columns;
  if (rows != matrix.rows || rows != transpose.rows)
    throw std::invalid_argument("Expected 'x' to have the " + std::to_string(matrix.rows) +
                                " rows of the operator (got " + std::to_string(rows) + ")");
  const unsigned kinds = coefficients(letters);
  const std::uint64_t* seed_of_batch = seeds_of(seed, batch, threshold);
  const tgd::Options options{threads, find_level(level), width};
  with_types(from, matrix, [&](auto t, auto i) {
    using T = decltype(t);
    using I = decltype(i);
    const auto op = matrix.as<T, I>(rows), op_t = transpose.as<T, I>(rows);
    const tgd::Gradients<T> to{to_x.as<T>(inputs * size), to_value.as<T>(matrix.col.size()),
                               to_table.as<double>(r.table_size()), kinds};
    const T *input = from.as<const T>(), *gradient = given.as<const T>(r.outputs * size);
    const nb::gil_scoped_release release;
    tgd::gradients<T, I>(to, input, gradient, op, op_t, batch, columns, r, seed_of_batch, options);
  });
}

void knn(nb::handle index, nb::handle points, nb::handle start, bool single, int threads, const std::string& level) {
  const Array to(index, "index"), rows(points, "points"), starts(start, "start");
  const auto [size, dim] = rows.shape<2>();
  const int64_t k = to.shape<2>()[1];
  const auto* bounds = starts.as<const int64_t>();
  if (starts.size() < 1 || bounds[starts.size() - 1] != size)
    throw std::invalid_argument("Expected 'start' to end with the " + std::to_string(size) + " points");
  const tgd::Sets sets{rows.as<const double>(), dim, bounds, starts.size() - 1};
  auto* nearest = to.as<int64_t>(size * k);
  const tgd::Level& chosen = *find_level(level);
  const nb::gil_scoped_release release;
  tgd::knn(nearest, sets, k, single, threads, chosen);
}

void knn_of(nb::handle index, nb::handle known, nb::handle asked, bool single, int threads, const std::string& level) {
  const Array to(index, "index"), known_rows(known, "known"), asked_rows(asked, "asked");
  const auto [num_known, dim] = known_rows.shape<2>();
  const auto [num_asked, k] = to.shape<2>();
  const int64_t starts[2][2] = {{0, num_known}, {0, num_asked}};
  const tgd::Sets sets[2] = {{known_rows.as<const double>(), dim, starts[0], 1},
                             {asked_rows.as<const double>(num_asked * dim), dim, starts[1], 1}};
  auto* nearest = to.as<int64_t>();
  const tgd::Level& chosen = *find_level(level);
  const nb::gil_scoped_release release;
  tgd::knn_of(nearest, sets[0], sets[1], k, single, threads, chosen);
}

}  // namespace

void bind_build(nb::module_& m);      // build_module.cpp
void bind_attention(nb::module_& m);  // attention_module.cpp

NB_MODULE(_C, m) {
  using namespace nb::literals;
  bind_build(m);
  bind_attention(m);
  m.doc() = "The CPU kernels. Tensors are checked for device, contiguity, type and size; indices are not looked at.";
  m.def("levels", &level_names, "Names of the usable instruction sets, best first.");
  m.def("tile_widths", &tile_widths,
        "Widths of the tiles of so many columns, of which `fit` lie in the nearest cache.");
  m.def("propagate", &propagate, "y"_a, "x"_a, "csr"_a, "table"_a, "seeds"_a, "threshold"_a, "reverse"_a,
        "bounds"_a.none(), "original"_a.none(), "within"_a.none(), "threads"_a, "level"_a, "width"_a,
        "K steps of a recurrence.");
  m.def("multiply_tile", &multiply_tile, "y"_a, "x"_a, "csr"_a, "first"_a, "count"_a, "threads"_a,
        "Some columns of a product, of a tile of features.");
  m.def("gradients", &gradients, "dx"_a.none(), "dvalue"_a.none(), "dtable"_a.none(), "x"_a, "g"_a, "csr"_a, "csr_t"_a,
        "table"_a, "seeds"_a, "threshold"_a, "coefficients"_a, "original"_a.none(), "threads"_a, "level"_a, "width"_a,
        "Gradients of a recurrence, into those of dx, dvalue and dtable that are not None.");
  m.def("knn", &knn, "index"_a, "points"_a, "start"_a, "single"_a, "threads"_a, "level"_a,
        "The k nearest others of every point within its set.");
  m.def("knn_of", &knn_of, "index"_a, "known"_a, "asked"_a, "single"_a, "threads"_a, "level"_a,
        "The k nearest known points of every asked one.");
}
