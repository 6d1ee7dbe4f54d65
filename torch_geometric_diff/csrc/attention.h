// Attention over the edges of a graph: a softmax of scores over the edges into each target, and sums of the
// sources' values by it, without an array of edges x heads x columns. Plain data, for the reason that kernel.h
// gives; attention.cpp is compiled once per instruction set.
#pragma once

#include <cstdint>

#include "kernel.h"

namespace tgd {

// The score of the edge e from j to i, of each head h; `slope` of leaky_relu, `scale`:
enum class Score : int {
  kAdditive,  // leaky_relu(source[j, h] + target[i, h] + bias[e, h])       GAT
  kDot,       // scale * <source[j, h, :], target[i, h, :]> + bias[e, h]     scaled dot product
  kJoint      // <weight[h, :], leaky_relu(source[j, h, :] + target[i, h, :])> + bias[e, h]     GATv2
};

constexpr int kChunkRows = 64;  // rows that one thread takes at a time

// Entries in the rows of targets, or, for gradients of the sources, of sources: `col` is the other end of an
// entry and `edge` the number of its edge. Null: bias, value (the weights of the edges are wanted themselves).
template <class T>
struct Attention {
  const std::int64_t *rowptr, *col, *edge;
  std::int64_t rows;
  int heads, columns, score_columns;  // a head
  Score score;
  T factor;  // slope or scale
  const T *source, *target, *weight, *bias, *value;
  T *largest, *inverse;                 // [targets, heads]: the largest score, and one over the sum of exponentials
  std::uint32_t key0, key1, threshold;  // dropout of the weights, counted by edge and head
};

// Gradients of one pass. `grad` is that of the output [targets, heads, columns], or, without values, of the
// weights [edges, heads]; `inner` [targets, heads] is its product with the output.
template <class T>
struct AttentionGradient {
  const T *grad, *weights;  // weights: what the forward pass gave, without values and dropout; else null
  T *inner, *node, *value;  // node: of the rows' own part of the score
  T* edges;   // [edges, heads] of the scores, or, with values, [edges, 2, heads]: and the weights. Targets give it,
              // sources take it
  T* weight;  // [chunks, heads, score_columns], a part for every kChunkRows rows
};

// Rows [first, last), and scratch of four times the heads, rounded up to eight, and as much for every edge of
// the longest row in the forward pass.
template <class T>
struct Rows {
  std::int64_t first, last;
  T* scratch;
};

constexpr int padded_heads(int heads) { return (heads + 7) / 8 * 8; }

template <class T>
struct AttentionPasses {
  void (*forward)(const Attention<T>&, T* out, Rows<T> rows);
  void (*targets)(const Attention<T>&, const AttentionGradient<T>&, Rows<T> rows);
  void (*sources)(const Attention<T>&, const AttentionGradient<T>&, Rows<T> rows);
};

struct AttentionLevel {
  const char* name;  // that of its Level
  AttentionPasses<float> f32;
  AttentionPasses<double> f64;
};

enum class Pass : int { kForward, kTargets, kSources };

// Runs a pass over all rows. The results do not depend on the number of threads.
template <class T>
void attend(Pass pass, const Attention<T>& attention, T* out, const AttentionGradient<T>& gradient, int threads,
            const Level& level);

}  // namespace tgd
