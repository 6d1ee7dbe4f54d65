// From edges in any order to the CSR of an operator: sorted, equal places summed, normalised; and the
// transpose of a CSR. Results do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <memory>

namespace tgd {

// Edges from col (sources) to row (targets); weights are float, double or absent (ones).
struct Edges {
  const std::int64_t *row, *col;
  const void* weight;
  int weight_bytes;  // 0, 4 or 8
  std::int64_t count, nodes;
};

enum class Normalization { none, symmetric, row };

// What becomes of the loops. `given`: entries like others. `step`: entries of I - scale * L, in which
// loops cancel. The others make one loop a node as PyG's gcn_norm does: loops there are keep their
// weight (the last one counts), get `scale` added, or are set to it; where there is none, it is `scale`.
enum class Diagonal { given, step, keep, add, set };

struct Recipe {
  Normalization normalization;
  Diagonal diagonal;
  double scale;
  bool count_loops;  // a loop of weight 1 in the degree of every node that has none
  bool is_signed;    // weights may be negative
};

// Edges are sorted when it is made, so that the arrays to fill can be made to measure.
class Sorted {
 public:
  explicit Sorted(const Edges& given) : nodes(given.nodes), edges(given.count) {}
  virtual ~Sorted() = default;

  bool valid = true;      // no index out of range, no weight refused
  bool is_int64 = false;  // of the indices
  const std::int64_t nodes, edges;
  std::int64_t entries = 0;
};

class Build : public Sorted {
 public:
  using Sorted::Sorted;
  // Arrays of nodes + 1, `entries` and `entries` elements; indices of int32 unless `is_int64`. False if a
  // degree or an entry overflows.
  virtual bool fill(void* rowptr, void* col, void* value, bool is_double, int threads) = 0;

  double largest_degree = 0;  // of the Laplacian, if the recipe is that of a step
};

std::unique_ptr<Build> build(const Edges& edges, const Recipe& recipe, int threads);

// The pattern alone, and the entry that every edge goes to.
class Pattern : public Sorted {
 public:
  using Sorted::Sorted;
  virtual void fill(void* rowptr, void* col, void* entry, int threads) = 0;
};

std::unique_ptr<Pattern> pattern(const Edges& edges, int threads);

enum class Symmetry { none, pattern, full };

// Whether a CSR with sorted rows equals its transpose, or only its pattern does.
template <class I>
Symmetry symmetry(const I* rowptr, const I* col, const void* value, int value_bytes, std::int64_t nodes, int threads);

// The transpose: its rows (null if it has the same pattern) and which entry stands at each place.
template <class I>
void transpose(I* rowptr_t, I* col_t, I* entry, const I* rowptr, const I* col, std::int64_t nodes, int threads);

}  // namespace tgd
