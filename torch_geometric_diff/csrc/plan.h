// How the columns are cut into tiles, and who works on what.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "memory.h"
#include "propagate.h"

namespace tgd {

// What a step of a tile costs: its width and a part of every edge, which is larger where more columns are read
// at random than `fit` in the nearest cache. Very narrow ones fill no vector. The numbers are fitted to the times
// of widths 1 to 130 on the four graphs of `python -m benchmarks.speed --suite columns`:
// benchmarks/results/speed/columns.json.
struct TileCost {
  std::int64_t fit;
  std::int64_t operator()(int width) const { return width <= fit ? std::max(16 + 4 * width, 28) : 60 + 3 * width; }
};

// As many of the widest tiles as are filled and the cheapest ones for what is left, in descending order, so
// that a tile starts at a multiple of its width.
inline std::vector<Tile> cut_columns(std::int64_t columns, int widest, TileCost cost, int narrowest = 1) {
  std::vector<Tile> tiles;
  const auto add = [&](int width) {
    const std::int64_t first = tiles.empty() ? 0 : tiles.back().first + tiles.back().width;
    tiles.push_back({first, width, static_cast<int>(std::min<std::int64_t>(width, columns - first))});
  };
  for (std::int64_t n = columns / widest; n > 0; --n) add(widest);
  const auto rest = static_cast<int>(columns % widest);
  std::int64_t best[kWidest] = {};  // for the first columns of the rest
  int last[kWidest] = {};           // the narrowest tile of these
  for (int c = 1; c <= rest; ++c)
    for (int width = narrowest; width <= widest; width *= 2) {
      const int before = std::max(c - width, 0);
      if (last[c] && best[before] + cost(width) >= best[c]) continue;
      best[c] = best[before] + cost(width);
      last[c] = width;
    }
  std::vector<int> widths;
  for (int c = rest; c > 0; c -= last[c]) widths.push_back(last[c]);
  std::sort(widths.begin(), widths.end(), std::greater<int>());
  for (const int width : widths) add(width);
  return tiles;
}

// The least share of the time that threads with tiles of their own work: of two threads, three tiles (0.75) are
// worth it and one (0.5) is not.
constexpr double kBusy = 0.6;
// Multiplications that are worth waking a thread: they take ten microseconds, twice what a wake-up takes
// (`--suite small`, whose graphs of 38 nodes stay on one thread).
constexpr std::int64_t kThreadWork = 1 << 17;
// What an edge costs in a tile that is cut, and what a column of a row costs that threads share, in units of
// TileCost: from Cora x 5 to 16 columns on two threads (`--suite columns`; 7 columns: 11 us a step shared, 7 cut).
constexpr double kCutEdge = 1.15, kSharedColumn = 9;

inline int useful_threads(int threads, std::int64_t work) {
  return static_cast<int>(std::min<std::int64_t>(threads, 1 + work / kThreadWork));
}

// Threads own tiles where there are enough of them and all fit into the caches; else all threads share a
// tile and each owns rows of it.
struct Plan {
  std::vector<Tile> tiles;
  int threads = 1;
  bool shared = false;
};

// The share of the time that threads work if each takes the next tile when it is done with one.
inline double busy(const std::vector<Tile>& tiles, TileCost cost, std::int64_t batch, int threads) {
  if (batch * static_cast<std::int64_t>(tiles.size()) >= 8 * threads) return 1;
  std::vector<std::int64_t> load(threads);
  std::int64_t sum = 0;
  for (std::int64_t b = 0; b < batch; ++b)
    for (const Tile& tile : tiles) {
      *std::min_element(load.begin(), load.end()) += cost(tile.width);
      sum += cost(tile.width);
    }
  return static_cast<double>(sum) / static_cast<double>(threads * *std::max_element(load.begin(), load.end()));
}

// Whether one tile is better cut in two than shared by two threads, which fetch from one another what they
// wrote: in rows of few entries that costs more than the edges do.
inline bool worth_cutting(int width, TileCost cost, double degree) {
  return kCutEdge * degree * cost(width / 2) < degree * cost(width) / 2 + kSharedColumn * width;
}

// A column is packed into `bytes` bytes for every one of `arrays` arrays; rows have `degree` entries on average.
inline Plan plan(std::int64_t bytes, std::int64_t arrays, std::int64_t work, std::int64_t batch, std::int64_t columns,
                 int widest, double degree, bool masked, const Options& options) {
  const Caches& cache = caches();
  const TileCost cost{cache.fit(bytes)};
  const std::int64_t row_bytes = bytes * arrays;
  Plan p{{}, std::max(options.threads, 1), false};
  if (!options.width) p.threads = useful_threads(p.threads, work);
  int width = widest;
  if (options.width) {
    while (width > options.width) width /= 2;
  } else {
    // Two blocks make full use of the random words. Wider rows cost less per edge while they are in the
    // nearest cache, and with dropout while most are; narrower ones keep a tile in the last cache. The shares
    // of the caches are those at which the widths were level in `--suite kernels` (Cora, Pubmed and arxiv's
    // shape, with dropout and without): benchmarks/results/speed/kernels.json.
    if (width > 32 && 64 * row_bytes > (masked ? cache.l2 / 4 * 3 : cache.l2 / 2)) width = 32;
    if (width > 16 && 32 * row_bytes > cache.l3 / 4 && 16 * row_bytes <= cache.l3) width = 16;
    while (width > 16 && busy(cut_columns(columns, width, cost), cost, batch, p.threads) < kBusy) width /= 2;
    while (width > 4 && !masked && width / 2 * row_bytes <= cache.l2 && worth_cutting(width, cost, degree) &&
           busy(cut_columns(columns, width, cost), cost, batch, p.threads) < kBusy)
      width /= 2;
  }
  p.tiles = cut_columns(columns, width, cost);
  const std::int64_t packed = p.tiles[0].width * row_bytes;
  const bool fits = packed <= cache.l2 || p.threads * packed <= cache.die;
  p.shared = p.threads > 1 && !(fits && busy(p.tiles, cost, batch, p.threads) >= kBusy);
  return p;
}

}  // namespace tgd
