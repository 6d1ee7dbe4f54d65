// Interface between the driver (propagate.h) and the inner loops (kernel.cpp), which are compiled once
// per instruction set. It holds plain data only, so that no inline function of the standard library
// can be compiled for a newer processor and then be picked by the linker for an older one.
#pragma once

#include <cstdint>

namespace tgd {

constexpr int kBlock = 16;   // columns of a block; a word of random bits serves two blocks
constexpr int kWidest = 64;  // columns of the widest tile
constexpr int kNarrow = 8;   // of the widest tile that takes rows by slices
// Slices, and loops of their own for short steps, for what is common: they are half of the library's code.
template <class T, class I>
constexpr bool kHasShort = sizeof(T) == 4 && sizeof(I) == 4;
constexpr int kSliceRows = 16;   // a vector of AVX-512
constexpr int kSliceAhead = 32;  // entries that a prefetch of a slice runs ahead (`--suite columns`, 1 to 4 columns)

// Edges that a prefetch runs ahead: 64 rows of 16 float32 columns, whose lines hide the latency of the last cache
// (`--suite kernels`, arxiv's shape).
constexpr int prefetch_distance(int width) { return 1024 / (width > kBlock ? width : kBlock); }

// Dropout of one step: keys of the step, 16-bit threshold and the scale of what is kept.
struct Mask {
  std::uint32_t key0, key1, threshold;
  double scale;
};

// Columns [first, first + columns) of the feature matrix, packed into rows of `width` elements, a power of
// two that divides `first`.
struct Tile {
  std::int64_t first;
  int width, columns;
};

// Rows in an order in which neighbors are about as long, kSliceRows a slice, so that a slice needs no
// branch at the end of every row. Packed tiles are in this order: row i of one is that of row[i] of the
// matrix, and the other way round i = place[row[i]]. Entry e of row r of slice s is at start[s] +
// kSliceRows * e + r; its column is given by the bytes from the first row of a tile of one column. Short
// rows are filled up with zeros at a row of zeros, which follows the last slice of a packed tile. The rows
// of an empty slice are read from the matrix itself. kSliceAhead offsets more than there are can be read.
template <class T, class I>
struct Slices {
  const std::int64_t* start;
  const I *row, *place, *offset;
  const T* value;
};

// Rows are those of a packed tile, `width` elements each, or those of a feature matrix, which
// has `stride` elements a row and names its rows by `original` (null: identity).
template <class T>
struct Term {  // z += factor * from
  const T* from;
  T factor;
  bool packed;
};

template <class T>
struct Sink {  // y = factor * z, or += in `sum`, a packed tile (null: nothing to add up)
  T* sum;
  T* to;  // of a feature matrix; null: into `sum`
  T factor;
  bool add;
};

template <class T>
struct Dot {      // sums[sum] += <z, with>, or <P source, with>
  const T* with;  // packed
  bool of_product;
  std::int64_t sum;
};

// Rows [first_row, last_row) of one step: z = scale * (P @ source) + terms, without the product where
// rowptr is null. Dropout applies to the product and the first `product_terms` terms, or, where
// `mask_target`, to z on its way to `target`. Sinks and dots take z without it.
template <class T, class I>
struct Step {
  const I *rowptr, *col;
  const T* value;
  const I* original;
  const Slices<T, I>* slices;                              // null: rows in their own order
  const T* source;                                         // packed
  T* target;                                               // packed; null: z goes to the sinks alone
  std::int64_t stride, first_row, last_row, prefetch_end;  // edges from prefetch_end on: no prefetch; 0: none
  Tile tile;
  const Mask* mask;  // null: no dropout
  bool mask_target, bounded;
  T scale, low, high;
  int product_terms, num_terms, num_sinks, num_dots;
  const Term<T>* terms;
  const Sink<T>* sinks;
  const Dot<T>* dots;
  double* sums;
  T* lanes;            // scratch, kBlock elements a dot
  T* edges;            // edges[e] += scale * <source row col[e], edge_rows row>; null: not wanted
  const T* edge_rows;  // packed
};

template <class T, class I>
using StepFunction = void (*)(const Step<T, I>&);

// One instruction set. The widest tile keeps the accumulators of a row in registers.
struct Level {
  const char* name;
  int widest_float, widest_double;
  StepFunction<float, std::int32_t> f32_i32;
  StepFunction<float, std::int64_t> f32_i64;
  StepFunction<double, std::int32_t> f64_i32;
  StepFunction<double, std::int64_t> f64_i64;
};

extern const Level kBaseline;
#ifdef TGD_X86
extern const Level kAvx2;
extern const Level kAvx512;
#endif

}  // namespace tgd
