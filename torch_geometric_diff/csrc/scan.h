// Interface between the search (knn.cpp) and its inner loop (scan.cpp), which is compiled once per
// instruction set. Plain data only, for the reason that kernel.h gives.
#pragma once

#include <cstdint>

namespace tgd {

constexpr int kPoints = 16;  // points of a block, which holds their coordinates as [dim][kPoints]
constexpr int kQueries = 8;  // queries of a tile, which holds theirs as [dim][kQueries]

// Which points of `count` blocks lie within `bound` of each query, in squared distance: bits of
// hits[block][query].
template <class T>
struct Scan {
  const T *blocks, *queries, *bound;
  std::int64_t count, dim;
  std::uint16_t* hits;
};

struct Scanner {
  const char* name;  // that of its Level
  void (*f32)(const Scan<float>&);
  void (*f64)(const Scan<double>&);
};

}  // namespace tgd
