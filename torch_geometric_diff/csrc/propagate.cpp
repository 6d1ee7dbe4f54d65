#include "propagate.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "memory.h"
#include "parallel.h"
#include "plan.h"
#include "slices.h"
#include "tile.h"

namespace tgd {

constexpr std::int64_t kMostSliced = std::int64_t{1} << 28;  // offsets of the rows must fit
constexpr std::int64_t kWorthSlices = 6;  // steps of narrow tiles that pay for sorting the rows
const Level* const* levels() {
  static const auto found = [] {
    static const Level* list[4] = {};
    int n = 0;
#ifdef TGD_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
      list[n++] = &kAvx512;
#ifndef TGD_NO_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) list[n++] = &kAvx2;
#endif
#endif
    list[n] = &kBaseline;
    return list;
  }();
  return found;
}

template <class T, class I>
void propagate(T* y, const T* x, const Operator<T, I>& op, std::int64_t batch, std::int64_t columns,
               const Recurrence& recurrence, const std::uint64_t* seeds, const Options& options, const Reach* reach) {
  const auto rows = [&](bool narrow, std::int64_t all) { return reach && narrow ? reach->within[0] : all; };
  const std::int64_t size = rows(!recurrence.reverse, op.rows) * columns;  // of an output of an element of the batch
  if (size == 0 || batch == 0) return;
  const Storage storage(recurrence);
  for (int o = 0; o < recurrence.outputs; ++o)
    if (op.sources == 0 || storage.to[o] < 0)
      std::memset(y + o * batch * size, 0, sizeof(T) * static_cast<std::size_t>(batch * size));
  if (op.sources == 0 || storage.last < 0) return;
  const auto edges = static_cast<std::int64_t>(op.rowptr[op.rows]);
  const std::int64_t steps = storage.last - storage.first;
  const std::int64_t work = (edges + op.rows) * columns * batch * std::max<std::int64_t>(steps, 1);
  const auto element = static_cast<std::int64_t>(sizeof(T));
  const double degree = static_cast<double>(edges) / static_cast<double>(op.rows);
  const Plan p = plan(op.sources * element, storage.arrays, work, batch, columns, widest<T>(options), degree,
                      recurrence.threshold != 0, options);
  const auto tiles = static_cast<std::int64_t>(p.tiles.size());
  const int team = p.shared ? p.threads : static_cast<int>(std::min<std::int64_t>(p.threads, batch * tiles));
  std::optional<SliceStore<T, I>> store;
  const auto narrow = std::count_if(p.tiles.begin(), p.tiles.end(), [](const Tile& t) { return t.width <= kNarrow; });
  if (kHasShort<T, I> && narrow * batch * steps >= kWorthSlices && op.rows == op.sources && op.rows < kMostSliced && !reach)
    store.emplace(op, p.threads);
  const Slices<T, I> slices = store ? store->slices() : Slices<T, I>{};

  const std::int64_t gap = op.sources * p.tiles[0].width + kSliceRows * kWidest;  // room for a slice and a row of zeros
  const std::int64_t memory = storage.arrays * gap;
  const std::int64_t x_size = rows(recurrence.reverse, op.sources) * columns;
  Buffer buffer(sizeof(T) * static_cast<std::size_t>((p.shared ? 1 : team) * memory));
  const auto step = step_function<T, I>(options);
  const auto run = [&](std::int64_t n, T* memory, int thread, int threads, Barrier& barrier) {
    const std::int64_t b = n / tiles;
    const Tile& tile = p.tiles[n % tiles];
    const bool sliced = store && tile.width <= kNarrow;
    const auto first_row = [&](int part) {
      if (threads == 1) return part * op.rows;
      return sliced ? store->cut(part, threads) : cut_row(op, part, threads);
    };
    const std::int64_t loaded[] = {op.sources * thread / threads, op.sources * (thread + 1) / threads};
    const std::int64_t own[] = {first_row(thread), first_row(thread + 1)};
    const Work<T, I> work{y + b * size, x + b * x_size, batch * size, batch * x_size, columns,
                          recurrence.threshold ? seeds[b] : 0, tile, memory, gap, {loaded, 1}, {own, 1},
                          sliced ? &slices : nullptr, sliced ? store->names() : nullptr, nullptr, 0,
                          reach, thread, threads};
    TileRun<T, I> run(work, op, recurrence, storage, step, barrier);
    run.pack();
    run.steps([](std::int64_t, Step<T, I>&) {});
  };

  if (p.shared) {
    parallel_together(team, [&](int thread, int got, Barrier& barrier) {
      for (std::int64_t n = 0; n < batch * tiles; ++n) run(n, buffer.as<T>(), thread, got, barrier);
    });
    return;
  }
  std::atomic<std::int64_t> next{0};
  parallel(team, [&](int thread, int) {
    Barrier alone(1);
    for (std::int64_t n; (n = next.fetch_add(1, std::memory_order_relaxed)) < batch * tiles;)
      run(n, buffer.as<T>() + thread * memory, 0, 1, alone);
  });
}

#define TGD_INSTANTIATE(T, I)                                                                         \
  template void propagate(T*, const T*, const Operator<T, I>&, std::int64_t, std::int64_t,            \
                          const Recurrence&, const std::uint64_t*, const Options&, const Reach*);
TGD_INSTANTIATE(float, std::int32_t)
TGD_INSTANTIATE(float, std::int64_t)
TGD_INSTANTIATE(double, std::int32_t)
TGD_INSTANTIATE(double, std::int64_t)

}  // namespace tgd
