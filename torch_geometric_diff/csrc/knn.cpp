#include "knn.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "parallel.h"
#include "scan.h"

namespace tgd {

extern const Scanner kBaselineScanner;
#ifdef TGD_X86
extern const Scanner kAvx2Scanner, kAvx512Scanner;
#endif

namespace {

using Neighbor = std::pair<double, std::int64_t>;  // squared distance and index, compared in this order
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kScanned = 8;     // blocks at a time, and of a leaf
constexpr std::int64_t kSurveyed = 256;  // blocks whose distances stay in the second cache
constexpr std::int64_t kTreeDims = 12;   // boxes exclude next to nothing in more dimensions

const Scanner& scanner(const Level& level) {
#ifdef TGD_X86
  for (const Scanner* s : {&kAvx512Scanner, &kAvx2Scanner})
    if (std::strcmp(s->name, level.name) == 0) return *s;
#endif
  (void)level;
  return kBaselineScanner;
}

// The points of a set in the order of the leaves of a complete binary tree of boxes. Node 1 is the
// root, nodes 2 i and 2 i + 1 are the children of node i, the last 2^depth nodes are the leaves.
template <class T>
class Tree {
 public:
  static std::int64_t depth(std::int64_t size, std::int64_t dim) {
    const std::int64_t leaf = dim <= 4 ? 32 : dim <= kTreeDims ? 64 : 128;
    std::int64_t depth = 0;
    while (((size - 1) >> depth) + 1 > leaf) ++depth;
    return depth;
  }

  void build(const double* points, std::int64_t size, std::int64_t dim) {
    dim_ = dim;
    boxed_ = dim <= kTreeDims;
    leaves_ = std::int64_t{1} << depth(size, dim);
    order_.resize(size);
    for (std::int64_t i = 0; i < size; ++i) order_[i] = i;
    begin_.assign(2 * leaves_ + 1, size);
    first_.resize(2 * leaves_);
    if (boxed_) boxes_.resize(2 * leaves_ * 2 * dim);
    split(points, 1, 0, size);
    rows_.resize(size * dim);
    for (std::int64_t i = 0; i < size; ++i) std::copy_n(points + order_[i] * dim, dim, rows_.data() + i * dim);
    std::int64_t blocks = 0;
    block_.resize(leaves_ + 1);
    for (std::int64_t leaf = 0; leaf < leaves_; ++leaf) {
      block_[leaf] = blocks;
      blocks += (this->size(leaf) + kPoints - 1) / kPoints;
    }
    block_[leaves_] = blocks;
    packed_.assign(blocks * dim * kPoints, std::numeric_limits<T>::infinity());  // far from all
    rounding_ = 0;
    for (std::int64_t leaf = 0; leaf < leaves_; ++leaf)
      for (std::int64_t i = 0; i < this->size(leaf); ++i)
        for (std::int64_t d = 0; d < dim; ++d) {
          const double value = row(begin(leaf) + i)[d];
          const T packed = static_cast<T>(value);
          packed_[((block_[leaf] + i / kPoints) * dim + d) * kPoints + i % kPoints] = packed;
          rounding_ = std::max(rounding_, std::abs(value - packed));
        }
  }

  std::int64_t dim() const { return dim_; }
  bool boxed() const { return boxed_; }  // else positions are indices, and block b begins at position b * kPoints
  std::int64_t leaves() const { return leaves_; }
  std::int64_t begin(std::int64_t leaf) const { return begin_[leaves_ + leaf]; }
  std::int64_t size(std::int64_t leaf) const { return begin_[leaves_ + leaf + 1] - begin(leaf); }
  std::int64_t block(std::int64_t leaf) const { return block_[leaf]; }  // the first of a leaf
  const T* packed(std::int64_t block) const { return packed_.data() + block * dim_ * kPoints; }
  const double* row(std::int64_t i) const { return rows_.data() + i * dim_; }
  std::int64_t index(std::int64_t i) const { return order_[i]; }
  std::int64_t first(std::int64_t node) const { return first_[node]; }  // its lowest index
  double rounding() const { return rounding_; }                         // of the packed entries

  // The squared distance between a node and a box given by its lower and upper ends.
  double apart(std::int64_t node, const double* box) const {
    if (!boxed_) return 0;
    const double* lower = boxes_.data() + node * 2 * dim_;
    double squared = 0;
    for (std::int64_t d = 0; d < dim_; ++d) {
      const double gap = std::max({lower[d] - box[dim_ + d], box[d] - lower[dim_ + d], 0.0});
      squared += gap * gap;
    }
    return squared;
  }

 private:
  void split(const double* points, std::int64_t node, std::int64_t begin, std::int64_t end) {
    begin_[node] = begin;
    first_[node] = end > begin ? *std::min_element(order_.data() + begin, order_.data() + end) : 0;
    std::int64_t widest = 0;
    if (boxed_) widest = surround(points, node, begin, end);
    if (node >= leaves_) return;
    const std::int64_t half = (end - begin) / 2;
    const std::int64_t middle = begin + (boxed_ ? half : (half / kPoints + 1) * kPoints);  // of full blocks
    if (boxed_)
      std::nth_element(order_.data() + begin, order_.data() + middle, order_.data() + end,
                       [=, dim = dim_](std::int64_t a, std::int64_t b) {
                         const double left = points[a * dim + widest], right = points[b * dim + widest];
                         return left < right || (left == right && a < b);
                       });
    split(points, 2 * node, begin, middle);
    split(points, 2 * node + 1, middle, end);
  }

  std::int64_t surround(const double* points, std::int64_t node, std::int64_t begin, std::int64_t end) {
    double *lower = boxes_.data() + node * 2 * dim_, *upper = lower + dim_;
    std::fill_n(lower, dim_, kInfinity);
    std::fill_n(upper, dim_, -kInfinity);
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t d = 0; d < dim_; ++d) {
        const double value = points[order_[i] * dim_ + d];
        lower[d] = std::min(lower[d], value);
        upper[d] = std::max(upper[d], value);
      }
    std::int64_t widest = 0;
    for (std::int64_t d = 1; d < dim_; ++d)
      if (upper[d] - lower[d] > upper[widest] - lower[widest]) widest = d;
    return widest;
  }

  std::int64_t dim_ = 0, leaves_ = 0;
  bool boxed_ = false;
  double rounding_ = 0;
  std::vector<std::int64_t> order_, begin_, first_, block_;
  std::vector<double> boxes_, rows_;
  std::vector<T> packed_;
};

// The smallest of what was offered: a sorted list if it is short, else a heap.
template <class Item>
class Least {
 public:
  void clear(std::size_t wanted) {
    kept_.clear();
    wanted_ = wanted;
    heap_ = wanted > 48;
  }
  bool full() const { return kept_.size() == wanted_; }
  const Item& last() const { return heap_ ? kept_.front() : kept_.back(); }

  void offer(const Item& item) {
    if (full()) {
      if (!(item < last())) return;
      if (heap_) std::pop_heap(kept_.begin(), kept_.end());
      kept_.pop_back();
    }
    kept_.push_back(item);
    if (heap_) {
      std::push_heap(kept_.begin(), kept_.end());
    } else {
      Item* position = &kept_.back();
      for (; position != kept_.data() && item < position[-1]; --position) *position = position[-1];
      *position = item;
    }
  }

  const std::vector<Item>& sorted() {
    if (heap_) std::sort_heap(kept_.begin(), kept_.end());
    return kept_;
  }

 private:
  std::vector<Item> kept_;
  std::size_t wanted_ = 0;
  bool heap_ = false;
};

// Searches for tiles of up to kQueries neighboring points together.
template <class T>
class Searcher {
 public:
  Searcher(const Scanner& scanner, std::int64_t dim, std::int64_t k)
      : scanner_(scanner), queries_(dim * kQueries), box_(2 * dim), hits_(kQueries * kScanned),
        squared_(kQueries * kScanned * kPoints), k_(k) {
    // rounding of (D + 2) operations, and squares flushed to 0
    relative_ = 4.0 * (dim + 32) * std::numeric_limits<T>::epsilon();
    floor_ = 256.0 * dim * std::numeric_limits<T>::min();
    slack_ = std::sqrt(static_cast<double>(dim));
  }

  // The queries are the points of a leaf of `asked` from `begin` on; their rows of `index` are written.
  // They look for the `size` points of `tree`, for others than themselves if that is the same tree.
  void operator()(const Tree<T>& tree, const Tree<T>& asked, std::int64_t leaf, std::int64_t begin, std::int64_t size,
                  std::int64_t offset, std::int64_t* index) {
    tree_ = &tree;
    asked_ = &asked;
    begin_ = begin;
    count_ = static_cast<int>(std::min<std::int64_t>(kQueries, asked.begin(leaf) + asked.size(leaf) - begin));
    const bool same = &tree == &asked;
    const auto wanted = static_cast<std::size_t>(std::min(k_, size - same));
    own_ = same ? tree.leaves() + leaf : 0;
    std::fill(queries_.begin(), queries_.end(), T(0));
    for (std::int64_t d = 0; d < tree.dim(); ++d) {
      box_[d] = kInfinity;
      box_[tree.dim() + d] = -kInfinity;
      for (int q = 0; q < count_; ++q) {
        const double value = asked.row(begin + q)[d];
        queries_[d * kQueries + q] = static_cast<T>(value);
        box_[d] = std::min(box_[d], value);
        box_[tree.dim() + d] = std::max(box_[tree.dim() + d], value);
      }
    }
    for (int q = 0; q < kQueries; ++q) {
      found_[q].clear(wanted);
      computed_[q].clear(wanted);
      bound_[q] = q < count_ ? std::numeric_limits<T>::infinity() : T(-1);
    }
    most_waiting_ = 2 * wanted + 32;
    farthest_ = {kInfinity, 0};
    scanned_ = 0;
    if (wanted > 0 && tree.boxed()) {
      if (same) visit(own_);
      descend(1, 0);
    } else if (wanted > 0) {
      look_through(size, static_cast<std::int64_t>(wanted) + same);
    }
    for (int q = 0; q < count_; ++q) {
      measure(q);
      std::int64_t* out = index + (offset + asked.index(begin + q)) * k_;
      std::fill_n(out, k_, -1);
      for (const Neighbor& neighbor : found_[q].sorted()) *out++ = offset + neighbor.second;
    }
  }

 private:
  void descend(std::int64_t node, double apart) {
    if (apart > 0 ? apart * (1 - 1e-12 * tree_->dim()) > farthest_.first : Neighbor{0, tree_->first(node)} > farthest_)
      return;
    if (node >= tree_->leaves()) {
      if (node != own_) visit(node);
      return;
    }
    std::int64_t near = 2 * node, far = near + 1;
    double near_apart = tree_->apart(near, box_.data()), far_apart = tree_->apart(far, box_.data());
    if (std::make_pair(far_apart, tree_->first(far)) < std::make_pair(near_apart, tree_->first(near))) {
      std::swap(near, far);
      std::swap(near_apart, far_apart);
    }
    descend(near, near_apart);
    descend(far, far_apart);
  }

  void visit(std::int64_t node) {
    const std::int64_t leaf = node - tree_->leaves(), begin = tree_->begin(leaf);
    scan_all(tree_->block(leaf), tree_->block(leaf + 1), begin, begin + tree_->size(leaf));
  }

  // All points, without boxes to tell which of them are near: `among` of the first ones bound what is looked at.
  void look_through(std::int64_t size, std::int64_t among) {
    const std::int64_t blocks = (size + kPoints - 1) / kPoints, first = std::min(blocks, kSurveyed);
    const std::int64_t groups = among / 2 + 1;  // eight times as many minima
    if (groups > first) return scan_all(0, blocks, 0, size);
    squared_.resize(kQueries * kSurveyed * kPoints);
    hits_.resize(kQueries * kSurveyed);
    least_.assign(groups * kQueries * kPoints, std::numeric_limits<T>::infinity());
    const Scan<T> survey = over(0, first, groups);
    call(survey, scanner_.survey_f32, scanner_.survey_f64);
    for (int q = 0; q < count_; ++q) {
      minima_.clear();
      for (std::int64_t group = 0; group < groups; ++group) {
        const T* of_query = least_.data() + (group * kQueries + q) * kPoints;
        minima_.insert(minima_.end(), of_query, of_query + kPoints);
      }
      const auto last = minima_.begin() + (among - 1);
      std::nth_element(minima_.begin(), last, minima_.end());
      bound_[q] = bound(exact(*last));
    }
    call(survey, scanner_.compare_f32, scanner_.compare_f64);
    take(first, 0, size);
    scanned_ = first;
    scan_all(first, blocks, first * kPoints, size);
  }

  // The blocks from `first` to `last`, of the places from `begin` to `end`: at first one by one, then as many as
  // were scanned before, since a bound from a few points dismisses most of the rest.
  void scan_all(std::int64_t first, std::int64_t last, std::int64_t begin, std::int64_t end) {
    for (std::int64_t count; first < last; first += count, begin += count * kPoints) {
      if (!tree_->boxed() && Neighbor{0, begin} > farthest_) return;
      count = std::min({last - first, std::max<std::int64_t>(scanned_, 1), kScanned});
      call(over(first, count), scanner_.f32, scanner_.f64);
      take(count, begin, end);
      scanned_ += count;
    }
  }

  Scan<T> over(std::int64_t block, std::int64_t count, std::int64_t groups = 0) {
    return {tree_->packed(block), queries_.data(), bound_,        count, tree_->dim(),
            hits_.data(),         squared_.data(), least_.data(), groups};
  }

  void call(const Scan<T>& scan, Scanner::Function<float> f32, Scanner::Function<double> f64) const {
    if constexpr (sizeof(T) == 4) f32(scan);
    else f64(scan);
  }

  // The hits in `count` blocks, which hold the places from `begin` to `end`.
  void take(std::int64_t count, std::int64_t begin, std::int64_t end) {
    bool changed = false;
    for (int q = 0; q < count_; ++q) {
      if (!take_of(q, count, begin, end) || !computed_[q].full()) continue;
      changed = true;
      bound_[q] = std::min(bound_[q], bound(farthest(q).first));
    }
    if (!changed) return;
    farthest_ = {0, -1};
    for (int q = 0; q < count_; ++q) farthest_ = std::max(farthest_, farthest(q));
  }

  // Those of a query, and whether there are any.
  bool take_of(int q, std::int64_t count, std::int64_t begin, std::int64_t end) {
    bool heard = false;
    for (std::int64_t block = 0; block < count; ++block)
      for (unsigned bits = hits_[block * kQueries + q]; bits; bits &= bits - 1) {
        const int lane = __builtin_ctz(bits);
        const std::int64_t position = begin + block * kPoints + lane;
        if (position >= end || (tree_ == asked_ && position == begin_ + q)) continue;
        heard = true;
        const T squared = squared_[(block * kQueries + q) * kPoints + lane];
        computed_[q].offer(squared);
        waiting_[q].push_back({squared, position});
        if (waiting_[q].size() < most_waiting_) continue;
        measure(q);
        if (!tree_->boxed() && Neighbor{0, position} > farthest(q)) return true;  // copies, and more of them follow
      }
    return heard;
  }

  // No point beyond it is among the nearest of a query.
  Neighbor farthest(int q) const {
    const Neighbor by_computed = this->by_computed(q);
    return found_[q].full() ? std::min(found_[q].last(), by_computed) : by_computed;
  }

  // The same by computed distances alone.
  Neighbor by_computed(int q) const {
    if (!computed_[q].full()) return {kInfinity, 0};
    return {exact(computed_[q].last()), std::numeric_limits<std::int64_t>::max()};
  }

  // No exact squared distance exceeds it if the computed one is at most `squared`.
  double exact(T squared) const {
    const double distance = std::sqrt((squared + floor_) * (1 + relative_)) + rounding();
    return distance * distance * (1 + relative_);
  }

  // How much the packed entries may change a distance.
  double rounding() const { return slack_ * (tree_->rounding() + asked_->rounding()); }

  // No computed squared distance exceeds it if the exact one is at most `squared`.
  T bound(double squared) const {
    if (rounding() > 0) {
      const double distance = std::sqrt(squared) + rounding();
      squared = distance * distance;
    }
    return std::nextafter(static_cast<T>(squared * (1 + relative_) + floor_), std::numeric_limits<T>::infinity());
  }

  // Takes the exact distances of those points that wait and may still be among the nearest.
  void measure(int q) {
    const double* a = asked_->row(begin_ + q);
    for (const auto& [computed, position] : waiting_[q]) {
      if (computed > bound_[q]) continue;
      const double* b = tree_->row(position);
      double squared = 0;
      for (std::int64_t d = 0; d < tree_->dim(); ++d) squared += (a[d] - b[d]) * (a[d] - b[d]);
      found_[q].offer({squared, tree_->index(position)});
    }
    waiting_[q].clear();
  }

  const Scanner& scanner_;
  const Tree<T>*tree_ = nullptr, *asked_ = nullptr;
  std::vector<T> queries_;
  std::vector<double> box_;
  std::vector<std::uint16_t> hits_;
  std::vector<T> squared_, least_, minima_;
  Least<Neighbor> found_[kQueries];                            // exact
  Least<T> computed_[kQueries];                                // distances alone
  std::vector<std::pair<T, std::int64_t>> waiting_[kQueries];  // computed distances and places
  T bound_[kQueries] = {};
  Neighbor farthest_;  // no query of the tile takes one beyond
  double relative_, floor_, slack_;
  std::size_t most_waiting_ = 0;
  std::int64_t k_, begin_ = 0, own_ = 0, scanned_ = 0;  // scanned_: blocks
  int count_ = 0;
};

// Hands out the numbers up to `count`, a few at a time.
class Queue {
 public:
  Queue(std::int64_t count, std::int64_t chunk) : count_(count), chunk_(chunk) {}
  template <class Body>
  void work(const Body& body) {
    for (std::int64_t i; (i = next_.fetch_add(chunk_)) < count_;)
      for (std::int64_t j = i; j < std::min(i + chunk_, count_); ++j) body(j);
  }

 private:
  std::int64_t count_, chunk_;
  std::atomic<std::int64_t> next_{0};
};

// Points of one tree.
struct Cloud {
  const double* points;
  std::int64_t size;
};

// Points whose neighbors are wanted, those among which they lie, by the numbers of their clouds, and the index
// of the first of these.
struct Pair {
  std::int64_t known, asked, offset;
};

template <class T>
void search(std::int64_t* index, const std::vector<Cloud>& clouds, const std::vector<Pair>& pairs, std::int64_t dim,
            std::int64_t k, int threads, const Level& level) {
  const auto count = static_cast<std::int64_t>(clouds.size());
  std::int64_t work = 0;
  for (const Cloud& cloud : clouds) work += cloud.size * (dim + k + 32);
  const int team = static_cast<int>(std::min<std::int64_t>(std::max(threads, 1), 1 + (work >> 16)));
  std::vector<std::int64_t> start(pairs.size() + 1);  // of the leaves of each pair's asked points
  for (std::size_t p = 0; p < pairs.size(); ++p)
    start[p + 1] = start[p] + (std::int64_t{1} << Tree<T>::depth(clouds[pairs[p].asked].size, dim));
  std::vector<Tree<T>> trees(count);
  std::vector<Searcher<T>> searchers(team, Searcher<T>(scanner(level), dim, k));
  Queue building(count, count == 2 ? 1 : 16), searching(start.back(), 16);
  parallel(team, [&](int, int) {
    building.work([&](std::int64_t c) { trees[c].build(clouds[c].points, clouds[c].size, dim); });
  });
  parallel(team, [&](int thread, int) {
    searching.work([&](std::int64_t task) {
      const std::int64_t p = std::upper_bound(start.begin(), start.end(), task) - start.begin() - 1;
      const auto [known, asked, offset] = pairs[p];
      const std::int64_t leaf = task - start[p], end = trees[asked].begin(leaf) + trees[asked].size(leaf);
      for (std::int64_t begin = trees[asked].begin(leaf); begin < end; begin += kQueries)
        searchers[thread](trees[known], trees[asked], leaf, begin, clouds[known].size, offset, index);
    });
  });
}

}  // namespace

void knn(std::int64_t* index, const Sets& sets, std::int64_t k, bool single, int threads, const Level& level) {
  std::vector<Cloud> clouds;
  std::vector<Pair> pairs;
  for (std::int64_t s = 0; s < sets.count; ++s) {
    clouds.push_back({sets.points + sets.start[s] * sets.dim, sets.start[s + 1] - sets.start[s]});
    pairs.push_back({s, s, sets.start[s]});
  }
  (single ? search<float> : search<double>)(index, clouds, pairs, sets.dim, k, threads, level);
}

void knn_of(std::int64_t* index, const Sets& known, const Sets& asked, std::int64_t k, bool single, int threads,
            const Level& level) {
  // the second tree brings queries that lie together into a tile
  const std::vector<Cloud> clouds{{known.points, known.start[1]}, {asked.points, asked.start[1]}};
  (single ? search<float> : search<double>)(index, clouds, {{0, 1, 0}}, known.dim, k, threads, level);
}

}  // namespace tgd
