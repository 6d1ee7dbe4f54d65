// Rows sorted by length, for narrow tiles: there the end of every row, which a processor cannot foresee,
// costs more than its arithmetic, and rows side by side fill its vectors.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "parallel.h"
#include "propagate.h"

namespace tgd {

template <class T, class I>
class SliceStore {
 public:
  // Rows are sorted within windows, which keeps neighbors close.
  SliceStore(const Operator<T, I>& op, int threads)
      : op_(op), count_((op.rows + kSliceRows - 1) / kSliceRows), start_(count_ + 1), cost_(count_ + 1), row_(op.rows),
        place_(op.rows), name_(op.original ? op.rows : 0) {
    const std::int64_t windows = (op.rows + kWindow - 1) / kWindow;
    const auto each = [&](auto body) {
      parallel(threads, [&](int thread, int team) {
        for (std::int64_t w = windows * thread / team; w < windows * (thread + 1) / team; ++w) {
          const std::int64_t first = w * kWindow, last = std::min<std::int64_t>(first + kWindow, op.rows);
          body(first, last);
        }
      });
    };
    each([&](std::int64_t first, std::int64_t last) { sort(first, last); });
    for (std::int64_t s = 0; s < count_; ++s) {
      start_[s + 1] += start_[s];
      cost_[s + 1] += cost_[s];
    }
    offset_.reset(new I[start_[count_] + kSliceAhead]);
    std::fill_n(offset_.get() + start_[count_], kSliceAhead, I{0});
    value_.reset(new T[start_[count_]]);
    each([&](std::int64_t first, std::int64_t last) {
      for (std::int64_t s = first / kSliceRows; s * kSliceRows < last; ++s) fill(s);
    });
  }

  Slices<T, I> slices() const { return {start_.data(), row_.data(), place_.data(), offset_.get(), value_.get()}; }

  // What the rows of a packed tile are called in the features.
  const I* names() const { return op_.original ? name_.data() : row_.data(); }

  // The first row of a part when all parts cost the same.
  std::int64_t cut(int part, int parts) const {
    if (part == parts) return op_.rows;
    const auto at = std::lower_bound(cost_.begin(), cost_.end(), cost_[count_] / parts * part);
    return std::min<std::int64_t>((at - cost_.begin()) * kSliceRows, op_.rows);
  }

 private:
  static constexpr std::int64_t kWindow = 1024;  // rows that are sorted together, as in SELL-C-sigma
  static constexpr std::int64_t kLongest = 255;  // longer rows stay in the matrix

  std::int64_t length(std::int64_t i) const { return static_cast<std::int64_t>(op_.rowptr[i + 1] - op_.rowptr[i]); }

  // Counts rows by length, puts them in order and sizes their slices; one that would be half empty stays empty.
  void sort(std::int64_t first, std::int64_t last) {
    std::int32_t place[kLongest + 2] = {};
    const auto key = [&](std::int64_t i) { return std::min(length(i), kLongest); };
    for (std::int64_t i = first; i < last; ++i) ++place[key(i) + 1];
    for (std::int64_t d = 0; d <= kLongest; ++d) place[d + 1] += place[d];
    for (std::int64_t i = first; i < last; ++i) {
      place_[i] = static_cast<I>(first + place[key(i)]++);
      row_[place_[i]] = static_cast<I>(i);
      if (op_.original) name_[place_[i]] = op_.original[i];
    }
    for (std::int64_t s = first / kSliceRows; s * kSliceRows < last; ++s) {
      std::int64_t longest = 0, entries = 0;
      for (std::int64_t at = s * kSliceRows; at < std::min<std::int64_t>((s + 1) * kSliceRows, last); ++at) {
        longest = std::max(longest, length(row_[at]));
        entries += length(row_[at]);
      }
      const bool full = longest <= kLongest && kSliceRows * longest <= 2 * entries;
      start_[s + 1] = full ? kSliceRows * longest : 0;
      cost_[s + 1] = 4 * kSliceRows + (full ? kSliceRows * longest : 4 * entries);
    }
  }

  void fill(std::int64_t s) {
    const std::int64_t size = start_[s + 1] - start_[s];
    if (size == 0) return;
    I* offset = offset_.get() + start_[s];
    const I zeros = static_cast<I>(count_ * kSliceRows);
    T* value = value_.get() + start_[s];
    for (std::int64_t r = 0; r < kSliceRows; ++r) {
      const std::int64_t at = s * kSliceRows + r;
      const std::int64_t begin = at < op_.rows ? static_cast<std::int64_t>(op_.rowptr[row_[at]]) : 0;
      const std::int64_t filled = at < op_.rows ? length(row_[at]) * kSliceRows : 0;
      for (std::int64_t to = r, from = begin; to < size; to += kSliceRows, ++from) {
        offset[to] = (to < filled ? place_[op_.col[from]] : zeros) * static_cast<I>(sizeof(T));
        value[to] = to < filled ? op_.value[from] : T{0};
      }
    }
  }

  const Operator<T, I>& op_;
  std::int64_t count_;
  std::vector<std::int64_t> start_, cost_;
  std::vector<I> row_, place_, name_;
  std::unique_ptr<I[]> offset_;
  std::unique_ptr<T[]> value_;
};

}  // namespace tgd
