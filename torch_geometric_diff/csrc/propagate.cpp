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
constexpr std::int64_t kWorthSlices = 6;                     // steps of narrow tiles that pay for sorting the rows
const Level* const* levels() {
  static const auto found = [] {
    static const Level* list[4] = {};
    int n = 0;
#ifdef TGD_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
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

namespace {

// A recurrence over all tiles and all elements of the batch.
template <class T, class I>
class Propagation {
 public:
  Propagation(T* y, const T* x, const Operator<T, I>& op, std::int64_t batch, std::int64_t columns, const Recurrence& r,
              const std::uint64_t* seeds, const Options& options, const Reach* reach)
      : y_(y), x_(x), op_(op), batch_(batch), columns_(columns),
        y_size_(rows(reach && !r.reverse ? reach : nullptr, op.rows)),
        x_size_(rows(reach && r.reverse ? reach : nullptr, op.sources)), r_(r), seeds_(seeds), reach_(reach),
        storage_(r), step_(step_function<T, I>(options)) {}

  void run(const Options& options) {
    if (y_size_ == 0 || batch_ == 0) return;
    for (int o = 0; o < r_.outputs; ++o)
      if (op_.sources == 0 || storage_.to[o] < 0)
        std::memset(y_ + o * batch_ * y_size_, 0, sizeof(T) * static_cast<std::size_t>(batch_ * y_size_));
    if (op_.sources == 0 || storage_.last < 0) return;
    const auto edges = static_cast<std::int64_t>(op_.rowptr[op_.rows]);
    const std::int64_t steps = storage_.last - storage_.first;
    const std::int64_t work = (edges + op_.rows) * columns_ * batch_ * std::max<std::int64_t>(steps, 1);
    const double degree = static_cast<double>(edges) / static_cast<double>(op_.rows);
    plan_ = plan(op_.sources * static_cast<std::int64_t>(sizeof(T)), storage_.arrays, work, batch_, columns_,
                 widest<T>(options), degree, r_.threshold != 0, options);
    sort_rows(steps);
    gap_ = op_.sources * plan_.tiles[0].width + kSliceRows * kWidest;  // room for a slice and a row of zeros
    if (plan_.shared) share_tiles();
    else own_tiles();
  }

 private:
  std::int64_t rows(const Reach* reach, std::int64_t all) const { return (reach ? reach->within[0] : all) * columns_; }
  std::int64_t runs() const { return batch_ * static_cast<std::int64_t>(plan_.tiles.size()); }
  std::size_t memory() const { return sizeof(T) * static_cast<std::size_t>(storage_.arrays * gap_); }

  // Slices, where enough steps of narrow tiles pay for them.
  void sort_rows(std::int64_t steps) {
    const auto narrow =
        std::count_if(plan_.tiles.begin(), plan_.tiles.end(), [](const Tile& t) { return t.width <= kNarrow; });
    if (!kHasShort<T, I> || narrow * batch_ * steps < kWorthSlices) return;
    if (op_.rows != op_.sources || op_.rows >= kMostSliced || reach_) return;
    store_.emplace(op_, plan_.threads);
    slices_ = store_->slices();
  }

  void share_tiles() {
    Buffer buffer(memory());
    parallel_together(plan_.threads, [&](int thread, int team, Barrier& barrier) {
      for (std::int64_t n = 0; n < runs(); ++n) run_tile(n, buffer.as<T>(), thread, team, barrier);
    });
  }

  void own_tiles() {
    const int team = static_cast<int>(std::min<std::int64_t>(plan_.threads, runs()));
    Buffer buffer(team * memory());
    std::atomic<std::int64_t> next{0};
    parallel(team, [&](int thread, int) {
      Barrier alone(1);
      for (std::int64_t n; (n = next.fetch_add(1, std::memory_order_relaxed)) < runs();)
        run_tile(n, buffer.as<T>() + thread * storage_.arrays * gap_, 0, 1, alone);
    });
  }

  void run_tile(std::int64_t n, T* memory, int thread, int threads, Barrier& barrier) const {
    const auto tiles = static_cast<std::int64_t>(plan_.tiles.size());
    const std::int64_t b = n / tiles;
    const Tile& tile = plan_.tiles[n % tiles];
    const bool sliced = store_ && tile.width <= kNarrow;
    const auto first_row = [&](int part) {
      if (threads == 1) return part * op_.rows;
      return sliced ? store_->cut(part, threads) : cut_row(op_, part, threads);
    };
    const std::int64_t loaded[] = {op_.sources * thread / threads, op_.sources * (thread + 1) / threads};
    const std::int64_t own[] = {first_row(thread), first_row(thread + 1)};
    const Work<T, I> work{y_ + b * y_size_,
                          x_ + b * x_size_,
                          batch_ * y_size_,
                          batch_ * x_size_,
                          columns_,
                          r_.threshold ? seeds_[b] : 0,
                          tile,
                          memory,
                          gap_,
                          {loaded, 1},
                          {own, 1},
                          sliced ? &slices_ : nullptr,
                          sliced ? store_->names() : nullptr,
                          nullptr,
                          0,
                          reach_,
                          thread,
                          threads};
    TileRun<T, I> run(work, op_, r_, storage_, step_, barrier);
    run.pack();
    run.steps([](std::int64_t, Step<T, I>&) {});
  }

  T* const y_;
  const T* const x_;
  const Operator<T, I>& op_;
  const std::int64_t batch_, columns_, y_size_, x_size_;  // sizes of an output and an input of an element of the batch
  const Recurrence& r_;
  const std::uint64_t* const seeds_;
  const Reach* const reach_;
  const Storage storage_;
  const StepFunction<T, I> step_;
  Plan plan_;
  std::optional<SliceStore<T, I>> store_;
  Slices<T, I> slices_{};
  std::int64_t gap_ = 0;  // between packed arrays
};

}  // namespace

template <class T, class I>
void propagate(T* y, const T* x, const Operator<T, I>& op, std::int64_t batch, std::int64_t columns,
               const Recurrence& recurrence, const std::uint64_t* seeds, const Options& options, const Reach* reach) {
  Propagation<T, I>(y, x, op, batch, columns, recurrence, seeds, options, reach).run(options);
}

template <class T, class I>
void multiply_tile(T* y, const T* x, const Operator<T, I>& op, std::int64_t columns, const Tile& tile,
                   const Options& options) {
  const auto edges = static_cast<std::int64_t>(op.rowptr[op.rows]);
  const Sink<T> sink{nullptr, y, T{1}, false};
  Step<T, I> s{};
  s.rowptr = op.rowptr;
  s.col = op.col;
  s.value = op.value;
  s.source = x;
  s.stride = columns;
  s.tile = tile;
  s.scale = T{1};
  s.sinks = &sink;
  s.num_sinks = 1;
  s.prefetch_end = edges - prefetch_distance(tile.width);
  const StepFunction<T, I> step = step_function<T, I>(options);
  parallel(useful_threads(options.threads, (edges + op.rows) * tile.width), [&](int thread, int team) {
    Step<T, I> own = s;
    own.first_row = cut_row(op, thread, team);
    own.last_row = cut_row(op, thread + 1, team);
    step(own);
  });
}

#define TGD_INSTANTIATE(T, I)                                                                                 \
  template void propagate(T*, const T*, const Operator<T, I>&, std::int64_t, std::int64_t, const Recurrence&, \
                          const std::uint64_t*, const Options&, const Reach*);                                \
  template void multiply_tile(T*, const T*, const Operator<T, I>&, std::int64_t, const Tile&, const Options&);
TGD_INSTANTIATE(float, std::int32_t)
TGD_INSTANTIATE(float, std::int64_t)
TGD_INSTANTIATE(double, std::int32_t)
TGD_INSTANTIATE(double, std::int64_t)

}  // namespace tgd
