// K steps of diffusion in one pass: y = P D_{K-1} ... P D_0 x, or its transpose with P^T for P.
#pragma once

#include <cstdint>

#include "kernel.h"

namespace tgd {

// CSR of the operator. Row i of it acts on row original[i] of the features (null: row i). It is square
// but for a single step: then a plain sparse product, without dropout, with `sources` rows of x.
template <class T, class I>
struct Operator {
  const I *rowptr, *col;
  const T* value;
  const I* original;
  std::int64_t rows, sources;
};

struct Options {
  std::int64_t steps = 0;
  std::uint32_t threshold = 0;  // an element is dropped with probability threshold / 65536
  std::uint64_t seed = 0;
  bool reverse = false;
  int threads = 1;
  const Level* level = nullptr;  // null: the best of this processor
  int width = 0;                 // blocks of a tile, 1, 2 or 4; 0: by the size of the caches
};

// x and y are row-major [sources, columns] and [rows, columns] and do not overlap.
template <class T, class I>
void diffuse(T* y, const T* x, const Operator<T, I>& op, std::int64_t columns, const Options& options);

// Instruction sets that this processor has, best first, closed by null.
const Level* const* levels();

}  // namespace tgd
