// K steps of a recurrence in one pass over column tiles that stay in cache.
#pragma once

#include <cstdint>

#include "kernel.h"

namespace tgd {

// CSR of the operator. Row i of it acts on row original[i] of the features (null: row i). It is square
// but for the plain product, K = 1, of `rows` rows with features of `sources` rows.
template <class T, class I>
struct Operator {
  const I *rowptr, *col;
  const T* value;
  const I* original;
  std::int64_t rows, sources;
};

//   z_0 = sum_i c_i0 x_i
//   z_k = (a_k P + d_k)(M_k z_{k-1}) + b_k z_{k-2} + sum_i c_ik x_i,  k = 1..K    y_o = sum_k w_ok z_k
// or, in reverse, with M_{K+1-k} (a_k P + d_k) z_{k-1}, which the transpose is. With bounds z_k is
// clamped, k >= 1. Dropout does not go with b.
struct Recurrence {
  const double* table;  // rows a, d, b, one of c for each input, one of w for each output; columns k
  std::int64_t steps = 0;
  int inputs = 1, outputs = 1;
  std::uint32_t threshold = 0;  // an element is dropped with probability threshold / 65536
  bool reverse = false, bounded = false;
  double low = 0, high = 0;

  // The index of a coefficient in the table.
  std::int64_t a_at(std::int64_t k) const { return at(0, k); }
  std::int64_t d_at(std::int64_t k) const { return at(1, k); }
  std::int64_t b_at(std::int64_t k) const { return at(2, k); }
  std::int64_t c_at(int i, std::int64_t k) const { return at(3 + i, k); }
  std::int64_t w_at(int o, std::int64_t k) const { return at(3 + inputs + o, k); }
  std::int64_t table_size() const { return at(3 + inputs + outputs, 0); }

  double a(std::int64_t k) const { return table[a_at(k)]; }
  double d(std::int64_t k) const { return table[d_at(k)]; }
  double b(std::int64_t k) const { return table[b_at(k)]; }
  double c(int i, std::int64_t k) const { return table[c_at(i, k)]; }
  double w(int o, std::int64_t k) const { return table[w_at(o, k)]; }

 private:
  std::int64_t at(int row, std::int64_t k) const { return row * (steps + 1) + k; }
};

// Of K steps to the first `within[0]` rows of the operator alone: so many first rows, within[j], lie within j
// steps of them, and everywhere that is all for j >= count. The recurrence is P^K, K >= 1; y, or in reverse x,
// has these rows and no others.
struct Reach {
  const std::int64_t* within;
  std::int64_t count;
};

struct Options {
  int threads = 1;
  const Level* level = nullptr;  // null: the best of this processor
  int width = 0;                 // columns of the widest tile; 0: by the size of the caches
  int states = 0;                // most of a tile that gradients have in memory, 3 or more; 0: by their size
};

// x and y are row-major [inputs, batch, sources, columns] and [outputs, batch, rows, columns] and do
// not overlap. Every element of the batch has a seed of its own. A null `reach` is all rows.
template <class T, class I>
void propagate(T* y, const T* x, const Operator<T, I>& op, std::int64_t batch, std::int64_t columns,
               const Recurrence& recurrence, const std::uint64_t* seeds, const Options& options,
               const Reach* reach = nullptr);

// Columns `tile` of P x for a packed x: rows of tile.width elements, of which the product takes tile.columns. y has
// `columns` of them. P may have any shape.
template <class T, class I>
void multiply_tile(T* y, const T* x, const Operator<T, I>& op, std::int64_t columns, const Tile& tile,
                   const Options& options);

// Instruction sets that this processor has, best first, closed by null.
const Level* const* levels();

}  // namespace tgd
