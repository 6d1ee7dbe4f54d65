// Fuzzed graphs against dense matrices, for several numbers of threads, under the sanitizers (see
// CMakeLists.txt). All arrays have exactly the size they need.
#include "build.h"

#include "draws.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

namespace {

bool differs(double a, double b) { return std::abs(a - b) > 1e-9 * (1 + std::abs(b)); }

// What a recipe makes of edges, densely.
std::vector<double> dense(const std::int64_t* row, const std::int64_t* col, const double* weight, std::int64_t count,
                          std::int64_t n, const tgd::Recipe& recipe) {
  using tgd::Diagonal;
  std::vector<double> a(n * n), degree(n);
  std::vector<char> looped(n);
  std::vector<double> last(n), sum(n);
  for (std::int64_t e = 0; e < count; ++e) {
    a[row[e] * n + col[e]] += weight[e];
    if (row[e] == col[e]) looped[row[e]] = 1, last[row[e]] = weight[e], sum[row[e]] += weight[e];
  }
  for (std::int64_t i = 0; i < n; ++i) {
    double& d = a[i * n + i];
    if (recipe.diagonal == Diagonal::set) d = recipe.scale;
    if (recipe.diagonal == Diagonal::add) d = recipe.scale + sum[i];
    if (recipe.diagonal == Diagonal::keep) d = looped[i] ? last[i] : recipe.scale;
    for (std::int64_t j = 0; j < n; ++j) degree[i] += a[i * n + j];
    if (recipe.count_loops && !looped[i]) degree[i] += 1;
  }
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double& w = a[i * n + j];
      if (recipe.normalization == tgd::Normalization::row) w = degree[i] > 0 ? w / degree[i] : 0;
      if (recipe.normalization == tgd::Normalization::symmetric)
        w = degree[i] > 0 && degree[j] > 0 ? w / std::sqrt(degree[i] * degree[j]) : 0;
    }
  if (recipe.diagonal == Diagonal::step)
    for (std::int64_t i = 0; i < n; ++i) {
      double total = 0;
      for (std::int64_t j = 0; j < n; ++j)
        if (j != i) total += a[i * n + j], a[i * n + j] *= recipe.scale;
      a[i * n + i] = 1 - recipe.scale * total;
    }
  return a;
}

int trial(std::int64_t n, std::int64_t count, int threads) {
  auto row = exact<std::int64_t>(count), col = exact<std::int64_t>(count);
  auto weight = exact<double>(count);
  const bool mirrored = draw(0, 1);
  for (std::int64_t e = 0; e < count; ++e) {
    row[e] = draw(0, n - 1), col[e] = draw(0, n - 1), weight[e] = static_cast<double>(draw(0, 8)) / 8;
    if (mirrored && e % 2) row[e] = col[e - 1], col[e] = row[e - 1], weight[e] = weight[e - 1];
  }
  if (draw(0, 3) == 0) std::sort(row.get(), row.get() + count);
  tgd::Recipe recipe{static_cast<tgd::Normalization>(draw(0, 2)), static_cast<tgd::Diagonal>(draw(0, 4)),
                     static_cast<double>(draw(1, 4)) / 4, false, false};
  if (recipe.diagonal == tgd::Diagonal::step) recipe.count_loops = draw(0, 1);
  tgd::Edges edges{row.get(), col.get(), weight.get(), 8, count, n};

  const auto made = tgd::build(edges, recipe, threads);
  auto rowptr = exact<std::int32_t>(n + 1), cols = exact<std::int32_t>(made->entries);
  auto value = exact<double>(made->entries);
  int wrong = !made->valid || !made->fill(rowptr.get(), cols.get(), value.get(), true, threads);
  auto expected = dense(row.get(), col.get(), weight.get(), count, n, recipe);
  const auto whole = expected;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int32_t at = rowptr[i]; at < rowptr[i + 1]; ++at) {
      wrong += at > rowptr[i] && cols[at] <= cols[at - 1];
      wrong += differs(value[at], expected[i * n + cols[at]]);
      expected[i * n + cols[at]] = 0;
    }
  for (double left : expected) wrong += left != 0;

  const auto symmetry = tgd::symmetry(rowptr.get(), cols.get(), value.get(), 8, n, threads);
  bool same_pattern = true, same_value = true;
  std::vector<char> there(n * n);
  std::vector<double> stored(n * n);
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int32_t at = rowptr[i]; at < rowptr[i + 1]; ++at)
      there[i * n + cols[at]] = 1, stored[i * n + cols[at]] = value[at];
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      same_pattern &= there[i * n + j] == there[j * n + i];
      same_value &= stored[i * n + j] == stored[j * n + i];
    }
  wrong += symmetry != (!same_pattern ? tgd::Symmetry::none
                        : same_value  ? tgd::Symmetry::full
                                      : tgd::Symmetry::pattern);
  auto rowptr_t = exact<std::int32_t>(n + 1), cols_t = exact<std::int32_t>(made->entries);
  auto entry = exact<std::int32_t>(made->entries);
  tgd::transpose(rowptr_t.get(), cols_t.get(), entry.get(), rowptr.get(), cols.get(), n, threads);
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int32_t at = rowptr_t[j]; at < rowptr_t[j + 1]; ++at)
      wrong += value[entry[at]] != stored[cols_t[at] * n + j] || cols[entry[at]] != j;
  if (same_pattern) {
    auto again = exact<std::int32_t>(made->entries);
    tgd::transpose<std::int32_t>(nullptr, nullptr, again.get(), rowptr.get(), cols.get(), n, threads);
    wrong += !std::equal(entry.get(), entry.get() + made->entries, again.get());
  }

  const auto pattern = tgd::pattern(edges, threads);
  auto starts = exact<std::int32_t>(n + 1), places = exact<std::int32_t>(count);
  auto columns = exact<std::int32_t>(pattern->entries);
  pattern->fill(starts.get(), columns.get(), places.get(), threads);
  for (std::int64_t e = 0; e < count; ++e)
    wrong += columns[places[e]] != col[e] || places[e] < starts[row[e]] || places[e] >= starts[row[e] + 1];

  if (count > 0) {  // what is bad is found
    const std::int64_t e = draw(0, count - 1);
    const std::int64_t kept = row[e];
    row[e] = draw(0, 1) ? n : -1;
    wrong += tgd::build(edges, recipe, threads)->valid || tgd::pattern(edges, threads)->valid;
    row[e] = kept;
    const double bad[] = {-1.0, NAN, INFINITY};
    weight[e] = bad[draw(0, 2)];
    wrong += tgd::build(edges, recipe, threads)->valid;
  }
  if (wrong) std::printf("%d wrong: %ld nodes, %ld edges, %d threads\n", wrong, (long)n, (long)count, threads);
  return wrong;
}

}  // namespace

int main() {
  random_bits.seed(11);
  int wrong = 0;
  for (int i = 0; i < 2000; ++i) wrong += trial(draw(1, 40), draw(0, 200), static_cast<int>(draw(1, 4)));
  for (int i = 0; i < 6; ++i) wrong += trial(draw(1, 300), 150000 + 2 * i, i + 1);
  std::printf(wrong ? "FAILED\n" : "build: all right\n");
  return wrong != 0;
}
