// Fuzzed recurrences against a dense reference in double precision, and gradients against differences, on
// every instruction set of this processor and for several numbers of threads. Built by CMake with
// -DTGD_TESTS=ON, under AddressSanitizer and UndefinedBehaviorSanitizer; all arrays have exactly the size
// they need.
#include "gradients.h"
#include "propagate.h"

#include "draws.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

std::uint32_t mix32(std::uint32_t h) {
  h ^= h >> 16;
  h *= 0x7feb352du;
  h ^= h >> 15;
  h *= 0x846ca68bu;
  return h ^ (h >> 16);
}

bool keep(std::uint64_t seed, std::int64_t step, std::uint32_t row, std::uint32_t column, std::uint32_t threshold) {
  std::uint64_t s = seed + static_cast<std::uint64_t>(step + 1) * 0x9E3779B97F4A7C15u;
  s = (s ^ (s >> 30)) * 0xBF58476D1CE4E5B9u;
  s = (s ^ (s >> 27)) * 0x94D049BB133111EBu;
  s ^= s >> 31;
  const std::uint32_t a = mix32(row ^ static_cast<std::uint32_t>(s));
  const std::uint32_t b = mix32(row + static_cast<std::uint32_t>(s >> 32));
  std::uint32_t h = a + (16 * (column >> 5) + (column & 15)) * 0x9E3779B1u;
  h ^= h >> 16;
  h *= 0x7feb352du;
  h ^= h >> 15;
  h += b;
  h *= 0x846ca68bu;
  h ^= h >> 16;
  return ((h >> (16 * ((column >> 4) & 1))) & 0xffff) >= threshold;
}

// The same with these values.
template <class T>
std::unique_ptr<T[]> exact(const std::vector<double>& values) {
  std::unique_ptr<T[]> array(new T[values.size()]);
  for (std::size_t i = 0; i < values.size(); ++i) array[i] = static_cast<T>(values[i]);
  return array;
}

double draw_number() { return static_cast<double>(draw(-1000, 1000)) / 1000; }

// A random operator, its rows in random order, and the dense matrix that it is.
struct Graph {
  std::int64_t rows, sources;
  std::vector<double> dense, rowptr{0}, col, value, original;

  Graph(std::int64_t rows, std::int64_t sources, bool permuted, bool single)
      : rows(rows), sources(sources), dense(rows * sources) {
    const std::int64_t hub = draw(-2, rows - 1);
    const double density = static_cast<double>(draw(0, 3)) * 0.08;
    std::vector<std::int64_t> name(rows);
    for (std::int64_t i = 0; i < rows; ++i) name[i] = i;
    if (permuted) std::shuffle(name.begin(), name.end(), random_bits);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < sources; ++j) {
        if (i != hub && static_cast<double>(draw(0, 999)) / 1000 >= density) continue;
        const double v = single ? static_cast<float>(draw_number()) : draw_number();
        dense[name[i] * sources + (permuted ? name[j] : j)] = v;
        col.push_back(static_cast<double>(j));
        value.push_back(v);
      }
      rowptr.push_back(static_cast<double>(col.size()));
      original.push_back(static_cast<double>(name[i]));
    }
  }
};

using Matrix = std::vector<double>;  // of `columns` columns

void add(Matrix& to, double factor, const Matrix& from) {
  if (factor != 0)
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += factor * from[i];
}

// The formula of propagate.h, for one element of a batch.
std::vector<Matrix> dense_propagate(const std::vector<Matrix>& x, const Graph& graph, std::int64_t columns,
                                    const tgd::Recurrence& r, std::uint64_t seed, double& largest) {
  const auto injected = [&](std::int64_t rows, std::int64_t k) {
    Matrix z(rows * columns);
    for (int i = 0; i < r.inputs; ++i) add(z, r.c(i, k), x[i]);
    return z;
  };
  const auto drop = [&](Matrix& z, std::int64_t step) {
    if (!r.threshold) return;
    for (std::size_t e = 0; e < z.size(); ++e)
      z[e] *= keep(seed, step, static_cast<std::uint32_t>(e / columns), static_cast<std::uint32_t>(e % columns),
                   r.threshold) *
              (65536.0 / (65536.0 - r.threshold));
  };
  std::vector<Matrix> y(r.outputs, Matrix(graph.rows * columns));
  Matrix before, z = injected(graph.sources, 0);
  for (int o = 0; o < r.outputs; ++o) add(y[o], r.w(o, 0), z);
  for (std::int64_t k = 1; k <= r.steps; ++k) {
    Matrix source = z, product(graph.rows * columns);
    if (!r.reverse) drop(source, k - 1);
    for (std::int64_t i = 0; i < graph.rows; ++i)
      for (std::int64_t l = 0; l < graph.sources; ++l)
        if (const double v = r.a(k) * graph.dense[i * graph.sources + l]; v != 0)
          for (std::int64_t j = 0; j < columns; ++j) product[i * columns + j] += v * source[l * columns + j];
    add(product, r.d(k), source);
    if (r.reverse) drop(product, r.steps - k);
    if (k > 1) add(product, r.b(k), before);
    add(product, 1, injected(graph.rows, k));
    before = std::move(z);
    z = std::move(product);
    for (double& v : z) {
      if (r.bounded) v = std::min(std::max(v, r.low), r.high);
      largest = std::max(largest, std::abs(v));
    }
    for (int o = 0; o < r.outputs; ++o) add(y[o], r.w(o, k), z);
  }
  return y;
}

// Zeros, ones and others, so that every shortcut is met.
std::vector<double> draw_table(const tgd::Recurrence& r, bool plain) {
  const std::int64_t columns = r.steps + 1;
  std::vector<double> table((3 + r.inputs + r.outputs) * columns);
  const double values[] = {0, 0, 1, 1, -0.5, 0.3};
  for (double& v : table) v = values[draw(0, 5)];
  for (std::int64_t k = 0; k < columns; ++k) {
    if (r.threshold) table[2 * columns + k] = 0;
    if (!plain) continue;
    for (int row = 0; row < 5; ++row) table[row * columns + k] = row == 0;
  }
  if (plain) table[3 * columns] = table[5 * columns - 1] = 1;
  return table;
}

template <class T, class I>
int trial() {
  const bool plain = draw(0, 2) == 0;  // Euler diffusion; a single step may be a product with any matrix
  const int inputs = plain ? 1 : static_cast<int>(draw(1, 3)), outputs = plain ? 1 : static_cast<int>(draw(1, 3));
  const std::int64_t steps = draw(0, 5), rows = draw(1, 60), columns = draw(1, 200), batch = draw(1, 2);
  const bool product = plain && steps == 1 && draw(0, 1), permuted = !product && draw(0, 1);
  const std::uint32_t thresholds[] = {0, 0, 1, 16384, 65535};
  tgd::Recurrence r{
      nullptr, steps, inputs, outputs, product ? 0 : thresholds[draw(0, 4)], draw(0, 1) == 1, !plain && draw(0, 3) == 0,
      -0.5,    0.75};
  const auto table = exact<double>(draw_table(r, plain));
  r.table = table.get();
  const Graph graph(rows, product ? draw(0, 60) : rows, permuted, sizeof(T) == 4);
  std::vector<std::uint64_t> seeds(batch);
  for (auto& seed : seeds) seed = random_bits();
  std::vector<double> x(inputs * batch * graph.sources * columns);
  for (auto& v : x) v = sizeof(T) == 4 ? static_cast<float>(draw_number()) : draw_number();

  std::vector<double> expected(outputs * batch * rows * columns);
  double largest = 1;
  for (std::int64_t b = 0; b < batch; ++b) {
    std::vector<Matrix> element;
    const std::int64_t size = graph.sources * columns, out = rows * columns;
    for (int i = 0; i < inputs; ++i) {
      const auto from = x.begin() + (i * batch + b) * size;
      element.emplace_back(from, from + size);
    }
    const auto y = dense_propagate(element, graph, columns, r, seeds[b], largest);
    for (int o = 0; o < outputs; ++o) std::copy(y[o].begin(), y[o].end(), expected.begin() + (o * batch + b) * out);
  }

  const auto rowptr = exact<I>(graph.rowptr), col = exact<I>(graph.col), original = exact<I>(graph.original);
  const auto value = exact<T>(graph.value), px = exact<T>(x);
  const tgd::Operator<T, I> op{rowptr.get(), col.get(),    value.get(), permuted ? original.get() : nullptr,
                               rows,         graph.sources};
  const double tolerance = (sizeof(T) == 4 ? 1e-4 : 1e-11) * largest;
  for (auto level = tgd::levels(); *level; ++level) {
    std::vector<T> first;
    for (const int threads : {1, 2, 4})
      for (const int width : {0, 1, 4, 16}) {
        std::unique_ptr<T[]> y(new T[expected.size()]);
        tgd::propagate<T, I>(y.get(), px.get(), op, batch, columns, r, seeds.data(), {threads, *level, width});
        if (first.empty()) first.assign(y.get(), y.get() + expected.size());
        for (std::size_t i = 0; i < expected.size(); ++i)
          if (y[i] != first[i] || !(std::abs(y[i] - expected[i]) <= tolerance)) {
            std::printf("%s: %td rows, %td columns, %td steps, threads %d, width %d: [%zu] %g, not %g\n",
                        (*level)->name, rows, columns, steps, threads, width, i, static_cast<double>(y[i]),
                        expected[i]);
            return 1;
          }
      }
  }
  return 0;
}

std::vector<double> draw_numbers(std::size_t count) {
  std::vector<double> numbers(count);
  for (auto& v : numbers) v = draw_number();
  return numbers;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// The gradient in a random direction against a difference quotient of fourth order.
template <class T, class I>
int gradient_trial() {
  const int inputs = static_cast<int>(draw(1, 3)), outputs = static_cast<int>(draw(1, 3));
  const std::int64_t steps = draw(0, 9), rows = draw(1, 40), columns = draw(1, 140), batch = draw(1, 2);
  const std::uint32_t threshold = draw(0, 1) ? 16384 : 0;
  tgd::Recurrence r{nullptr, steps, inputs, outputs, threshold};
  const Graph graph(rows, rows, false, false);
  const auto table = draw_table(r, false), x = draw_numbers(inputs * batch * rows * columns),
             g = draw_numbers(outputs * batch * rows * columns);
  std::vector<std::uint64_t> seeds(batch);
  for (auto& seed : seeds) seed = random_bits();
  std::vector<double> rowptr_t{0}, col_t, value_t;
  for (std::int64_t j = 0; j < rows; ++j) {
    for (std::int64_t i = 0; i < rows; ++i)
      for (auto e = static_cast<std::int64_t>(graph.rowptr[i]); e < static_cast<std::int64_t>(graph.rowptr[i + 1]); ++e)
        if (static_cast<std::int64_t>(graph.col[e]) == j) {
          col_t.push_back(static_cast<double>(i));
          value_t.push_back(graph.value[e]);
        }
    rowptr_t.push_back(static_cast<double>(col_t.size()));
  }
  auto vx = draw_numbers(x.size()), vvalue = draw_numbers(graph.value.size()), vtable = draw_numbers(table.size());
  for (std::int64_t k = 0; k <= steps; ++k) {
    for (int row = 0; row < 3; ++row)
      if (k == 0 || (row == 2 && (k == 1 || threshold))) vtable[row * (steps + 1) + k] = 0;
  }
  const auto rowptr = exact<I>(graph.rowptr), col = exact<I>(graph.col), prowptr_t = exact<I>(rowptr_t),
             pcol_t = exact<I>(col_t);
  const auto loss = [&](double h) {
    const auto moved = [&](const std::vector<double>& from, const std::vector<double>& by) {
      auto to = from;
      add(to, h, by);
      return to;
    };
    const auto mx = moved(x, vx), mvalue = moved(graph.value, vvalue), mtable = moved(table, vtable);
    tgd::Recurrence at = r;
    at.table = mtable.data();
    std::vector<double> y(g.size());
    tgd::propagate<double, I>(y.data(), mx.data(), {rowptr.get(), col.get(), mvalue.data(), nullptr, rows, rows}, batch,
                              columns, at, seeds.data(), {});
    return dot(y, g);
  };
  const double h = 1e-3;
  const double expected = (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h);

  const auto px = exact<T>(x), pg = exact<T>(g), value = exact<T>(graph.value), pvalue_t = exact<T>(value_t);
  const auto ptable = exact<double>(table);
  r.table = ptable.get();
  const tgd::Operator<T, I> op{rowptr.get(), col.get(), value.get(), nullptr, rows, rows};
  const tgd::Operator<T, I> transpose{prowptr_t.get(), pcol_t.get(), pvalue_t.get(), nullptr, rows, rows};
  for (auto level = tgd::levels(); *level; ++level)
    for (const int width : {0, 1}) {
      std::vector<double> first;
      for (const int run : {0, 1, 2, 3, 4}) {  // of threads, of states in memory, and of what else is wanted
        const int threads = run < 3 ? 1 << run : 2, states = run == 1 ? 0 : 3;
        const unsigned kinds = run < 3 ? 31 : run == 3 ? 0 : tgd::kD;
        std::unique_ptr<T[]> dx(new T[x.size()]), dvalue(new T[graph.value.size()]);
        std::unique_ptr<double[]> dtable(new double[table.size()]);
        tgd::gradients<T, I>({dx.get(), dvalue.get(), dtable.get(), kinds}, px.get(), pg.get(), op, transpose, batch,
                             columns, r, seeds.data(), {threads, *level, width, states});
        std::vector<double> all(dx.get(), dx.get() + x.size());
        all.insert(all.end(), dvalue.get(), dvalue.get() + graph.value.size());
        all.insert(all.end(), dtable.get(), dtable.get() + table.size());
        if (kinds < 31)
          std::copy(first.end() - static_cast<std::ptrdiff_t>(table.size()), first.end(),
                    all.end() - static_cast<std::ptrdiff_t>(table.size()));
        if (first.empty()) first = all;
        std::vector<double> direction = vx;
        direction.insert(direction.end(), vvalue.begin(), vvalue.end());
        direction.insert(direction.end(), vtable.begin(), vtable.end());
        double scale = 1;
        for (std::size_t i = 0; i < all.size(); ++i) scale += std::abs(all[i] * direction[i]);
        const double got = dot(all, direction);
        if (all != first || !(std::abs(got - expected) <= (sizeof(T) == 4 ? 1e-4 : 1e-7) * scale)) {
          std::printf("%s: gradients, %td rows, %td columns, %td steps, run %d, width %d: %g, not %g\n", (*level)->name,
                      rows, columns, steps, run, width, got, expected);
          return 1;
        }
      }
    }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  random_bits.seed(7);
  const int trials = argc > 1 ? std::atoi(argv[1]) : 100;
  int failed = 0;
  for (int i = 0; i < trials; ++i) {
    failed += trial<float, std::int32_t>() + trial<float, std::int64_t>();
    failed += trial<double, std::int32_t>() + trial<double, std::int64_t>();
    failed += gradient_trial<float, std::int32_t>() + gradient_trial<double, std::int64_t>();
  }
  std::printf("%d of %d trials failed\n", failed, 6 * trials);
  return failed != 0;
}
