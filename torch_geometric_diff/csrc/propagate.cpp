#include "propagate.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "memory.h"
#include "parallel.h"

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

Mask mask(std::uint32_t threshold, std::uint64_t seed, std::int64_t step) {
  std::uint64_t s = seed + static_cast<std::uint64_t>(step + 1) * 0x9E3779B97F4A7C15u;
  s = (s ^ (s >> 30)) * 0xBF58476D1CE4E5B9u;
  s = (s ^ (s >> 27)) * 0x94D049BB133111EBu;
  s ^= s >> 31;
  return {static_cast<std::uint32_t>(s), static_cast<std::uint32_t>(s >> 32), threshold,
          65536.0 / (65536.0 - threshold)};
}

template <class T, class I>
StepFunction<T, I> step_function(const Level& level) {
  if constexpr (sizeof(T) == 4) {
    if constexpr (sizeof(I) == 4) return level.f32_i32; else return level.f32_i64;
  } else {
    if constexpr (sizeof(I) == 4) return level.f64_i32; else return level.f64_i64;
  }
}

struct Rows {
  std::int64_t first, last;
};

// The steps that a recurrence needs, and the packed arrays they work on: at most two states, a copy of
// every input that is read often and a sum for every output of several states.
struct Storage {
  std::int64_t first = 0, last = -1;   // z_first is the first that is not zero, z_last the last one read
  int states = 0, arrays = 0;          // the states come first
  int alias = -1;                      // the input whose copy is z_first
  std::vector<int> copy, sum;          // the array of an input, of an output; -1: none
  std::vector<std::int64_t> from, to;  // the first and last state of an output; to < 0: none

  explicit Storage(const Recurrence& r)
      : copy(r.inputs, -1), sum(r.outputs, -1), from(r.outputs, r.steps + 1), to(r.outputs, -1) {
    const auto starts = [&](std::int64_t k) {
      for (int i = 0; i < r.inputs; ++i)
        if (r.c(i, k) != 0) return true;
      return false;
    };
    if (!r.bounded)  // zero may lie outside of the bounds
      while (first <= r.steps && !starts(first)) ++first;
    for (int o = 0; o < r.outputs; ++o)
      for (std::int64_t k = first; k <= r.steps; ++k)
        if (r.w(o, k) != 0) {
          from[o] = std::min(from[o], k);
          to[o] = k;
          last = std::max(last, k);
        }
    if (last < 0) return;
    const bool masked = r.threshold && !r.reverse;
    int at_first = 0;
    for (int i = 0; i < r.inputs; ++i) {
      int reads = 0;
      for (std::int64_t k = first; k <= last; ++k) reads += r.c(i, k) != 0;
      if (reads > 2) copy[i] = arrays++;
      if (r.c(i, first) == 0) continue;
      alias = ++at_first == 1 && copy[i] >= 0 && r.c(i, first) == 1 && !masked ? i : -1;
    }
    for (int o = 0; o < r.outputs; ++o)
      if (to[o] > from[o]) sum[o] = arrays++;
    states = static_cast<int>(std::clamp<std::int64_t>(last - first - (alias >= 0), 0, 2));
    arrays += states;
    for (int& n : copy) n += n < 0 ? 0 : states;
    for (int& n : sum) n += n < 0 ? 0 : states;
  }

  // The array of z_k; z_k lies where z_{k-2} did, but not in the copy of an input.
  int state(std::int64_t k) const {
    if (alias < 0) return static_cast<int>((k - first) % 2);
    return k == first ? copy[alias] : static_cast<int>((k - first - 1) % 2);
  }
};

// A tile of an element of the batch and the rows of it that a thread works on, with its memory.
template <class T>
struct Work {
  T* y;  // the first output; the others follow `y_size` apart
  const T* x;
  std::int64_t y_size, x_size;
  std::uint64_t seed;
  Tile tile;
  T* memory;
  std::int64_t gap;  // between packed arrays
  Rows loaded, own;
  bool prefetch;
};

// All steps of a tile; the team meets after every one.
template <class T, class I>
void run_tile(const Work<T>& work, const Operator<T, I>& op, const Recurrence& r, const Storage& storage,
              std::int64_t columns, StepFunction<T, I> step, Barrier& barrier) {
  const auto array = [&](int n) { return n < 0 ? nullptr : work.memory + n * work.gap; };
  std::vector<Term<T>> terms(r.inputs + 2);
  std::vector<Sink<T>> sinks(r.outputs);
  Mask dropout;
  Step<T, I> s{};
  s.col = op.col;
  s.value = op.value;
  s.original = op.original;
  s.stride = columns;
  s.prefetch_end = work.prefetch ? static_cast<std::int64_t>(op.rowptr[op.rows]) - kPrefetchBlocks / work.tile.blocks : 0;
  s.tile = work.tile;
  s.mask_target = !r.reverse;
  s.low = static_cast<T>(r.low);
  s.high = static_cast<T>(r.high);
  s.terms = terms.data();
  s.sinks = sinks.data();
  s.first_row = work.loaded.first;
  s.last_row = work.loaded.last;
  const auto add = [&](const T* from, double factor, bool packed) {
    if (factor != 0) terms[s.num_terms++] = {from, static_cast<T>(factor), packed};
  };
  const auto go = [&] {
    step(s);
    barrier.wait();
    s.num_terms = s.num_sinks = 0;
  };
  for (int i = 0; i < r.inputs; ++i)
    if (storage.copy[i] >= 0) {
      add(work.x + i * work.x_size, 1, false);
      s.target = array(storage.copy[i]);
      go();
    }
  for (std::int64_t k = storage.first; k <= storage.last; ++k) {
    const bool product = k > storage.first, aliased = !product && storage.alias >= 0;
    if (product) {
      s.first_row = work.own.first;
      s.last_row = work.own.last;
      s.source = array(storage.state(k - 1));
      s.scale = static_cast<T>(r.a(k));
      s.rowptr = r.a(k) != 0 ? op.rowptr : nullptr;
      s.bounded = r.bounded;
      add(s.source, r.d(k), true);
    }
    s.product_terms = s.num_terms;
    if (k >= storage.first + 2) add(array(storage.state(k - 2)), r.b(k), true);
    for (int i = 0; i < r.inputs; ++i) {
      const T* copy = array(storage.copy[i]);
      add(copy ? copy : work.x + i * work.x_size, r.c(i, k), copy);
    }
    for (int o = 0; o < r.outputs; ++o)
      if (r.w(o, k) != 0 ) {
        const bool end = k == storage.to[o];
        sinks[s.num_sinks++] = {array(storage.sum[o]), end ? work.y + o * work.y_size : nullptr,
                                static_cast<T>(r.w(o, k)), k > storage.from[o]};
      }
    s.target = k < storage.last && !aliased ? array(storage.state(k)) : nullptr;
    s.mask = nullptr;
    if (r.threshold && (r.reverse ? product : k < storage.last)) {
      dropout = mask(r.threshold, work.seed, r.reverse ? r.steps - k : k);
      s.mask = &dropout;
    }
    if (s.target || s.num_sinks) go();
    s.num_terms = 0;
  }
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
  const Level& level = options.level ? *options.level : *levels()[0];
  const auto edges = static_cast<std::int64_t>(op.rowptr[op.rows]);
  const Plan cut = plan<T>(op.rows, storage.arrays * op.sources, edges, columns, batch, storage.last - storage.first,
                           options, sizeof(T) == 4 ? level.widest_float : level.widest_double);
  const std::int64_t blocks = (columns + kBlock - 1) / kBlock;
  const std::int64_t tiles = (blocks + cut.width - 1) / cut.width;
  const std::int64_t packed = op.sources * cut.width * kBlock;
  const std::int64_t gap = packed + 1024 / static_cast<std::int64_t>(sizeof(T));
  const std::int64_t memory = storage.arrays * gap;
  const bool prefetch = storage.arrays * packed * static_cast<std::int64_t>(sizeof(T)) > (1 << 20);
  const int team = cut.shared ? cut.threads : static_cast<int>(std::min<std::int64_t>(cut.threads, batch * tiles));
  Buffer buffer(sizeof(T) * static_cast<std::size_t>((cut.shared ? 1 : team) * memory));
  const auto step = step_function<T, I>(level);
  const auto run = [&](std::int64_t t, T* memory, Rows loaded, Rows own, Barrier& barrier) {
    const std::int64_t b = t / tiles, first = t % tiles * cut.width;
    const std::int64_t wide = std::min<std::int64_t>(cut.width, blocks - first);
    const Tile tile{first, static_cast<int>(wide), static_cast<int>(std::min(columns - first * kBlock, wide * kBlock))};
    const Work<T> work{y + b * size, x + b * op.sources * columns, batch * size, batch * op.sources * columns,
                       recurrence.threshold ? seeds[b] : 0, tile, memory, gap, loaded, own, prefetch};
    run_tile(work, op, recurrence, storage, columns, step, barrier);
  };

  if (!cut.shared) {
    std::atomic<std::int64_t> next{0};
    parallel(team, [&](int thread, int) {
      Barrier alone(1);
      for (std::int64_t t; (t = next.fetch_add(1, std::memory_order_relaxed)) < batch * tiles;)
        run(t, buffer.as<T>() + thread * memory, {0, op.sources}, {0, op.rows}, alone);
    });
    return;
  }
  // Cut the rows so that every thread has as many edges and rows (a row costs about four edges).
  const auto cost = [&](std::int64_t i) { return static_cast<std::int64_t>(op.rowptr[i]) + 4 * i; };
  const auto cut_row = [&](int part, int parts) {
    const std::int64_t wanted = cost(op.rows) / parts * part;
    std::int64_t low = 0, high = op.rows;
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      if (cost(middle) < wanted) low = middle + 1; else high = middle;
    }
    return part == parts ? op.rows : low;
  };
  std::unique_ptr<Barrier> barrier;
  std::atomic<Barrier*> together{nullptr};
  parallel(team, [&](int thread, int got) {
    if (thread == 0) {
      barrier.reset(new Barrier(got));
      together.store(barrier.get(), std::memory_order_release);
    }
    Barrier* meet;
    while (!(meet = together.load(std::memory_order_acquire))) std::this_thread::yield();
    for (std::int64_t t = 0; t < batch * tiles; ++t)
      run(t, buffer.as<T>(), {op.sources * thread / got, op.sources * (thread + 1) / got},
          {cut_row(thread, got), cut_row(thread + 1, got)}, *meet);
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
