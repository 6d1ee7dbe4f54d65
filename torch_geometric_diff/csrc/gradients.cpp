// A tile is run forward with states kept, then its transpose, whose states lambda meet them:
//   dx_i = sum_k c_ik lambda_k,  dP_ij = sum_k a_k <lambda_k[i], u_k[j]>  with u_k = M_k z_{k-1},
//   da_k = <P^T lambda_k, u_k>,  dd_k = <lambda_k, u_k>,  db_k = <lambda_k, z_{k-2}>,
//   dc_ik = <lambda_k, x_i>,  dw_ok = <g_o, z_k>.
// The states that there is no memory for are computed again, so that memory does not grow with K.
// Threads own tiles where there are enough of them; else they own rows and take the tiles one after the other
// together. Inner products are added up over fixed pieces of the rows, tile by tile, and gradients of entries over
// fixed groups of tiles, so that no order of a sum depends on the threads.
#include "gradients.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

#include "memory.h"
#include "parallel.h"
#include "plan.h"
#include "tile.h"

namespace tgd {
namespace {

constexpr int kPieces = 64;  // of the rows, by which inner products are added up
constexpr std::int64_t kMostMemory = std::int64_t{256} << 20;
constexpr std::int64_t kMostOwned = std::int64_t{16} << 20;  // of all threads: more is new to the system at every call
constexpr std::int64_t kMostGroups = 8;                      // of tiles, whose gradients of entries are added up apart
constexpr std::int64_t kNoSteps = -1;
// Of the states of a tile of 32 columns; fewer than kFewStates would be computed again too often: 10 of them take
// 2.4 times the steps forward at K = 100.
constexpr std::int64_t kStateMemory = std::int64_t{16} << 20;
constexpr std::int64_t kFewStates = 10;

std::vector<double> transposed_table(const Recurrence& r) {
  const std::int64_t columns = r.steps + 1;
  std::vector<double> table((3 + r.inputs + r.outputs) * columns);
  double* row = table.data();
  const auto add = [&](auto coefficient, std::int64_t first, std::int64_t sum) {
    for (std::int64_t j = first; j < columns; ++j) row[j] = coefficient(sum - j);
    row += columns;
  };
  add([&](std::int64_t k) { return r.a(k); }, 1, columns);
  add([&](std::int64_t k) { return r.d(k); }, 1, columns);
  add([&](std::int64_t k) { return r.b(k); }, 2, columns + 1);
  for (int o = 0; o < r.outputs; ++o) add([&](std::int64_t k) { return r.w(o, k); }, 0, r.steps);
  for (int i = 0; i < r.inputs; ++i) add([&](std::int64_t k) { return r.c(i, k); }, 0, r.steps);
  return table;
}

// Entries of the transpose in the order of the operator; an equal one where a row is not in order.
template <class T, class I>
void untranspose(T* to, const T* from, const Operator<T, I>& op, const Operator<T, I>& transpose) {
  std::vector<I> next(transpose.rowptr, transpose.rowptr + op.rows);
  for (std::int64_t i = 0; i < op.rows; ++i)
    for (I e = op.rowptr[i]; e < op.rowptr[i + 1]; ++e) {
      const I j = op.col[e], end = transpose.rowptr[j + 1];
      I at = next[j]++;
      if (at >= end || transpose.col[at] != i)
        at = static_cast<I>(std::find(transpose.col + transpose.rowptr[j], transpose.col + end, static_cast<I>(i)) -
                            transpose.col);
      if (at == end) throw std::invalid_argument("the second matrix is not the transpose of the first");
      to[e] = from[at];
    }
}

// The states of the forward pass that are in memory. The way back asks for them from the last to the first; those
// that do not fit are computed again, none more often than needed (Griewank and Walther, "Algorithm 799: Revolve").
class States {
 public:
  // A state is made of `depth` others; a step of the way back reads `window` of them.
  States(std::int64_t count, int arrays, int depth, int window) : array_(count, -1), depth_(depth), above_(window - 1) {
    for (int n = arrays; n-- > 0;) free_.push_back(n);
  }

  const int* arrays() const { return array_.data(); }

  // Makes sure of z_k when z_{k+1} was asked for before, if there is one. compute(k) makes it of those before it.
  template <class Compute>
  void want(std::int64_t k, const Compute& compute) {
    if (k < 0 || array_[k] >= 0) return;
    last_ = std::max(last_, k);
    std::int64_t at = k;
    while (at > 0 && (array_[at] < 0 || (depth_ > 1 && array_[at - 1] < 0))) --at;
    if (array_[0] < 0) take(0, compute);
    while (at < k) {
      const bool fits = unused() >= k - at;
      const std::int64_t next = fits ? k : at + ahead(k - at + 1, unused() - missing_above(k));
      for (std::int64_t j = at + 1; j <= next; ++j) {
        if (fits || j - at <= 2) {
          take(j, compute);
        } else {
          array_[j] = array_[j - 2];
          compute(j);
          array_[j - 2] = -1;
        }
      }
      if (!fits && depth_ == 1 && next - at > 1) drop(next - 1);
      at = next;
    }
  }

  // Those behind z_k are not asked for again.
  void drop_behind(std::int64_t k) {
    for (; last_ > k; --last_)
      if (array_[last_] >= 0) drop(last_);
  }

 private:
  int unused() const { return static_cast<int>(free_.size()); }

  // Arrays that states behind z_k will take when steps before it are computed again.
  int missing_above(std::int64_t k) const {
    int missing = above_;
    for (std::int64_t j = k + 1; j <= k + above_ && j < static_cast<std::int64_t>(array_.size()); ++j)
      missing -= array_[j] >= 0;
    return missing;
  }

  // How far to go before a state is kept, for so many steps back with so many arrays.
  std::int64_t ahead(std::int64_t steps, int arrays) const {
    if (arrays < 2) throw std::logic_error("too few arrays for the states of a tile");
    std::vector<std::int64_t> most(arrays + 1);  // steps that so many arrays allow, each computed once at first
    for (int n = 0; n <= arrays; ++n) most[n] = n + 1;
    while (most[arrays] < steps)
      for (int n = 2; n <= arrays; ++n) most[n] += most[n - depth_];
    return steps - std::min(most[arrays - depth_], steps - 1);
  }

  template <class Compute>
  void take(std::int64_t k, const Compute& compute) {
    array_[k] = free_.back();
    free_.pop_back();
    compute(k);
  }

  void drop(std::int64_t k) { free_.push_back(std::exchange(array_[k], -1)); }

  std::vector<int> array_, free_;
  std::int64_t last_ = -1;  // none behind it is in memory
  const int depth_, above_;
};

// Both passes: which of their states meet, and the arrays that they need.
struct Passes {
  bool weights, states, inputs;  // dw is wanted; what meets lambda: the states, the inputs
  int depth, window;             // states that make the next one, and that meet lambda in one step
  // Nothing but w is learned and z_k is a polynomial of P times x. Then <g, z_k> = <h_k, x> with h_k that of
  // P^T times g, and dx = sum_k w_k h_k: one run of the recurrence itself gives both.
  bool once;
  std::vector<double> table;  // of the transpose
  Recurrence forward, backward;
  Storage up, down;

  template <class T>
  Passes(const Recurrence& r, const Gradients<T>& to, std::int64_t rows, const Options& options)
      : weights(to.wants(kW)), states(to.dvalue || to.wants(kA | kD | kB)), inputs(to.wants(kC)), depth(depth_of(r)),
        window(to.wants(kB)   ? 3
               : to.wants(kD) ? 2
                              : 1),
        once(weighs_powers(r, to)), table(transposed_table(r)), forward(without_outputs(r)),
        backward(transposed(r, to.dx)),
        up(forward, kept_forward(most_states(rows * 32 * static_cast<std::int64_t>(sizeof(T)), options))),
        down(backward, kept_backward()) {}

  std::int64_t arrays() const { return up.arrays + down.arrays; }

 private:
  template <class T>
  static bool weighs_powers(const Recurrence& r, const Gradients<T>& to) {
    if (!to.dtable || to.kinds != kW || to.dvalue || r.threshold || r.inputs > 1 || r.outputs > 1) return false;
    for (std::int64_t k = 1; k <= r.steps; ++k)
      if (r.c(0, k) != 0) return false;
    return true;
  }

  static std::int64_t most_states(std::int64_t bytes, const Options& options) {
    return options.states ? std::max(options.states, 3) : std::max(kFewStates, kStateMemory / bytes);
  }

  static int depth_of(const Recurrence& r) {
    for (std::int64_t k = 2; k <= r.steps; ++k)
      if (r.b(k) != 0) return 2;
    return 1;
  }

  static Recurrence without_outputs(Recurrence r) {  // dw takes the states themselves
    r.outputs = 0;
    return r;
  }

  Recurrence transposed(Recurrence r, bool wants_x) const {
    const int inputs_of_forward = r.inputs;
    if (!once) {
      r.table = table.data();
      r.reverse = !r.reverse;
      r.inputs = r.outputs;
    }
    r.outputs = wants_x ? inputs_of_forward : 0;
    return r;
  }

  Keep kept_forward(std::int64_t most) const {
    const std::int64_t last = once ? kNoSteps : weights ? forward.steps : states ? forward.steps - 1 : kNoSteps;
    return {states, once || inputs, last, most + window - 1};
  }

  Keep kept_backward() const { return {false, weights && !once, once || states || inputs ? forward.steps : kNoSteps}; }
};

// Tiles of a width that does not depend on the threads, since edges add up by tiles.
template <class T>
std::vector<Tile> gradient_tiles(std::int64_t rows, std::int64_t columns, std::int64_t arrays, const Options& options) {
  int width = widest<T>(options);
  const auto bytes = [&](std::int64_t n) { return n * rows * width * static_cast<std::int64_t>(sizeof(T)); };
  if (width > 32 && bytes(2) > caches().l2 / 2) width = 32;
  while (width > kBlock && (bytes(arrays) > kMostMemory || (options.width && width > options.width))) width /= 2;
  return cut_columns(columns, width, {caches().fit(rows * static_cast<std::int64_t>(sizeof(T)))}, kBlock);
}

template <class T, class I>
class GradientRun {
 public:
  GradientRun(const Gradients<T>& to, const T* x, const T* g, const Operator<T, I>& op, const Operator<T, I>& transpose,
              std::int64_t batch, std::int64_t columns, const Recurrence& r, const std::uint64_t* seeds,
              const Options& options)
      : to_(to), x_(x), g_(g), op_(op), transpose_(transpose), batch_(batch), columns_(columns),
        size_(op.rows * columns), num_sums_(r.table_size()), r_(r), seeds_(seeds), p_(r, to, op.rows, options),
        tiles_(gradient_tiles<T>(op.rows, columns, p_.arrays(), options)),
        gap_(op.rows * tiles_[0].width + kGapBytes / static_cast<std::int64_t>(sizeof(T))), edges_(op.rowptr[op.rows]),
        groups_(groups_of(to)), edge_sums_(to.dvalue ? groups_ * edges_ : 0), step_(step_function<T, I>(options)) {
    for (int p = 0; p <= kPieces; ++p) {
      bounds_[p] = cut_row(op, p, kPieces);
      bounds_t_[p] = cut_row(transpose, p, kPieces);
    }
  }

  void run(const Options& options) {
    if (to_.dx)
      for (int i = 0; i < r_.inputs; ++i)
        if (p_.down.to[i] < 0)
          std::memset(to_.dx + i * batch_ * size_, 0, sizeof(T) * static_cast<std::size_t>(batch_ * size_));
    const int team = team_of(options);
    if (owns_tiles(team)) each_its_tiles(team);
    else all_every_tile(team);
    if (!to_.dvalue) return;
    for (std::int64_t group = 1; group < groups_; ++group)
      for (std::int64_t e = 0; e < edges_; ++e) edge_sums_[e] += edge_sums_[group * edges_ + e];
    untranspose(to_.dvalue, edge_sums_.data(), op_, transpose_);
  }

 private:
  static constexpr std::int64_t kGapBytes = 1024;

  std::int64_t count_tiles() const { return static_cast<std::int64_t>(tiles_.size()); }
  std::int64_t runs() const { return batch_ * count_tiles(); }
  std::int64_t memory() const { return p_.arrays() * gap_; }

  // Groups of tiles. Where entries are learned, each has sums of its own, which take no more memory than states.
  std::int64_t groups_of(const Gradients<T>& to) const {
    if (!to.dvalue) return runs();
    const std::int64_t most = std::min(kMostGroups, runs() * memory() / std::max<std::int64_t>(edges_, 1));
    return std::clamp<std::int64_t>(most, 1, runs());
  }
  std::int64_t first_run(std::int64_t group) const { return runs() * group / groups_; }

  int team_of(const Options& options) const {
    if (options.width) return options.threads;
    const std::int64_t work = 2 * (edges_ + op_.rows) * columns_ * batch_ * std::max<std::int64_t>(r_.steps, 1);
    return useful_threads(options.threads, work);
  }

  bool owns_tiles(int team) const {
    if (team == 1) return true;
    if (groups_ < std::min<std::int64_t>(team, runs())) return false;
    const TileCost cost{caches().fit(op_.rows * static_cast<std::int64_t>(sizeof(T)))};
    return team * memory() * static_cast<std::int64_t>(sizeof(T)) <= kMostOwned &&
           busy(tiles_, cost, batch_, team) >= kBusy;
  }

  void each_its_tiles(int team) {
    const std::int64_t pieces = kPieces * num_sums_;
    Buffer buffer(sizeof(T) * static_cast<std::size_t>(team * memory()));
    std::vector<double> sums(team * pieces), of_tile(runs() * num_sums_);
    std::atomic<std::int64_t> next{0};
    parallel(team, [&](int thread, int) {
      Barrier alone(1);
      double* mine = sums.data() + thread * pieces;
      for (std::int64_t group; (group = next.fetch_add(1, std::memory_order_relaxed)) < groups_;)
        for (std::int64_t n = first_run(group); n < first_run(group + 1); ++n) {
          std::fill(mine, mine + pieces, 0.0);
          run_tile({n, group, 0, kPieces}, alone, buffer.as<T>() + thread * memory(), mine);
          add_pieces(of_tile.data() + n * num_sums_, mine);
        }
    });
    add_tiles(of_tile);
  }

  void all_every_tile(int team) {
    const std::int64_t pieces = kPieces * num_sums_;
    Buffer buffer(sizeof(T) * static_cast<std::size_t>(memory()));
    std::vector<double> sums(runs() * pieces), of_tile(runs() * num_sums_);
    parallel_together(team, [&](int thread, int got, Barrier& barrier) {
      const int first = kPieces * thread / got, last = kPieces * (thread + 1) / got;
      for (std::int64_t group = 0; group < groups_; ++group)
        for (std::int64_t n = first_run(group); n < first_run(group + 1); ++n)
          run_tile({n, group, first, last - first}, barrier, buffer.as<T>(), sums.data() + n * pieces);
    });
    for (std::int64_t n = 0; n < runs(); ++n) add_pieces(of_tile.data() + n * num_sums_, sums.data() + n * pieces);
    add_tiles(of_tile);
  }

  void add_pieces(double* to, const double* sums) const {
    for (std::int64_t at = 0; at < kPieces * num_sums_; ++at) to[at % num_sums_] += sums[at];
  }

  void add_tiles(const std::vector<double>& of_tile) const {
    if (!to_.dtable) return;
    for (std::size_t at = 0; at < of_tile.size(); ++at) to_.dtable[at % num_sums_] += of_tile[at];
  }

  // The inner products that steps ask for, a list for both passes of a tile.
  struct Dots {
    std::vector<Dot<T>> list;
    std::vector<T> lanes;
    explicit Dots(int most) : list(most), lanes(static_cast<std::size_t>(most) * kBlock) {}

    void begin(Step<T, I>& s) {
      s.dots = list.data();
      s.lanes = lanes.data();
      s.edges = nullptr;
    }
    void add(Step<T, I>& s, const T* with, bool of_product, std::int64_t sum) {
      list[s.num_dots++] = {with, of_product, sum};
    }
  };

  // A tile of one element of the batch, and the pieces of it that a thread works on.
  struct Part {
    std::int64_t run, group;
    int first, count;
  };

  void run_tile(const Part& part, Barrier& barrier, T* memory, double* all_sums) {
    const std::int64_t b = part.run / count_tiles();
    const std::uint64_t seed = r_.threshold ? seeds_[b] : 0;
    const Tile& tile = tiles_[part.run % count_tiles()];
    double* sums = all_sums + part.first * num_sums_;
    T* edge_sums = to_.dvalue ? edge_sums_.data() + part.group * edges_ : nullptr;
    const Pieces own{bounds_ + part.first, part.count}, own_t{bounds_t_ + part.first, part.count};
    Work<T, I> up{nullptr, x_ + b * size_, 0,       batch_ * size_, columns_, seed, tile, memory, gap_, own,
                  own,     nullptr,        nullptr, sums,           num_sums_};
    States states(p_.states ? p_.up.stored + 1 : 0, p_.up.states, p_.depth, p_.window);
    up.states = states.arrays();
    const Work<T, I> down{to_.dx ? to_.dx + b * size_ : nullptr,
                          g_ + b * size_,
                          batch_ * size_,
                          batch_ * size_,
                          columns_,
                          seed,
                          tile,
                          memory + p_.up.arrays * gap_,
                          gap_,
                          own_t,
                          own_t,
                          nullptr,
                          nullptr,
                          sums,
                          num_sums_};
    Dots dots(std::max(3 + r_.inputs, r_.outputs));
    TileRun<T, I> forward(up, op_, p_.forward, p_.up, step_, barrier);
    TileRun<T, I> backward(down, transpose_, p_.backward, p_.down, step_, barrier);
    forward.pack();
    backward.pack();
    std::int64_t made = p_.up.first - 1;  // the last state that was computed
    const auto compute = [&](std::int64_t k) {
      forward.step(k, [&](std::int64_t, Step<T, I>& s) {
        dots.begin(s);
        if (p_.weights && k > made)
          for (int o = 0; o < r_.outputs; ++o) dots.add(s, down.array(p_.down.copy[o]), false, r_.w_at(o, k));
      });
      made = std::max(made, k);
    };
    if (p_.states) states.want(p_.up.stored, compute);
    if (!p_.once)
      while (made < p_.up.last) compute(made + 1);
    for (std::int64_t j = p_.down.first; j <= p_.down.last; ++j) {
      if (p_.states) {
        const std::int64_t k = std::min(r_.steps - j, p_.up.stored);
        states.drop_behind(k);
        for (int n = 0; n < p_.window; ++n) states.want(k - n, compute);
      }
      backward.step(j, [&](std::int64_t, Step<T, I>& s) {
        dots.begin(s);
        if (p_.once) dots.add(s, up.array(p_.up.copy[0]), false, r_.w_at(0, j));
        else meet(dots, s, up, j, edge_sums);
      });
    }
  }

  // Step j of the way back gives lambda_k, and the product P^T lambda_{k+1}; both meet what went forward.
  void meet(Dots& dots, Step<T, I>& s, const Work<T, I>& up, std::int64_t j, T* edge_sums) {
    const std::int64_t k = r_.steps - j;
    if (p_.states && j > p_.down.first) {
      const T* u = up.array(up.states[k]);
      if (to_.wants(kA)) {
        s.rowptr = transpose_.rowptr;
        dots.add(s, u, true, r_.a_at(k + 1));
      }
      s.edges = s.scale != 0 ? edge_sums : nullptr;
      s.edge_rows = u;
    }
    if (to_.wants(kD) && k >= 1) dots.add(s, up.array(up.states[k - 1]), false, r_.d_at(k));
    if (to_.wants(kB) && k >= 2) dots.add(s, up.array(up.states[k - 2]), false, r_.b_at(k));
    if (to_.wants(kC))
      for (int i = 0; i < r_.inputs; ++i) dots.add(s, up.array(p_.up.copy[i]), false, r_.c_at(i, k));
  }

  const Gradients<T>& to_;
  const T *x_, *g_;
  const Operator<T, I>&op_, &transpose_;
  const std::int64_t batch_, columns_, size_, num_sums_;
  const Recurrence& r_;
  const std::uint64_t* seeds_;
  const Passes p_;
  const std::vector<Tile> tiles_;
  const std::int64_t gap_;  // between packed arrays
  const std::int64_t edges_, groups_;
  std::vector<T> edge_sums_;
  const StepFunction<T, I> step_;
  std::int64_t bounds_[kPieces + 1], bounds_t_[kPieces + 1];
};

}  // namespace

template <class T, class I>
void gradients(const Gradients<T>& to, const T* x, const T* g, const Operator<T, I>& op,
               const Operator<T, I>& transpose, std::int64_t batch, std::int64_t columns, const Recurrence& r,
               const std::uint64_t* seeds, const Options& options) {
  if (to.dtable) std::fill(to.dtable, to.dtable + r.table_size(), 0.0);
  if (to.dvalue) std::fill(to.dvalue, to.dvalue + op.rowptr[op.rows], T{0});
  if (op.rows == 0 || columns == 0 || batch == 0) return;
  GradientRun<T, I>(to, x, g, op, transpose, batch, columns, r, seeds, options).run(options);
}

#define TGD_INSTANTIATE(T, I)                                                                                    \
  template void gradients(const Gradients<T>&, const T*, const T*, const Operator<T, I>&, const Operator<T, I>&, \
                          std::int64_t, std::int64_t, const Recurrence&, const std::uint64_t*, const Options&);
TGD_INSTANTIATE(float, std::int32_t)
TGD_INSTANTIATE(float, std::int64_t)
TGD_INSTANTIATE(double, std::int32_t)
TGD_INSTANTIATE(double, std::int64_t)

}  // namespace tgd
