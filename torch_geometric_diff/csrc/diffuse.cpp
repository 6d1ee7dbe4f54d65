#include "diffuse.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#include "parallel.h"

namespace tgd {
namespace {

constexpr std::size_t kHugePage = std::size_t{1} << 21;

// Memory for packed tiles; large ones lie in huge pages, since rows are read in any order.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) {
    const std::size_t align = bytes >= kHugePage ? kHugePage : 64;
    const std::size_t size = (bytes + align - 1) / align * align;
    data_ = std::aligned_alloc(align, std::max(size, align));
    if (!data_) throw std::bad_alloc();
#if defined(__linux__)
    if (align == kHugePage) madvise(data_, size, MADV_HUGEPAGE);
#endif
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  template <class T>
  T* as() const { return static_cast<T*>(data_); }

 private:
  void* data_;
};

struct Caches {
  std::int64_t l2 = 512 << 10, l3 = 8 << 20;
  Caches() {
#if defined(__linux__) && defined(_SC_LEVEL2_CACHE_SIZE)
    const long two = sysconf(_SC_LEVEL2_CACHE_SIZE), three = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (two > 0) l2 = two;
    if (three > 0) l3 = three;
#elif defined(__APPLE__)
    std::int64_t size = 0;
    std::size_t length = sizeof size;
    if (sysctlbyname("hw.l2cachesize", &size, &length, nullptr, 0) == 0 && size > 0) l2 = l3 = size;
#endif
  }
};

// How the columns are cut and who works on what. Tiles have 1, 2 or 4 blocks (the last one what is
// left), so that wide ones begin at the low half of a word. Threads own tiles where there are enough
// of them and all fit into the caches; else all threads share a tile and each owns rows of it.
struct Plan {
  int width, threads;
  bool shared;
};

template <class T>
Plan plan(std::int64_t rows, std::int64_t packed, std::int64_t edges, std::int64_t columns,
          const Options& options, int widest) {
  static const Caches caches;
  const std::int64_t blocks = (columns + kBlock - 1) / kBlock;
  const auto bytes = [&](int w) { return packed * w * kBlock * static_cast<std::int64_t>(sizeof(T)); };
  // A thread is worth waking for some ten microseconds of work (but a given width takes them all).
  const std::int64_t work = (edges + rows) * columns * options.steps;
  int threads = std::max(options.threads, 1);
  if (!options.width) threads = static_cast<int>(std::min<std::int64_t>(threads, 1 + (work >> 17)));
  // The share of the time that threads work if they own tiles.
  const auto busy = [&](int w) {
    const std::int64_t tiles = (blocks + w - 1) / w, turns = (tiles + threads - 1) / threads;
    return static_cast<double>(blocks) / static_cast<double>(turns * w * threads);
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

Mask mask(const Options& options, std::int64_t step) {
  std::uint64_t s = options.seed + static_cast<std::uint64_t>(step + 1) * 0x9E3779B97F4A7C15u;
  s = (s ^ (s >> 30)) * 0xBF58476D1CE4E5B9u;
  s = (s ^ (s >> 27)) * 0x94D049BB133111EBu;
  s ^= s >> 31;
  return {static_cast<std::uint32_t>(s), static_cast<std::uint32_t>(s >> 32), options.threshold,
          65536.0 / (65536.0 - options.threshold)};
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

// All steps of one tile for `own` rows, loaded from `loaded` ones; the team meets after every step.
template <class T, class I>
void run_tile(T* y, const T* x, const Operator<T, I>& op, std::int64_t columns, const Options& options,
              StepFunction<T, I> step, Tile tile, T* front, T* back, Rows loaded, Rows own,
              bool prefetch, Barrier& barrier) {
  Mask dropout;
  const auto set_mask = [&](std::int64_t k) -> const Mask* {
    if (!options.threshold || k < 0 || k >= options.steps) return nullptr;
    dropout = mask(options, k);
    return &dropout;
  };
  const std::int64_t edges = static_cast<std::int64_t>(op.rowptr[op.rows]);
  Step<T, I> s{nullptr, op.col, op.value, op.original, x, front, columns, loaded.first, loaded.last,
               prefetch ? edges - kPrefetchBlocks / tile.blocks : 0, tile,
               set_mask(options.reverse ? -1 : 0), false};
  step(s);
  barrier.wait();
  s.rowptr = op.rowptr;
  s.first_row = own.first;
  s.last_row = own.last;
  for (std::int64_t k = 0; k < options.steps; ++k) {
    s.source = front;
    s.last = k + 1 == options.steps;
    s.target = s.last ? y : back;
    s.mask = set_mask(options.reverse ? options.steps - 1 - k : k + 1);
    step(s);
    barrier.wait();
    std::swap(front, back);
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
void diffuse(T* y, const T* x, const Operator<T, I>& op, std::int64_t columns, const Options& options) {
  if (op.rows == 0 || columns == 0) return;
  if (op.sources == 0) {
    std::memset(y, 0, sizeof(T) * static_cast<std::size_t>(op.rows * columns));
    return;
  }
  if (options.steps == 0) {
    std::memcpy(y, x, sizeof(T) * static_cast<std::size_t>(op.rows * columns));
    return;
  }
  const Level& level = options.level ? *options.level : *levels()[0];
  const auto edges = static_cast<std::int64_t>(op.rowptr[op.rows]);
  // A single step writes its result in place, so that it needs one packed tile instead of two.
  const int copies = options.steps > 1 ? 2 : 1;
  const Plan cut = plan<T>(op.rows, copies * op.sources, edges, columns, options,
                           sizeof(T) == 4 ? level.widest_float : level.widest_double);
  const std::int64_t blocks = (columns + kBlock - 1) / kBlock;
  const std::int64_t tiles = (blocks + cut.width - 1) / cut.width;
  const auto tile = [&](std::int64_t t) -> Tile {
    const std::int64_t first = t * cut.width;
    const std::int64_t wide = std::min<std::int64_t>(cut.width, blocks - first);
    return {first, static_cast<int>(wide),
            static_cast<int>(std::min(columns - first * kBlock, wide * kBlock))};
  };
  const int team =
      cut.shared ? cut.threads : static_cast<int>(std::min<std::int64_t>(cut.threads, tiles));
  const std::int64_t size = op.sources * cut.width * kBlock;
  const std::int64_t gap = size + 1024 / static_cast<std::int64_t>(sizeof(T));
  const bool prefetch = copies * size * static_cast<std::int64_t>(sizeof(T)) > (1 << 20);
  const auto step = step_function<T, I>(level);
  Buffer buffer(sizeof(T) * static_cast<std::size_t>((cut.shared ? 1 : team) * copies * gap));

  if (!cut.shared) {
    std::atomic<std::int64_t> next{0};
    parallel(team, [&](int thread, int) {
      Barrier alone(1);
      T* front = buffer.as<T>() + thread * copies * gap;
      for (std::int64_t t; (t = next.fetch_add(1, std::memory_order_relaxed)) < tiles;)
        run_tile(y, x, op, columns, options, step, tile(t), front, front + gap, {0, op.sources}, {0, op.rows},
                 prefetch, alone);
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
    for (std::int64_t t = 0; t < tiles; ++t)
      run_tile(y, x, op, columns, options, step, tile(t), buffer.as<T>(), buffer.as<T>() + gap,
               {op.sources * thread / got, op.sources * (thread + 1) / got},
               {cut_row(thread, got), cut_row(thread + 1, got)}, prefetch, *meet);
  });
}

#define TGD_INSTANTIATE(T, I) \
  template void diffuse(T*, const T*, const Operator<T, I>&, std::int64_t, const Options&);
TGD_INSTANTIATE(float, std::int32_t)
TGD_INSTANTIATE(float, std::int64_t)
TGD_INSTANTIATE(double, std::int32_t)
TGD_INSTANTIATE(double, std::int64_t)

}  // namespace tgd
