#include "build.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "parallel.h"

namespace tgd {
namespace {

using std::int32_t;
using std::int64_t;

constexpr std::size_t kHugePage = std::size_t{1} << 21;
constexpr int64_t kAhead = 24;  // edges that a prefetch runs ahead (`python -m benchmarks.speed --suite build`)
constexpr std::size_t kNearBytes = std::size_t{1} << 22;  // edges that take less lie in a cache and need no prefetch

// An array that is not set to zero; a large one lies in huge pages, since it is written in any order.
template <class T>
class Array {
 public:
  Array() = default;
  explicit Array(int64_t size) {
    const std::size_t bytes = sizeof(T) * static_cast<std::size_t>(std::max<int64_t>(size, 1));
    const std::size_t align = bytes >= 4 * kHugePage ? kHugePage : 64;
    const std::size_t whole = (bytes + align - 1) / align * align;
    data_.reset(static_cast<T*>(std::aligned_alloc(align, whole)));
    if (!data_) throw std::bad_alloc();
    advise(data_.get(), whole);
  }
  T* get() const { return data_.get(); }
  T& operator[](int64_t i) const { return data_.get()[i]; }

  static void advise(void* data, std::size_t bytes) {
#if defined(__linux__)
    if (bytes < 4 * kHugePage) return;
    const auto first = (reinterpret_cast<std::uintptr_t>(data) + kHugePage - 1) / kHugePage * kHugePage;
    const auto last = (reinterpret_cast<std::uintptr_t>(data) + bytes) / kHugePage * kHugePage;
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
    (void)data, (void)bytes;
#endif
  }

 private:
  struct Free {
    void operator()(T* data) const { std::free(data); }
  };
  std::unique_ptr<T, Free> data_;
};

// body(part) for all parts, whatever the size of the team.
template <class Body>
void for_parts(int parts, const Body& body) {
  parallel(parts, [&](int thread, int team) {
    for (int part = thread; part < parts; part += team) body(part);
  });
}

int useful(int threads, int64_t work, int grain = 15) {
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, work >> grain)));
}

// The first row of a part, so that all parts have as many entries and rows.
template <class I>
int64_t cut_row(const I* rowptr, int64_t rows, int part, int parts) {
  if (part == parts) return rows;
  const int64_t wanted = (static_cast<int64_t>(rowptr[rows]) + rows) / parts * part;
  int64_t low = 0, high = rows;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (static_cast<int64_t>(rowptr[middle]) + middle < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

struct Nothing {};

template <class I, class W>
struct Entry {
  I col;
  W weight;
};

template <class I>
struct Entry<I, Nothing> {
  I col;
};

template <class I, class W>
double weight_of(const Entry<I, W>& entry) {
  if constexpr (std::is_same_v<W, Nothing>) return 1.0;
  else return static_cast<double>(entry.weight);
}

constexpr int kShort = 8, kMiddle = 256;  // entries of rows: of a sorting network, of merges of these on the stack

// Eight keys in ascending order, without a branch.
template <class K>
inline void sort_short(K* key) {
  const auto order = [key](int a, int b) {
    const K low = key[a] < key[b] ? key[a] : key[b], high = key[a] < key[b] ? key[b] : key[a];
    key[a] = low;
    key[b] = high;
  };
  order(0, 2), order(1, 3), order(4, 6), order(5, 7);
  order(0, 4), order(1, 5), order(2, 6), order(3, 7);
  order(0, 1), order(2, 3), order(4, 5), order(6, 7);
  order(2, 4), order(3, 5), order(1, 4), order(3, 6);
  order(1, 2), order(3, 4), order(5, 6);
}

// Keys in ascending order, in the one array or the other, whose size is that of n in whole eights.
template <class K>
K* sort_keys(K* key, K* other, int n) {
  for (int first = 0; first < n; first += kShort) sort_short(key + first);
  for (int half = kShort; half < n; half *= 2) {
    for (int first = 0; first < n; first += 2 * half) {
      int a = first, to = first;
      const int middle = std::min(first + half, n), end = std::min(first + 2 * half, n);
      for (int b = middle; a < middle && b < end;) {  // what a processor cannot foresee is no branch
        const bool takes = key[b] < key[a];
        other[to++] = takes ? key[b] : key[a];
        b += takes;
        a += !takes;
        if (a == middle)
          while (b < end) other[to++] = key[b++];
      }
      while (a < middle) other[to++] = key[a++];
    }
    std::swap(key, other);
  }
  return key;
}

// The same for a row of `most` edges at most.
template <int most, class W>
void sort_row_by_keys(Entry<int32_t, W>* first, int n) {
  constexpr bool bare = std::is_same_v<W, Nothing>;
  using K = std::conditional_t<bare, int32_t, int64_t>;
  K keys[most], others[most == kShort ? 1 : most];
  Entry<int32_t, W> given[bare ? 1 : most];
  const int size = most == kShort ? kShort : (n + kShort - 1) / kShort * kShort;
  for (int k = most == kShort ? 0 : n; k < size; ++k) keys[k] = std::numeric_limits<K>::max();
  for (int k = 0; k < n; ++k) {
    if constexpr (bare) {
      keys[k] = first[k].col;
    } else {
      given[k] = first[k];
      keys[k] = static_cast<K>(first[k].col) * most + k;
    }
  }
  const K* sorted = keys;
  if constexpr (most == kShort) sort_short(keys);
  else sorted = sort_keys(keys, others, size);
  for (int k = 0; k < n; ++k) {
    if constexpr (bare) first[k].col = sorted[k];
    else first[k] = given[sorted[k] % most];
  }
}

// Edges of a row by column, equal ones in the order given.
template <class I, class W>
void sort_row(Entry<I, W>* first, Entry<I, W>* last) {
  using E = Entry<I, W>;
  if constexpr (sizeof(I) == 4) {
    if (last - first <= kShort) return sort_row_by_keys<kShort>(first, static_cast<int>(last - first));
    if (last - first > 4 * kShort && last - first <= kMiddle)
      return sort_row_by_keys<kMiddle>(first, static_cast<int>(last - first));
  }
  const auto before = [](const E& a, const E& b) { return a.col < b.col; };
  if (last - first > 4 * kShort) {
    if (std::is_sorted(first, last, before)) return;
    if constexpr (std::is_same_v<W, Nothing>) std::sort(first, last, before);
    else std::stable_sort(first, last, before);
    return;
  }
  for (E* next = first + 1; next < last; ++next) {
    const E entry = *next;
    E* to = next;
    for (; to > first && entry.col < to[-1].col; --to) *to = to[-1];
    *to = entry;
  }
}

// Edges counted into rows (a stable counting sort over chunks of the edges, one a thread).
template <class I, class W>
struct Rows {
  Array<I> start;  // of every row
  Array<Entry<I, W>> edges;
  bool sorted = false;  // every row by column, as edges come that are in the order of either end

  // False on an index out of range or a weight that `good` refuses; weight(e) is that of edge e.
  template <class Weight, class Good>
  bool count(const Edges& given, const Weight& weight, const Good& good, int threads) {
    const int64_t n = given.nodes, m = given.count;
    // the counts of the threads should not take more room than the edges, which threads write close together
    const int parts = static_cast<int>(std::min<int64_t>(useful(threads, m, 18), 1 + m / std::max<int64_t>(n, 1)));
    const auto chunk = [&](int part) { return m / parts * part + std::min<int64_t>(part, m % parts); };
    Array<I> counts(parts * n);
    std::vector<Order> orders(parts);
    for_parts(parts, [&](int part) {
      orders[part] = count_chunk(given, chunk(part), chunk(part + 1), weight, good, counts.get() + part * n);
    });
    const auto any = [&](auto flag) {
      return std::any_of(orders.begin(), orders.end(), [&](const Order& o) { return o.*flag; });
    };
    if (any(&Order::bad)) return false;
    begin_rows(counts.get(), parts, n);
    edges = Array<Entry<I, W>>(m);
    const bool in_order = !any(&Order::unsorted);
    sorted = !any(&Order::mixed) || !any(&Order::mixed_rows);
    for_parts(parts, [&](int part) {
      scatter(given, chunk(part), chunk(part + 1), weight, in_order, counts.get() + part * n);
    });
    return true;
  }

  // visit(row, first, last) for all rows.
  template <class Visit>
  void each(int64_t nodes, int threads, const Visit& visit) const {
    const int parts = useful(threads, start[nodes] + nodes);
    for_parts(parts, [&](int part) {
      const int64_t last = cut_row(start.get(), nodes, part + 1, parts);
      for (int64_t i = cut_row(start.get(), nodes, part, parts); i < last; ++i)
        visit(i, edges.get() + start[i], edges.get() + start[i + 1]);
    });
  }

 private:
  // In what order the edges of a chunk come.
  struct Order {
    bool bad = false;         // an index is out of range, or a weight refused
    bool unsorted = false;    // not by row
    bool mixed = false;       // not by column
    bool mixed_rows = false;  // not by row and column
  };

  template <class Weight, class Good>
  static Order count_chunk(const Edges& given, int64_t first, int64_t last, const Weight& weight, const Good& good,
                           I* counts) {
    const auto n = static_cast<std::uint64_t>(given.nodes);
    const int64_t *row = given.row, *col = given.col;
    std::memset(counts, 0, sizeof(I) * static_cast<std::size_t>(n));
    int64_t previous = first > 0 ? row[first - 1] : 0, beside = first > 0 ? col[first - 1] : 0;
    int disorder = 0, row_mixed = 0, col_mixed = 0;  // no branch
    for (int64_t e = first; e < last; ++e) {
      const int64_t r = row[e], c = col[e];
      if (!(static_cast<std::uint64_t>(r) < n && static_cast<std::uint64_t>(c) < n && good(weight(e)))) return {true};
      disorder |= r < previous;
      row_mixed |= (r == previous) & (c < beside);
      col_mixed |= c < beside;
      previous = r;
      beside = c;
      ++counts[r];
    }
    return {false, disorder != 0, col_mixed != 0, (disorder | row_mixed) != 0};
  }

  // Where every row begins, and, in the place of its count, where every part of it does.
  void begin_rows(I* counts, int parts, int64_t n) {
    start = Array<I>(n + 1);
    I at = 0;
    for (int64_t i = 0; i < n; ++i) {
      start[i] = at;
      for (int part = 0; part < parts; ++part) {
        const I here = counts[part * n + i];
        counts[part * n + i] = at;
        at += here;
      }
    }
    start[n] = at;
  }

  template <class Weight>
  void scatter(const Edges& given, int64_t e, int64_t last, const Weight& weight, bool in_order, I* next) const {
    const int64_t *row = given.row, *col = given.col;
    const auto entry = [&](int64_t e) -> Entry<I, W> {
      if constexpr (std::is_same_v<W, Nothing>) return {static_cast<I>(col[e])};
      else return {static_cast<I>(col[e]), static_cast<W>(weight(e))};
    };
    if (in_order)
      for (; e < last; ++e) edges[e] = entry(e);
    if (sizeof(Entry<I, W>) * static_cast<std::size_t>(given.count) > kNearBytes)
      for (; e < last - kAhead; ++e) {
        __builtin_prefetch(&edges[next[row[e + kAhead]]], 1);
        edges[next[row[e]]++] = entry(e);
      }
    for (; e < last; ++e) edges[next[row[e]]++] = entry(e);
  }
};

template <class I, class W>
int64_t groups(const Entry<I, W>* first, const Entry<I, W>* last) {
  int64_t count = first < last;
  for (; first + 1 < last; ++first) count += first->col != first[1].col;
  return count;
}

template <class I, class W>
class BuildOf final : public Build {
 public:
  BuildOf(const Edges& edges, const Recipe& recipe, int threads) : Build(edges), recipe_(recipe), nodes_(edges.nodes) {
    is_int64 = sizeof(I) == 8;
    const double most = std::numeric_limits<double>::max(), least = recipe.is_signed ? -most : 0.0;
    const auto weight = [&](int64_t e) {
      if constexpr (std::is_same_v<W, Nothing>) return (void)e, 1.0;
      else return static_cast<double>(static_cast<const W*>(edges.weight)[e]);
    };
    const auto good = [&](double w) {
      if constexpr (std::is_same_v<W, Nothing>) return (void)w, true;
      else return w >= least && w <= most;
    };
    valid = rows_.count(edges, weight, good, threads);
    if (!valid) return;
    sizes_ = Array<I>(nodes_);
    const bool normalized = recipe.normalization != Normalization::none;
    if (normalized) degree_ = Array<double>(nodes_);
    rows_.each(nodes_, threads, [&](int64_t i, Entry<I, W>* first, Entry<I, W>* last) {
      if (normalized && !kOnes) degree_[i] = degree(i, first, last);
      const bool looped = has_loop(i, first, last);
      if (normalized && kOnes) degree_[i] = looped ? degree(i, first, last) : degree_of_ones(last - first);
      if (!rows_.sorted) sort_row(first, last);
      sizes_[i] = static_cast<I>(groups(first, last));
      if (recipe.diagonal != Diagonal::given) sizes_[i] += !looped;
    });
    for (int64_t i = 0; i < nodes_; ++i) entries += sizes_[i];
  }

  bool fill(void* rowptr, void* col, void* value, bool is_double, int threads) override {
    if (is_double) return fill_as(static_cast<I*>(rowptr), static_cast<I*>(col), static_cast<double*>(value), threads);
    return fill_as(static_cast<I*>(rowptr), static_cast<I*>(col), static_cast<float*>(value), threads);
  }

 private:
  static constexpr bool kOnes = std::is_same_v<W, Nothing>;

  static bool has_loop(int64_t i, const Entry<I, W>* first, const Entry<I, W>* last) {
    bool any = false;
    for (; first < last; ++first) any |= first->col == static_cast<I>(i);
    return any;
  }

  bool is_given() const { return recipe_.diagonal == Diagonal::given || recipe_.diagonal == Diagonal::step; }

  // The degree of a node without a loop.
  double degree_of_ones(int64_t count) const {
    return (is_given() ? 0.0 : recipe_.scale) + static_cast<double>(count) + (recipe_.count_loops ? 1.0 : 0.0);
  }

  // The weight of the loop of node i, from what is in its row.
  double loop(int64_t i, const Entry<I, W>* first, const Entry<I, W>* last) const {
    double weight = recipe_.scale;
    if (recipe_.diagonal == Diagonal::set) return weight;
    for (; first < last; ++first)
      if (first->col == static_cast<I>(i))
        weight = recipe_.diagonal == Diagonal::add ? weight + weight_of(*first) : weight_of(*first);
    return weight;
  }

  double degree(int64_t i, const Entry<I, W>* first, const Entry<I, W>* last) const {
    double sum = is_given() ? 0.0 : loop(i, first, last);
    bool looped = false;
    for (; first < last; ++first) {
      const bool is_loop = first->col == static_cast<I>(i);
      looped |= is_loop;
      if (is_given() || !is_loop) sum += weight_of(*first);
    }
    return recipe_.count_loops && !looped ? sum + 1.0 : sum;
  }

  template <Normalization kind>
  double normalized(double weight, int64_t i, int64_t j) const {
    if constexpr (kind == Normalization::none) return weight;
    if constexpr (kind == Normalization::row) return degree_[i] > 0 ? weight / degree_[i] : 0.0;
    // the larger factor first, whichever node it is of: symmetric to the last bit
    const double a = degree_[i], b = degree_[j];
    if constexpr (kOnes) return weight * a * b;  // weight 1 but on the diagonal
    return a >= b ? weight * a * b : weight * b * a;
  }

  template <class T>
  bool fill_as(I* rowptr, I* col, T* value, int threads) {
    Array<T>::advise(value, sizeof(T) * static_cast<std::size_t>(entries));
    Array<I>::advise(col, sizeof(I) * static_cast<std::size_t>(entries));
    I at = 0;
    for (int64_t i = 0; i < nodes_; ++i) {
      rowptr[i] = at;
      at += sizes_[i];
    }
    rowptr[nodes_] = at;
    switch (recipe_.normalization) {
      case Normalization::none: return fill_rows<Normalization::none>(rowptr, col, value, threads);
      case Normalization::row: return fill_rows<Normalization::row>(rowptr, col, value, threads);
      default: break;
    }
    bool finite = true;
    for (int64_t i = 0; i < nodes_; ++i) {
      finite &= std::isfinite(degree_[i]);
      degree_[i] = degree_[i] > 0 ? 1.0 / std::sqrt(degree_[i]) : 0.0;
    }
    return finite & fill_rows<Normalization::symmetric>(rowptr, col, value, threads);
  }

  // What a row of the operator has become.
  template <class T>
  struct Filled {
    double total = 0;       // of the entries beside the diagonal
    T* diagonal = nullptr;  // none
    bool finite = true;
  };

  bool has_diagonal() const { return recipe_.diagonal != Diagonal::given; }
  bool is_step() const { return recipe_.diagonal == Diagonal::step; }

  template <Normalization kind, class T>
  bool fill_rows(const I* rowptr, I* cols, T* values, int threads) {
    std::atomic<bool> finite{true};
    std::atomic<double> largest{0.0};
    const int parts = useful(threads, rows_.start[nodes_] + nodes_);
    for_parts(parts, [&](int part) {
      bool good = true;
      double most = 0;
      const int64_t end = cut_row(rows_.start.get(), nodes_, part + 1, parts);
      for (int64_t i = cut_row(rows_.start.get(), nodes_, part, parts); i < end; ++i) {
        if constexpr (kind == Normalization::row) good &= std::isfinite(degree_[i]);
        const Entry<I, W>*edge = rows_.edges.get() + rows_.start[i], *last = rows_.edges.get() + rows_.start[i + 1];
        const bool distinct = rowptr[i + 1] - rowptr[i] == last - edge + has_diagonal();
        const Filled<T> row = distinct ? fill_distinct<kind>(i, edge, last - edge, cols + rowptr[i], values + rowptr[i])
                                       : fill_summed<kind>(i, edge, last, cols + rowptr[i], values + rowptr[i]);
        if (is_step()) *row.diagonal = static_cast<T>(1.0 - recipe_.scale * row.total);
        good &= row.finite && (!row.diagonal || std::isfinite(*row.diagonal));
        most = std::max(most, row.total);
      }
      if (!good) finite.store(false);
      for (double seen = largest.load(); most > seen && !largest.compare_exchange_weak(seen, most);) {}
    });
    largest_degree = largest.load();
    return finite.load();
  }

  // A row without edges to be summed or loops to be replaced.
  template <Normalization kind, class T>
  Filled<T> fill_distinct(int64_t i, const Entry<I, W>* edge, int64_t count, I* col, T* value) const {
    Filled<T> row;
    const bool diagonal = has_diagonal(), step = is_step();
    int64_t after = 0;
    for (int64_t k = 0; k < count; ++k) {
      const I j = edge[k].col;
      const bool is_after = diagonal && j > i;
      const double entry = 0.0 + normalized<kind>(weight_of(edge[k]), i, j);
      after += is_after;
      row.total += entry;
      col[k + is_after] = j;
      const T made = static_cast<T>(step ? recipe_.scale * entry : entry);
      value[k + is_after] = made;
      row.finite &= std::isfinite(made);
    }
    if (!diagonal) return row;
    col[count - after] = static_cast<I>(i);
    row.diagonal = value + (count - after);
    if (!step) *row.diagonal = static_cast<T>(normalized<kind>(recipe_.scale, i, i));
    return row;
  }

  template <Normalization kind, class T>
  Filled<T> fill_summed(int64_t i, const Entry<I, W>* edge, const Entry<I, W>* last, I* col, T* value) const {
    Filled<T> row;
    const bool step = is_step();
    while (edge < last || (has_diagonal() && !row.diagonal)) {
      if (has_diagonal() && !row.diagonal && (edge == last || edge->col >= i)) {
        const auto* first = edge;
        while (edge < last && edge->col == i) ++edge;
        *col++ = static_cast<I>(i);
        row.diagonal = value++;
        if (!step) *row.diagonal = static_cast<T>(normalized<kind>(loop(i, first, edge), i, i));
        continue;
      }
      const I j = edge->col;
      double sum = 0;
      for (; edge < last && edge->col == j; ++edge) sum += normalized<kind>(weight_of(*edge), i, j);
      row.total += sum;
      *col++ = j;
      *value = static_cast<T>(step ? recipe_.scale * sum : sum);
      row.finite &= std::isfinite(*value++);
    }
    return row;
  }

  const Recipe recipe_;
  const int64_t nodes_;
  Rows<I, W> rows_;
  Array<I> sizes_;
  Array<double> degree_;  // in fill, its inverse root if the normalisation is symmetric
};

template <class I>
class PatternOf final : public Pattern {
 public:
  PatternOf(const Edges& edges, int threads) : Pattern(edges), nodes_(edges.nodes) {
    is_int64 = sizeof(I) == 8;
    const auto number = [](int64_t e) { return e; };
    valid = rows_.count(edges, number, [](int64_t) { return true; }, threads);
    if (!valid) return;
    sizes_ = Array<I>(nodes_);
    rows_.each(nodes_, threads, [&](int64_t i, Entry<I, I>* first, Entry<I, I>* last) {
      if (!rows_.sorted) sort_row(first, last);
      sizes_[i] = static_cast<I>(groups(first, last));
    });
    for (int64_t i = 0; i < nodes_; ++i) entries += sizes_[i];
  }

  void fill(void* rowptrs, void* cols, void* places, int threads) override {
    I *rowptr = static_cast<I*>(rowptrs), *col = static_cast<I*>(cols), *place = static_cast<I*>(places);
    I at = 0;
    for (int64_t i = 0; i < nodes_; ++i) {
      rowptr[i] = at;
      at += sizes_[i];
    }
    rowptr[nodes_] = at;
    rows_.each(nodes_, threads, [&](int64_t i, const Entry<I, I>* edge, const Entry<I, I>* last) {
      for (I at = rowptr[i]; edge < last; ++at) {
        const I j = col[at] = edge->col;
        for (; edge < last && edge->col == j; ++edge) place[edge->weight] = at;
      }
    });
  }

 private:
  const int64_t nodes_;
  Rows<I, I> rows_;
  Array<I> sizes_;
};

bool fits_int32(const Edges& edges) { return edges.count + edges.nodes <= std::numeric_limits<int32_t>::max(); }

// visit(row, place, column) of all entries whose columns are those of a part, rows in order: no two
// threads meet at one column.
template <class I, class Visit>
void by_columns(const I* rowptr, const I* col, int64_t nodes, int64_t low, int64_t high, const Visit& visit) {
  for (int64_t i = 0; i < nodes; ++i) {
    const I *first = col + rowptr[i], *last = col + rowptr[i + 1];
    if (low > 0) first = std::lower_bound(first, last, static_cast<I>(low));
    for (; first < last && *first < high; ++first)
      if (!visit(i, static_cast<I>(first - col), *first)) return;
  }
}

}  // namespace

std::unique_ptr<Build> build(const Edges& edges, const Recipe& recipe, int threads) {
  const auto make = [&](auto index) -> std::unique_ptr<Build> {
    using I = decltype(index);
    if (edges.weight_bytes == 4) return std::make_unique<BuildOf<I, float>>(edges, recipe, threads);
    if (edges.weight_bytes == 8) return std::make_unique<BuildOf<I, double>>(edges, recipe, threads);
    return std::make_unique<BuildOf<I, Nothing>>(edges, recipe, threads);
  };
  return fits_int32(edges) ? make(int32_t{}) : make(int64_t{});
}

std::unique_ptr<Pattern> pattern(const Edges& edges, int threads) {
  if (fits_int32(edges)) return std::make_unique<PatternOf<int32_t>>(edges, threads);
  return std::make_unique<PatternOf<int64_t>>(edges, threads);
}

template <class I>
Symmetry symmetry(const I* rowptr, const I* col, const void* value, int value_bytes, int64_t nodes, int threads) {
  // Above the diagonal, rows in order: the entries of column j must be those that begin row j, in order.
  const auto* single = static_cast<const float*>(value);
  const auto* twice = static_cast<const double*>(value);
  const int parts = useful(threads, (static_cast<int64_t>(rowptr[nodes]) + nodes) / 4);
  Array<I> cursor(nodes);
  std::atomic<bool> same_pattern{true}, same_value{value_bytes > 0};
  for_parts(parts, [&](int part) {
    const int64_t low = cut_row(rowptr, nodes, part, parts), high = cut_row(rowptr, nodes, part + 1, parts);
    std::copy(rowptr + low, rowptr + high, cursor.get() + low);
    bool equal = same_value;
    by_columns(rowptr, col, std::min(nodes, high), low, high, [&](int64_t i, I at, I j) {
      if (j <= i) return true;
      const I mirror = cursor[j]++;
      if (mirror >= rowptr[j + 1] || col[mirror] != i) same_pattern.store(false, std::memory_order_relaxed);
      else if (equal) equal = value_bytes == 4 ? single[at] == single[mirror] : twice[at] == twice[mirror];
      return same_pattern.load(std::memory_order_relaxed);
    });
    if (!equal) same_value = false;
    if (!same_pattern) return;
    for (int64_t j = low; j < high; ++j)
      if (cursor[j] < rowptr[j + 1] && col[cursor[j]] < j) same_pattern = false;
  });
  return !same_pattern ? Symmetry::none : same_value ? Symmetry::full : Symmetry::pattern;
}

template <class I>
void transpose(I* rowptr_t, I* col_t, I* entry, const I* rowptr, const I* col, int64_t nodes, int threads) {
  const int64_t count = static_cast<int64_t>(rowptr[nodes]);
  const I* starts = rowptr;
  if (rowptr_t) {
    std::fill(rowptr_t, rowptr_t + nodes + 1, I{0});
    for (int64_t at = 0; at < count; ++at) ++rowptr_t[col[at] + 1];
    for (int64_t j = 0; j < nodes; ++j) rowptr_t[j + 1] += rowptr_t[j];
    starts = rowptr_t;
  }
  const int parts = useful(threads, (count + nodes) / 2);
  Array<I> cursor(nodes);
  for_parts(parts, [&](int part) {
    const int64_t low = cut_row(starts, nodes, part, parts), high = cut_row(starts, nodes, part + 1, parts);
    std::copy(starts + low, starts + high, cursor.get() + low);
    by_columns(rowptr, col, nodes, low, high, [&](int64_t i, I at, I j) {
      const I place = cursor[j]++;
      entry[place] = at;
      if (rowptr_t) col_t[place] = static_cast<I>(i);
      return true;
    });
  });
}

#define TGD_INSTANTIATE(I)                                                        \
  template Symmetry symmetry(const I*, const I*, const void*, int, int64_t, int); \
  template void transpose(I*, I*, I*, const I*, const I*, int64_t, int);
TGD_INSTANTIATE(int32_t)
TGD_INSTANTIATE(int64_t)

}  // namespace tgd
