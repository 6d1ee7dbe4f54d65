// Fuzzed operators against a dense reference in double precision, on every instruction set of this
// processor and for several numbers of threads. Built by CMake with -DTGD_TESTS=ON, under
// AddressSanitizer and UndefinedBehaviorSanitizer; all arrays have exactly the size they need.
#include "diffuse.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

namespace {

std::mt19937_64 random_bits(7);

std::int64_t draw(std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(random_bits);
}

std::uint32_t mix32(std::uint32_t h) {
  h ^= h >> 16;
  h *= 0x7feb352du;
  h ^= h >> 15;
  h *= 0x846ca68bu;
  return h ^ (h >> 16);
}

bool keep(std::uint64_t seed, std::int64_t step, std::uint32_t row, std::uint32_t column,
          std::uint32_t threshold) {
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

// An exactly sized array on the heap, so that a read past its end is seen.
template <class T>
std::unique_ptr<T[]> exact(const std::vector<double>& values) {
  std::unique_ptr<T[]> array(new T[values.size()]);
  for (std::size_t i = 0; i < values.size(); ++i) array[i] = static_cast<T>(values[i]);
  return array;
}

template <class T, class I>
int trial() {
  tgd::Options options;
  options.steps = draw(0, 5);
  const std::int64_t rows = draw(1, 60), columns = draw(1, 300), hub = draw(-2, rows - 1);
  // a single step may be a product with any matrix
  const bool product = options.steps == 1 && draw(0, 1);
  const std::int64_t sources = product ? draw(0, 60) : rows;
  const double density = draw(0, 3) * 0.08;
  std::vector<double> dense(rows * sources), rowptr{0}, col, value, original, x(sources * columns);
  for (auto& v : x) v = static_cast<double>(draw(-1000, 1000)) / 1000;
  std::vector<std::int64_t> name(rows);
  for (std::int64_t i = 0; i < rows; ++i) name[i] = i;
  const bool permuted = !product && draw(0, 1);
  if (permuted) std::shuffle(name.begin(), name.end(), random_bits);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < sources; ++j) {
      if (i != hub && static_cast<double>(draw(0, 999)) / 1000 >= density) continue;
      const double v = static_cast<double>(draw(-1000, 1000)) / 1000;
      dense[name[i] * sources + (product ? j : name[j])] = static_cast<T>(v);
      col.push_back(static_cast<double>(j));
      value.push_back(v);
    }
    rowptr.push_back(static_cast<double>(col.size()));
    original.push_back(static_cast<double>(name[i]));
  }
  const std::uint32_t thresholds[] = {0, 0, 1, 16384, 65535};
  options.threshold = product ? 0 : thresholds[draw(0, 4)];
  options.seed = random_bits();
  options.reverse = draw(0, 1);

  std::vector<double> y(x.size());
  const auto px = exact<T>(x);
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = px[i];
  const double scale = 65536.0 / (65536.0 - options.threshold);
  double largest = 1;
  for (std::int64_t k = 0; k < options.steps; ++k) {
    const std::int64_t step = options.reverse ? options.steps - 1 - k : k;
    const auto drop = [&] {
      if (!options.threshold) return;
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < columns; ++j)
          y[i * columns + j] *=
              keep(options.seed, step, static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(j),
                   options.threshold) * scale;
    };
    if (!options.reverse) drop();
    std::vector<double> next(rows * columns);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t l = 0; l < sources; ++l)
        if (const double w = dense[i * sources + l]; w != 0)
          for (std::int64_t j = 0; j < columns; ++j) next[i * columns + j] += w * y[l * columns + j];
    y.swap(next);
    if (options.reverse) drop();
    for (const double v : y) largest = std::max(largest, std::abs(v));
  }

  const auto prowptr = exact<I>(rowptr), pcol = exact<I>(col), poriginal = exact<I>(original);
  const auto pvalue = exact<T>(value);
  const tgd::Operator<T, I> op{prowptr.get(), pcol.get(), pvalue.get(),
                               permuted ? poriginal.get() : nullptr, rows, sources};
  const double tolerance = (sizeof(T) == 4 ? 1e-4 : 1e-11) * largest;
  for (auto level = tgd::levels(); *level; ++level) {
    std::vector<T> first;
    for (const int threads : {1, 2, 4})
      for (const int width : {0, 1, 4}) {
        options.level = *level;
        options.threads = threads;
        options.width = width;
        std::unique_ptr<T[]> out(new T[y.size()]);
        tgd::diffuse<T, I>(out.get(), px.get(), op, columns, options);
        if (first.empty()) first.assign(out.get(), out.get() + y.size());
        for (std::size_t i = 0; i < y.size(); ++i)
          if (out[i] != first[i] || !(std::abs(out[i] - y[i]) <= tolerance)) {
            std::printf("%s: %td rows, %td columns, %td steps, threads %d, width %d: [%zu] %g, not %g\n",
                        (*level)->name, rows, columns, options.steps, threads, width, i,
                        static_cast<double>(out[i]), y[i]);
            return 1;
          }
      }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const int trials = argc > 1 ? std::atoi(argv[1]) : 100;
  int failed = 0;
  for (int i = 0; i < trials; ++i) {
    failed += trial<float, std::int32_t>() + trial<float, std::int64_t>();
    failed += trial<double, std::int32_t>() + trial<double, std::int64_t>();
  }
  std::printf("%d of %d trials failed\n", failed, 4 * trials);
  return failed != 0;
}
