// Exact nearest neighbors within sets of points.
#pragma once

#include <cstdint>

#include "kernel.h"

namespace tgd {

// Row i of `points`, which is row-major with `dim` columns, belongs to the set s with
// start[s] <= i < start[s + 1].
struct Sets {
  const double* points;
  std::int64_t dim;
  const std::int64_t* start;
  std::int64_t count;
};

// Writes the k others nearest to each point within its set, nearest first, to its row of `index`
// ([start[count], k]), and -1 where there are fewer. Squared distances are sums of squared
// differences in double precision, taken in the order of the columns; ties go to the lower index.
// Entries are at most 1 in size and no square of a difference underflows. With `single` most pairs are
// dismissed in single precision: it pays off unless many points differ by less than its rounding.
// Neither it nor `threads` nor `level` changes the result.
void knn(std::int64_t* index, const Sets& sets, std::int64_t k, bool single, int threads, const Level& level);

// The same for the points of one set, `asked`, that look for those of another, `known`: their k nearest,
// with row i of `index` for point i of `asked`.
void knn_of(std::int64_t* index, const Sets& known, const Sets& asked, std::int64_t k, bool single, int threads,
            const Level& level);

}  // namespace tgd
