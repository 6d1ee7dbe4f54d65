// Interface between the driver (diffuse.h) and the inner loops (kernel.cpp), which are compiled once
// per instruction set. It holds plain data only, so that no inline function of the standard library
// can be compiled for a newer processor and then be picked by the linker for an older one.
#pragma once

#include <cstdint>

namespace tgd {

constexpr int kBlock = 16;     // columns of a block; a word of random bits serves two blocks
constexpr int kMaxBlocks = 4;  // blocks of the widest tile
constexpr int kPrefetchBlocks = 64;  // that a prefetch runs ahead

// Dropout of one step: keys of the step, 16-bit threshold and the scale of what is kept.
struct Mask {
  std::uint32_t key0, key1, threshold;
  double scale;
};

// Columns [kBlock * first_block, kBlock * first_block + columns) of the feature matrix.
struct Tile {
  std::int64_t first_block;
  int blocks, columns;
};

// Rows [first_row, last_row) of `target = mask * (P @ source)`, or of `target = mask * source` where
// rowptr is null: loading a tile. A packed tile has rows of kBlock * blocks elements; the feature
// matrices have `stride` elements a row and their rows are named by `original` (null: identity).
template <class T, class I>
struct Step {
  const I *rowptr, *col;
  const T* value;
  const I* original;
  const T* source;
  T* target;
  std::int64_t stride, first_row, last_row, prefetch_end;  // edges from prefetch_end on: no prefetch
  Tile tile;
  const Mask* mask;  // null: no dropout
  bool last;         // write to the feature matrix instead of a packed tile
};

template <class T, class I>
using StepFunction = void (*)(const Step<T, I>&);

// One instruction set. The widest tile, in blocks, keeps the accumulators of a row in registers.
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
