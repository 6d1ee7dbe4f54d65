// Interface between the search (knn.cpp) and its inner loop (scan.cpp), which is compiled once per
// instruction set. Plain data only, for the reason that kernel.h gives.
#pragma once

#include <cstdint>

namespace tgd {

constexpr int kPoints = 16;  // points of a block, a vector of AVX-512, which holds their coordinates as [dim][kPoints]
constexpr int kQueries = 8;  // queries of a tile, as many sums as registers hold, which holds theirs as [dim][kQueries]

// Squared distances of the points of `count` blocks to each query, squared[block][query][kPoints], and which
// are within `bound` of it: bits of hits[block][query].
template <class T>
struct Scan {
  const T *blocks, *queries, *bound;
  std::int64_t count, dim;
  std::uint16_t* hits;
  T* squared;  // of a block and query with hits
  // In a survey all are, there are no hits, and least[group][query][kPoints] becomes the least in each lane of
  // every `groups`th block.
  T* least;
  std::int64_t groups;
};

struct Scanner {
  const char* name;  // that of its Level
  template <class T>
  using Function = void (*)(const Scan<T>&);
  Function<float> f32, survey_f32, compare_f32;  // compare: finds the hits of what was surveyed
  Function<double> f64, survey_f64, compare_f64;
};

}  // namespace tgd
