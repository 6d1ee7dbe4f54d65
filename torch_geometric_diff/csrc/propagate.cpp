#include "propagate.h"

#include <algorithm>
#include <cstring>

#include "memory.h"
#include "parallel.h"
#include "tile.h"

namespace tgd {
namespace {

// How the columns are cut and who works on what. Tiles have 1, 2 or 4 blocks (the last one what is
// left), so that wide ones begin at the low half of a word. Threads own tiles where there are enough
// of them and all fit into the caches; else all threads share a tile and each owns rows of it.
struct Plan {
  int width, threads;
  bool shared;
};

template <class T>
Plan plan(std::int64_t rows, std::int64_t packed, std::int64_t edges, std::int64_t columns, std::int64_t batch,
          std::int64_t steps, const Options& options, int widest) {
  static const Caches caches;
  const std::int64_t blocks = (columns + kBlock - 1) / kBlock;
  const auto bytes = [&](int w) { return packed * w * kBlock * static_cast<std::int64_t>(sizeof(T)); };
  // A thread is worth waking for some ten microseconds of work (but a given width takes them all).
  const std::int64_t work = (edges + rows) * columns * batch * std::max<std::int64_t>(steps, 1);
  int threads = std::max(options.threads, 1);
  if (!options.width) threads = static_cast<int>(std::min<std::int64_t>(threads, 1 + (work >> 17)));
  // The share of the time that threads work if they own tiles.
  const auto busy = [&](int w) {
    const std::int64_t tiles = batch * ((blocks + w - 1) / w), turns = (tiles + threads - 1) / threads;
    return static_cast<double>(batch * blocks) / static_cast<double>(turns * w * threads);
  };
  int width = widest;
  if (options.width) {
    while (width > std::max(options.width, 1)) width /= 2;
  } else {
    // Two blocks make full use of the random words. Wider rows cost less per edge while they are in
    // the nearest cache; narrower ones keep a tile in the last cache.
    if (width > 2 && bytes(4) > caches.l2 / 2) width = 2;
    if (width > 1 && bytes(2) > caches.l3 / 4 && bytes(1) <= caches.l3) width = 1;
    while (width > 1 && busy(width) < 0.6) width /= 2;
  }
  const bool fits = bytes(width) <= caches.l2 || threads * bytes(width) <= caches.l3;
  return {static_cast<int>(std::min<std::int64_t>(width, blocks)), threads,
          threads > 1 && !(fits && busy(width) >= 0.6)};
}

}  // namespace

const Level* const* levels() {
  static const auto found = [] {
    static const Level* list[4] = {};
    int n = 0;
#ifdef TGD_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
      list[n++] = &kAvx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) list[n++] = &kAvx2;
#endif
    list[n] = &kBaseline;
    return list;
  }();
  return found;
}

template <class T, class I>
void propagate(T* y, const T* x, const Operator<T, I>& op, std::int64_t batch, std::int64_t columns,
               const Recurrence& recurrence, const std::uint64_t* seeds, const Options& options) {
  const std::int64_t size = op.rows * columns;  // of an output of an element of the batch
  if (size == 0 || batch == 0) return;
  const Storage storage(recurrence);
  for (int o = 0; o < recurrence.outputs; ++o)
    if (op.sources == 0 || storage.to[o] < 0)
      std::memset(y + o * batch * size, 0, sizeof(T) * static_cast<std::size_t>(batch * size));
  if (op.sources == 0 || storage.last < 0) return;
  const auto edges = static_cast<std::int64_t>(op.rowptr[op.rows]);
  const Plan cut = plan<T>(op.rows, storage.arrays * op.sources, edges, columns, batch, storage.last - storage.first,
                           options, widest<T>(options));
  const std::int64_t blocks = (columns + kBlock - 1) / kBlock;
  const std::int64_t tiles = (blocks + cut.width - 1) / cut.width;
  const std::int64_t packed = op.sources * cut.width * kBlock;
  const std::int64_t gap = packed + 1024 / static_cast<std::int64_t>(sizeof(T));
  const std::int64_t memory = storage.arrays * gap;
  const bool prefetch = storage.arrays * packed * static_cast<std::int64_t>(sizeof(T)) > (1 << 20);
  const int team = cut.shared ? cut.threads : static_cast<int>(std::min<std::int64_t>(cut.threads, batch * tiles));
  Buffer buffer(sizeof(T) * static_cast<std::size_t>((cut.shared ? 1 : team) * memory));
  const auto step = step_function<T, I>(options);
  const auto run = [&](std::int64_t t, T* memory, Pieces loaded, Pieces own, Barrier& barrier) {
    const std::int64_t b = t / tiles, first = t % tiles * cut.width;
    const std::int64_t wide = std::min<std::int64_t>(cut.width, blocks - first);
    const Tile tile{first, static_cast<int>(wide), static_cast<int>(std::min(columns - first * kBlock, wide * kBlock))};
    const std::int64_t x_size = op.sources * columns;
    const Work<T> work{y + b * size, x + b * x_size, batch * size, batch * x_size, columns,
                       recurrence.threshold ? seeds[b] : 0, tile, memory, gap, loaded, own, nullptr, 0, prefetch};
    TileRun<T, I> run(work, op, recurrence, storage, step, barrier);
    run.pack();
    run.steps([](std::int64_t, Step<T, I>&) {});
  };

  if (!cut.shared) {
    std::atomic<std::int64_t> next{0};
    parallel(team, [&](int thread, int) {
      Barrier alone(1);
      const std::int64_t loaded[] = {0, op.sources}, own[] = {0, op.rows};
      for (std::int64_t t; (t = next.fetch_add(1, std::memory_order_relaxed)) < batch * tiles;)
        run(t, buffer.as<T>() + thread * memory, {loaded, 1}, {own, 1}, alone);
    });
    return;
  }
  parallel_together(team, [&](int thread, int got, Barrier& barrier) {
    const std::int64_t loaded[] = {op.sources * thread / got, op.sources * (thread + 1) / got};
    const std::int64_t own[] = {cut_row(op, thread, got), cut_row(op, thread + 1, got)};
    for (std::int64_t t = 0; t < batch * tiles; ++t) run(t, buffer.as<T>(), {loaded, 1}, {own, 1}, barrier);
  });
}

#define TGD_INSTANTIATE(T, I)                                                                         \
  template void propagate(T*, const T*, const Operator<T, I>&, std::int64_t, std::int64_t,            \
                          const Recurrence&, const std::uint64_t*, const Options&);
TGD_INSTANTIATE(float, std::int32_t)
TGD_INSTANTIATE(float, std::int64_t)
TGD_INSTANTIATE(double, std::int32_t)
TGD_INSTANTIATE(double, std::int64_t)

}  // namespace tgd
