// Gradients of a recurrence by its inputs, its coefficients and the entries of its operator.
#pragma once

#include "propagate.h"

namespace tgd {

// Rows of the table whose gradient is wanted.
enum Coefficients : unsigned { kA = 1, kD = 2, kB = 4, kC = 8, kW = 16 };

// Null: not wanted. dx is of the shape of x, dvalue of the shape of the values of the operator; a part of
// dtable that is not in `kinds` is zero.
template <class T>
struct Gradients {
  T *dx, *dvalue;
  double* dtable;
  unsigned kinds;

  bool wants(unsigned coefficients) const { return dtable && (kinds & coefficients); }
};

// g [outputs, batch, rows, columns] is the gradient by y. Scratch of a few states of a tile; it
// does not grow with K. The recurrence has no bounds and is not reversed.
template <class T, class I>
void gradients(const Gradients<T>& to, const T* x, const T* g, const Operator<T, I>& op,
               const Operator<T, I>& transpose, std::int64_t batch, std::int64_t columns, const Recurrence& recurrence,
               const std::uint64_t* seeds, const Options& options);

}  // namespace tgd
