// Neighbors in random sets against a search of all pairs, for several numbers of threads and instruction
// sets, under the sanitizers (see CMakeLists.txt). All arrays have exactly the size they need.
#include "knn.h"

#include "draws.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <utility>
#include <vector>

namespace {

// Of what lies in [-1, 1]: a coarse grid, on which many distances tie, anything, or points so near to one
// another that single precision cannot tell them apart.
std::unique_ptr<double[]> draw_points(std::int64_t size, std::int64_t kind) {
  auto points = exact<double>(size);
  std::uniform_real_distribution<double> anything(-1, 1);
  for (std::int64_t i = 0; i < size; ++i) {
    points[i] = kind == 0 ? static_cast<double>(draw(-2, 2)) / 4 : anything(random_bits);
    if (kind == 2) points[i] = 0.5 + points[i] * 1e-9;
  }
  return points;
}

// Rows [begin, end) of `known` that are nearest to a point, all but row `self`.
std::vector<std::int64_t> nearest(const double* known, std::int64_t begin, std::int64_t end, const double* point,
                                  std::int64_t self, std::int64_t dim, std::int64_t k) {
  std::vector<std::pair<double, std::int64_t>> all;
  for (std::int64_t j = begin; j < end; ++j) {
    double squared = 0;
    for (std::int64_t d = 0; d < dim; ++d) {
      const double gap = point[d] - known[j * dim + d];
      squared += gap * gap;
    }
    if (j != self) all.push_back({squared, j});
  }
  std::sort(all.begin(), all.end());
  std::vector<std::int64_t> found(k, -1);
  for (std::int64_t n = 0; n < std::min<std::int64_t>(k, all.size()); ++n) found[n] = all[n].second;
  return found;
}

// What this processor can scan with, also where the kernel of that level was not built.
std::vector<tgd::Level> draw_levels() {
  std::vector<tgd::Level> levels{tgd::kBaseline};
#ifdef TGD_X86
  for (const char* name : {"avx2", "avx512"}) {
    tgd::Level level = tgd::kBaseline;
    level.name = name;
    if (name[3] == '2' ? __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
                       : __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
      levels.push_back(level);
  }
#endif
  return levels;
}

int trial(std::int64_t most) {
  const std::int64_t dims[] = {1, 2, 3, 5, 12, 13, 40}, dim = dims[draw(0, 6)], kind = draw(0, 2);
  const std::int64_t count = draw(1, 4), k = draw(0, 5) ? draw(1, 12) : draw(40, 70);
  auto start = exact<std::int64_t>(count + 1);
  start[0] = 0;
  for (std::int64_t s = 0; s < count; ++s) start[s + 1] = start[s] + (draw(0, 5) ? draw(1, most) : draw(1, 2));
  const std::int64_t size = start[count], asked = draw(1, most), first = start[1];
  const auto points = draw_points(size * dim, kind), queries = draw_points(asked * dim, kind);
  std::vector<std::int64_t> within, of;
  for (std::int64_t s = 0; s < count; ++s)
    for (std::int64_t i = start[s]; i < start[s + 1]; ++i)
      for (auto j : nearest(points.get(), start[s], start[s + 1], points.get() + i * dim, i, dim, k))
        within.push_back(j);
  for (std::int64_t i = 0; i < asked; ++i)
    for (auto j : nearest(points.get(), 0, first, queries.get() + i * dim, -1, dim, k)) of.push_back(j);

  const std::int64_t bounds[] = {0, asked}, known_bounds[] = {0, first};
  const tgd::Sets sets{points.get(), dim, start.get(), count};
  const tgd::Sets known{points.get(), dim, known_bounds, 1}, others{queries.get(), dim, bounds, 1};
  int wrong = 0;
  for (const tgd::Level& level : draw_levels())
    for (bool single : {false, true}) {
      const int threads = static_cast<int>(draw(1, 4));
      auto index = exact<std::int64_t>(size * k), index_of = exact<std::int64_t>(asked * k);
      tgd::knn(index.get(), sets, k, single, threads, level);
      tgd::knn_of(index_of.get(), known, others, k, single, threads, level);
      const bool bad = !std::equal(within.begin(), within.end(), index.get());
      const bool bad_of = !std::equal(of.begin(), of.end(), index_of.get());
      if (bad || bad_of)
        std::printf(
            "wrong %s%s: %ld points in %ld sets, %ld asked, %ld columns, k = %ld, kind %ld, %s, %d threads, single "
            "%d\n",
            bad ? "within" : "", bad_of ? " of others" : "", (long)size, (long)count, (long)asked, (long)dim, (long)k,
            (long)kind, level.name, threads, single);
      wrong += bad + bad_of;
    }
  return wrong;
}

}  // namespace

int main(int argc, char** argv) {
  random_bits.seed(13);
  const int trials = argc > 1 ? std::atoi(argv[1]) : 300;
  int wrong = 0;
  for (int i = 0; i < trials; ++i) wrong += trial(i % 50 ? 60 : 900);
  std::printf(wrong ? "FAILED\n" : "knn: all right\n");
  return wrong != 0;
}
