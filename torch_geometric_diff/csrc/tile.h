// All steps of one column tile, with the packed arrays that they work on.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "memory.h"
#include "parallel.h"
#include "propagate.h"

namespace tgd {

// Dropout of a step, counted from 0.
inline Mask mask(std::uint32_t threshold, std::uint64_t seed, std::int64_t step) {
  std::uint64_t s = seed + static_cast<std::uint64_t>(step + 1) * 0x9E3779B97F4A7C15u;
  s = (s ^ (s >> 30)) * 0xBF58476D1CE4E5B9u;
  s = (s ^ (s >> 27)) * 0x94D049BB133111EBu;
  s ^= s >> 31;
  return {static_cast<std::uint32_t>(s), static_cast<std::uint32_t>(s >> 32), threshold,
          65536.0 / (65536.0 - threshold)};
}

// What stays in memory besides what a recurrence needs to reach its outputs.
struct Keep {
  bool states = false;     // states but z_K, as the next product reads them, in arrays that Work::states names
  bool copies = false;     // of every input
  std::int64_t last = -1;  // the last state that is computed, at least
  std::int64_t most = 0;   // arrays for states
};

// The steps that a recurrence needs, and the packed arrays they work on: states, of which two are enough
// to go on, a copy of every input that is read often and a sum for every output of several states.
struct Storage {
  std::int64_t first = 0, last = -1;   // z_first is the first that is not zero, z_last the last one computed
  std::int64_t stored = -1;            // the last one that is stored
  int states = 0, arrays = 0;          // the states come first
  int alias = -1;                      // the input whose copy is z_first
  bool all;                            // states are kept
  std::vector<int> copy, sum;          // the array of an input, of an output; -1: none
  std::vector<std::int64_t> from, to;  // the first and last state of an output; to < 0: none

  explicit Storage(const Recurrence& r, Keep keep = {})
      : last(keep.last), all(keep.states), copy(r.inputs, -1), sum(r.outputs, -1), from(r.outputs, r.steps + 1),
        to(r.outputs, -1) {
    const auto starts = [&](std::int64_t k) {
      for (int i = 0; i < r.inputs; ++i)
        if (r.c(i, k) != 0) return true;
      return false;
    };
    if (!r.bounded && !all)  // zero may lie outside of the bounds
      while (first <= r.steps && !starts(first)) ++first;
    for (int o = 0; o < r.outputs; ++o)
      for (std::int64_t k = first; k <= r.steps; ++k)
        if (r.w(o, k) != 0) {
          from[o] = std::min(from[o], k);
          to[o] = k;
          last = std::max(last, k);
        }
    if (first > last) last = -1;
    if (last < 0) {
      if (keep.copies)
        for (int& n : copy) n = arrays++;
      return;
    }
    stored = all ? r.steps - 1 : last - 1;
    const bool masked = r.threshold && !r.reverse;
    int at_first = 0;
    for (int i = 0; i < r.inputs; ++i) {
      int reads = 0;
      for (std::int64_t k = first; k <= last; ++k) reads += r.c(i, k) != 0;
      if (keep.copies || reads > 2) copy[i] = arrays++;
      if (r.c(i, first) == 0) continue;
      alias = ++at_first == 1 && copy[i] >= 0 && r.c(i, first) == 1 && !masked && !all ? i : -1;
    }
    for (int o = 0; o < r.outputs; ++o)
      if (to[o] > from[o]) sum[o] = arrays++;
    const std::int64_t most = stored + 1 - first - (alias >= 0);
    states = static_cast<int>(std::clamp<std::int64_t>(most, 0, all ? keep.most : 2));
    arrays += states;
    for (int& n : copy) n += n < 0 ? 0 : states;
    for (int& n : sum) n += n < 0 ? 0 : states;
  }

  // The array of z_k where two are enough: its own, or that of z_{k-2}, but not the copy of an input.
  int state(std::int64_t k) const {
    if (alias < 0) return static_cast<int>((k - first) % 2);
    return k == first ? copy[alias] : static_cast<int>((k - first - 1) % 2);
  }
};

// Row bounds[p] is the first of piece p.
struct Pieces {
  const std::int64_t* bounds;
  int count;
};

// A tile of one element of the batch, its memory, and the pieces of its rows that a thread works on: as it
// loads the features, and, in the order of `slices` where there are any, in every step.
template <class T, class I>
struct Work {
  T* y;  // the first output; the others follow `y_size` apart
  const T* x;
  std::int64_t y_size, x_size, columns;
  std::uint64_t seed;
  Tile tile;
  T* memory;
  std::int64_t gap;  // between packed arrays
  Pieces loaded, own;
  const Slices<T, I>* slices = nullptr;
  const I* names = nullptr;  // of the rows, beside slices
  double* sums = nullptr;    // of a thread's first piece; `num_sums` a piece
  std::int64_t num_sums = 0;
  const Reach* reach = nullptr;
  int thread = 0, threads = 1;  // of those that share the tile; for `reach`
  const int* states = nullptr;  // the arrays of states; null: those of Storage

  T* array(int n) const { return n < 0 ? nullptr : memory + n * gap; }
};

// The first row of a part when all have as many edges and rows (a row costs about four edges).
template <class T, class I>
std::int64_t cut_row(const Operator<T, I>& op, int part, int parts) {
  const auto cost = [&](std::int64_t i) { return static_cast<std::int64_t>(op.rowptr[i]) + 4 * i; };
  const std::int64_t wanted = cost(op.rows) / parts * part;
  std::int64_t low = 0, high = op.rows;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (cost(middle) < wanted) low = middle + 1;
    else high = middle;
  }
  return part == parts ? op.rows : low;
}

template <class T, class I>
class TileRun {
 public:
  TileRun(const Work<T, I>& work, const Operator<T, I>& op, const Recurrence& recurrence, const Storage& storage,
          StepFunction<T, I> step, Barrier& barrier)
      : work_(work), op_(op), r_(recurrence), storage_(storage), step_(step), barrier_(barrier),
        terms_(recurrence.inputs + 2), sinks_(recurrence.outputs) {
    s_.col = op.col;
    s_.value = op.value;
    s_.original = work.slices ? work.names : op.original;
    s_.stride = work.columns;
    s_.tile = work.tile;
    s_.slices = work.slices;
    const std::int64_t column = op.sources * static_cast<std::int64_t>(sizeof(T));
    const bool far = work.slices ? work.tile.width > caches().fit(column) : 2 * work.tile.width * column > (1 << 20);
    if (far) s_.prefetch_end = static_cast<std::int64_t>(op.rowptr[op.rows]) - prefetch_distance(work.tile.width);
    s_.mask_target = !recurrence.reverse;
    s_.low = static_cast<T>(recurrence.low);
    s_.high = static_cast<T>(recurrence.high);
    s_.terms = terms_.data();
    s_.sinks = sinks_.data();
  }

  // Copies the inputs that are to be packed.
  void pack() {
    if (work_.slices && work_.loaded.bounds[work_.loaded.count] == op_.sources) {
      // what is left of the last slice, and the row of zeros
      const std::int64_t more = kSliceRows - 1 - (op_.sources - 1) % kSliceRows + 1;
      for (int n = 0; n < storage_.arrays; ++n)
        std::memset(work_.array(n) + op_.sources * work_.tile.width, 0, more * work_.tile.width * sizeof(T));
    }
    for (int i = 0; i < r_.inputs; ++i)
      if (storage_.copy[i] >= 0) {
        add(work_.x + i * work_.x_size, 1, false);
        s_.target = work_.array(storage_.copy[i]);
        go(work_.loaded);
      }
  }

  // observe(k, step) may ask step k for more.
  template <class Observe>
  void steps(const Observe& observe) {
    for (std::int64_t k = storage_.first; k <= storage_.last; ++k) step(k, observe);
  }

  // z_k of the states before it.
  template <class Observe>
  void step(std::int64_t k, const Observe& observe) {
    const bool product = k > storage_.first, aliased = !product && storage_.alias >= 0;
    if (product) {
      s_.source = work_.array(state(k - 1));
      s_.scale = static_cast<T>(r_.a(k));
      s_.rowptr = r_.a(k) != 0 ? op_.rowptr : nullptr;
      s_.bounded = r_.bounded;
      add(s_.source, r_.d(k), true);
    }
    s_.product_terms = s_.num_terms;
    if (k >= storage_.first + 2) add(work_.array(state(k - 2)), r_.b(k), true);
    for (int i = 0; i < r_.inputs; ++i) {
      const T* copy = work_.array(storage_.copy[i]);
      add(copy ? copy : work_.x + i * work_.x_size, r_.c(i, k), copy);
    }
    for (int o = 0; o < r_.outputs; ++o)
      if (r_.w(o, k) != 0) {
        T* end = k == storage_.to[o] ? work_.y + o * work_.y_size : nullptr;
        sinks_[s_.num_sinks++] = {work_.array(storage_.sum[o]), end, static_cast<T>(r_.w(o, k)), k > storage_.from[o]};
      }
    s_.target = k <= storage_.stored && !aliased ? work_.array(state(k)) : nullptr;
    s_.mask = nullptr;
    const bool moved = product && (s_.rowptr || s_.product_terms);  // else there is nothing to mask
    if (r_.threshold && (r_.reverse ? moved : k <= storage_.stored)) {
      mask_ = mask(r_.threshold, work_.seed, r_.reverse ? r_.steps - k : k);
      s_.mask = &mask_;
    }
    observe(k, s_);
    if (work_.reach) go_near(k, product);
    else go(product ? work_.own : work_.loaded);
  }

 private:
  int state(std::int64_t k) const { return work_.states ? work_.states[k] : storage_.state(k); }

  void add(const T* from, double factor, bool packed) {
    if (factor != 0) terms_[s_.num_terms++] = {from, static_cast<T>(factor), packed};
  }

  // The rows of a step that matter; in reverse those that are not zero.
  void go_near(std::int64_t k, bool product) {
    const auto within = [&](std::int64_t j) { return j < work_.reach->count ? work_.reach->within[j] : op_.sources; };
    const std::int64_t far = r_.reverse ? k : r_.steps - k, rows = within(far);
    Operator<T, I> near = op_;
    near.rows = rows;
    std::int64_t bounds[2];
    for (int end = 0; end < 2; ++end) {
      const int part = work_.thread + end;
      bounds[end] = product ? cut_row(near, part, work_.threads) : rows * part / work_.threads;
    }
    if (r_.reverse && s_.target) {  // the next step reads zeros around them
      const std::int64_t zeros = op_.sources - rows, first = rows + zeros * work_.thread / work_.threads;
      const std::int64_t last = rows + zeros * (work_.thread + 1) / work_.threads;
      std::fill(s_.target + first * work_.tile.width, s_.target + last * work_.tile.width, T{0});
    }
    s_.original = far == 0 ? nullptr : op_.original;  // these rows are features of their own
    go({bounds, 1});
  }

  // The team meets after every step.
  void go(const Pieces& pieces) {
    if (s_.target || s_.num_sinks || s_.num_dots || s_.edges) {
      if (s_.slices && s_.rowptr && !s_.prefetch_end) fetch_others(pieces);
      for (int p = 0; p < pieces.count; ++p) {
        s_.first_row = pieces.bounds[p];
        s_.last_row = pieces.bounds[p + 1];
        s_.sums = work_.sums + p * work_.num_sums;
        step_(s_);
      }
      barrier_.wait();
    }
    s_.num_terms = s_.num_sinks = s_.num_dots = 0;
  }

  // The rows that other threads have just written: one after the other they come sooner than at random.
  void fetch_others(const Pieces& own) const {
    constexpr int line = 64 / sizeof(T);
    const std::int64_t width = work_.tile.width, first = own.bounds[0] * width, last = own.bounds[own.count] * width;
    for (std::int64_t j = 0; j < first; j += line) __builtin_prefetch(s_.source + j, 0, 2);
    for (std::int64_t j = last; j < op_.sources * width; j += line) __builtin_prefetch(s_.source + j, 0, 2);
  }

  const Work<T, I>& work_;
  const Operator<T, I>& op_;
  const Recurrence& r_;
  const Storage& storage_;
  const StepFunction<T, I> step_;
  Barrier& barrier_;
  std::vector<Term<T>> terms_;
  std::vector<Sink<T>> sinks_;
  Mask mask_;
  Step<T, I> s_{};
};

// The inner loops for the types.
template <class T, class I>
StepFunction<T, I> step_function(const Options& options) {
  const Level& level = options.level ? *options.level : *levels()[0];
  if constexpr (sizeof(T) == 4) {
    if constexpr (sizeof(I) == 4) return level.f32_i32;
    else return level.f32_i64;
  } else {
    if constexpr (sizeof(I) == 4) return level.f64_i32;
    else return level.f64_i64;
  }
}

template <class T>
int widest(const Options& options) {
  const Level& level = options.level ? *options.level : *levels()[0];
  return sizeof(T) == 4 ? level.widest_float : level.widest_double;
}

}  // namespace tgd
