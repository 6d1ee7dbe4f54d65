// A tile is run forward with its states kept, then its transpose, whose states lambda meet them:
//   dx_i = sum_k c_ik lambda_k,  dP_ij = sum_k a_k <lambda_k[i], u_k[j]>  with u_k = M_k z_{k-1},
//   da_k = <P^T lambda_k, u_k>,  dd_k = <lambda_k, u_k>,  db_k = <lambda_k, z_{k-2}>,
//   dc_ik = <lambda_k, x_i>,  dw_ok = <g_o, z_k>.
// Threads own tiles where there are enough of them and no edges to be added up over all; else they own rows
// and take the tiles one after the other together. Inner products are added up over fixed pieces of the
// rows, and of edges over all tiles, so that the order of every sum is that of one thread.
#include "gradients.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "memory.h"
#include "parallel.h"
#include "plan.h"
#include "tile.h"

namespace tgd {
namespace {

constexpr int kPieces = 64;
constexpr std::int64_t kMostMemory = std::int64_t{256} << 20;
constexpr std::int64_t kMostOwned = std::int64_t{16} << 20;  // of all threads: more is new to the system at every call

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
        at = static_cast<I>(std::find(transpose.col + transpose.rowptr[j], transpose.col + end, static_cast<I>(i)) - transpose.col);
      if (at == end) throw std::invalid_argument("the second matrix is not the transpose of the first");
      to[e] = from[at];
    }
}

// Whether nothing but w is learned and z_k is a polynomial of P times x. Then <g, z_k> = <h_k, x> with h_k
// that of P^T times g, and dx = sum_k w_k h_k: one run of the recurrence itself gives both.
template <class T>
bool weighs_powers(const Recurrence& r, const Gradients<T>& to) {
  if (!to.dtable || to.kinds != kW || to.dvalue || r.threshold || r.inputs > 1 || r.outputs > 1) return false;
  for (std::int64_t k = 1; k <= r.steps; ++k)
    if (r.c(0, k) != 0) return false;
  return true;
}

}  // namespace

template <class T, class I>
void gradients(const Gradients<T>& to, const T* x, const T* g, const Operator<T, I>& op,
               const Operator<T, I>& transpose, std::int64_t batch, std::int64_t columns, const Recurrence& r,
               const std::uint64_t* seeds, const Options& options) {
  const std::int64_t rows = op.rows, size = rows * columns, num_sums = (3 + r.inputs + r.outputs) * (r.steps + 1);
  if (to.dtable) std::fill(to.dtable, to.dtable + num_sums, 0.0);
  if (to.dvalue) std::fill(to.dvalue, to.dvalue + op.rowptr[rows], T{0});
  if (size == 0 || batch == 0) return;

  const auto wants = [&](unsigned kinds) { return to.dtable && (to.kinds & kinds); };
  const bool weights = wants(kW), keep = to.dvalue || wants(kA | kD | kB);
  const bool back = to.dx || keep || wants(kC);
  Recurrence f = r, t = r;
  f.outputs = 0;  // dw takes its states
  const bool once = weighs_powers(r, to);
  const std::vector<double> table = transposed_table(r);
  if (!once) {
    t.table = table.data();
    t.reverse = !r.reverse;
    t.inputs = r.outputs;
  }
  t.outputs = to.dx ? r.inputs : 0;
  const std::int64_t no_steps = -1;
  const Storage fs(f, {keep, once || wants(kC), once ? no_steps : weights ? r.steps : keep ? r.steps - 1 : no_steps});
  const Storage ts(t, {false, weights && !once, once || keep || wants(kC) ? r.steps : no_steps});
  if (to.dx)
    for (int i = 0; i < r.inputs; ++i)
      if (ts.to[i] < 0) std::memset(to.dx + i * batch * size, 0, sizeof(T) * static_cast<std::size_t>(batch * size));

  // The width of a tile must not depend on the threads, since edges add up by tiles.
  const std::int64_t arrays = fs.arrays + ts.arrays;
  int width = widest<T>(options);
  const auto bytes = [&](std::int64_t n) { return n * rows * width * static_cast<std::int64_t>(sizeof(T)); };
  if (width > 32 && bytes(2) > caches().l2 / 2) width = 32;
  while (width > kBlock && (bytes(arrays) > kMostMemory || (options.width && width > options.width))) width /= 2;
  const std::vector<Tile> tiles = cut_columns(columns, width, {caches().fit(rows * static_cast<std::int64_t>(sizeof(T)))}, kBlock);
  const std::int64_t gap = rows * tiles[0].width + 1024 / static_cast<std::int64_t>(sizeof(T));
  const std::int64_t edges = static_cast<std::int64_t>(op.rowptr[rows]);
  const std::int64_t work = 2 * (edges + rows) * columns * batch * std::max<std::int64_t>(r.steps, 1);
  const int team = options.width ? options.threads : static_cast<int>(std::min<std::int64_t>(options.threads, 1 + (work >> 17)));

  const auto count_tiles = static_cast<std::int64_t>(tiles.size()), runs = batch * count_tiles;
  const TileCost cost{caches().fit(rows * static_cast<std::int64_t>(sizeof(T)))};
  const bool by_tile = !to.dvalue, fits = team * arrays * gap * static_cast<std::int64_t>(sizeof(T)) <= kMostOwned;
  const bool own = by_tile && (team == 1 || (fits && busy(tiles, cost, batch, team) >= 0.6));
  Buffer buffer(sizeof(T) * static_cast<std::size_t>((own ? team : 1) * arrays * gap));
  std::vector<double> sums((own ? team : by_tile ? runs : 1) * kPieces * num_sums), of_tile(own ? runs * num_sums : 0);
  std::vector<T> edge_sums(to.dvalue ? edges : 0);
  std::int64_t bounds[kPieces + 1], bounds_t[kPieces + 1];
  for (int p = 0; p <= kPieces; ++p) {
    bounds[p] = cut_row(op, p, kPieces);
    bounds_t[p] = cut_row(transpose, p, kPieces);
  }
  const auto step = step_function<T, I>(options);
  const auto sum_of = [&](int row, std::int64_t k) { return row * (r.steps + 1) + k; };

  const auto run = [&](std::int64_t n, int first, int count, Barrier& barrier, T* memory, double* all_sums) {
    const std::int64_t b = n / count_tiles;
    const Tile& tile = tiles[n % count_tiles];
    const std::uint64_t seed = r.threshold ? seeds[b] : 0;
    double* piece_sums = all_sums + first * num_sums;
    const Pieces own{bounds + first, count}, own_t{bounds_t + first, count};
    const Work<T, I> forward{nullptr, x + b * size, 0, batch * size, columns, seed, tile, memory, gap,
                          own, own, nullptr, nullptr, piece_sums, num_sums};
    const Work<T, I> backward{to.dx ? to.dx + b * size : nullptr, g + b * size, batch * size, batch * size, columns, seed, tile,
                           memory + fs.arrays * gap, gap, own_t, own_t, nullptr, nullptr, piece_sums, num_sums};
    std::vector<Dot<T>> list(std::max(3 + r.inputs, r.outputs));
    std::vector<T> lanes(list.size() * kBlock);
    const auto begin = [&](Step<T, I>& s) {
      s.dots = list.data();
      s.lanes = lanes.data();
      s.edges = nullptr;
    };
    TileRun<T, I> up(forward, op, f, fs, step, barrier), down(backward, transpose, t, ts, step, barrier);
    up.pack();
    down.pack();
    if (once)
      return down.steps([&](std::int64_t k, Step<T, I>& s) {
        begin(s);
        list[s.num_dots++] = {forward.array(fs.copy[0]), false, sum_of(4, k)};
      });
    up.steps([&](std::int64_t k, Step<T, I>& s) {
      begin(s);
      if (weights)
        for (int o = 0; o < r.outputs; ++o)
          list[s.num_dots++] = {backward.array(ts.copy[o]), false, sum_of(3 + r.inputs + o, k)};
    });
    if (!back) return;
    down.steps([&](std::int64_t j, Step<T, I>& s) {
      const std::int64_t k = r.steps - j;  // z is lambda_k
      begin(s);
      if (keep && j > ts.first) {  // and the product is P^T lambda_{k+1}
        const T* u = forward.array(fs.state(k));
        if (wants(kA)) {
          s.rowptr = transpose.rowptr;
          list[s.num_dots++] = {u, true, sum_of(0, k + 1)};
        }
        s.edges = to.dvalue && s.scale != 0 ? edge_sums.data() : nullptr;
        s.edge_rows = u;
      }
      if (wants(kD) && k >= 1) list[s.num_dots++] = {forward.array(fs.state(k - 1)), false, sum_of(1, k)};
      if (wants(kB) && k >= 2) list[s.num_dots++] = {forward.array(fs.state(k - 2)), false, sum_of(2, k)};
      if (wants(kC))
        for (int i = 0; i < r.inputs; ++i) list[s.num_dots++] = {forward.array(fs.copy[i]), false, sum_of(3 + i, k)};
    });
  };

  if (own) {
    std::atomic<std::int64_t> next{0};
    parallel(team, [&](int thread, int) {
      Barrier alone(1);
      double* mine = sums.data() + thread * kPieces * num_sums;
      for (std::int64_t n; (n = next.fetch_add(1, std::memory_order_relaxed)) < runs;) {
        std::fill(mine, mine + kPieces * num_sums, 0.0);
        run(n, 0, kPieces, alone, buffer.as<T>() + thread * arrays * gap, mine);
        for (std::int64_t at = 0; at < kPieces * num_sums; ++at) of_tile[n * num_sums + at % num_sums] += mine[at];
      }
    });
  } else {
    parallel_together(team, [&](int thread, int got, Barrier& barrier) {
      const int first = kPieces * thread / got, last = kPieces * (thread + 1) / got;
      for (std::int64_t n = 0; n < runs; ++n)
        run(n, first, last - first, barrier, buffer.as<T>(), sums.data() + (by_tile ? n : 0) * kPieces * num_sums);
    });
    of_tile.resize((by_tile ? runs : 1) * num_sums);
    for (std::int64_t at = 0; at < static_cast<std::int64_t>(sums.size()); ++at)
      of_tile[at / (kPieces * num_sums) * num_sums + at % num_sums] += sums[at];
  }
  if (to.dtable)
    for (std::int64_t at = 0; at < static_cast<std::int64_t>(of_tile.size()); ++at) to.dtable[at % num_sums] += of_tile[at];
  if (to.dvalue) untranspose(to.dvalue, edge_sums.data(), op, transpose);
}

#define TGD_INSTANTIATE(T, I)                                                                             \
  template void gradients(const Gradients<T>&, const T*, const T*, const Operator<T, I>&,                 \
                          const Operator<T, I>&, std::int64_t, std::int64_t, const Recurrence&,           \
                          const std::uint64_t*, const Options&);
TGD_INSTANTIATE(float, std::int32_t)
TGD_INSTANTIATE(float, std::int64_t)
TGD_INSTANTIATE(double, std::int32_t)
TGD_INSTANTIATE(double, std::int64_t)

}  // namespace tgd
