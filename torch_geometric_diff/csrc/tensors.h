// Torch Tensors as the arrays of the C++ kernels, checked. They are read by DLPack's exchange API, or, before
// torch 2.10, by their Python attributes: nb::ndarray needs 2 us for each and refuses those that require a gradient,
// and all of a call on a small graph takes 6 us.
#pragma once

#include <nanobind/nanobind.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>

namespace tgd::border {

namespace nb = nanobind;

enum class Type { none, float32, float64, int32, int64 };
constexpr const char* kTypeNames[] = {"None", "float32", "float64", "int32", "int64"};

template <class T>
constexpr Type kType = std::is_floating_point_v<T> ? (sizeof(T) == 4 ? Type::float32 : Type::float64)
                                                   : (sizeof(T) == 4 ? Type::int32 : Type::int64);

// A contiguous Tensor on the CPU, or None. `name` is what an error calls it.
class Array {
 public:
  Array(nb::handle tensor, const char* name);

  Type type() const { return type_; }
  std::int64_t size() const { return size_; }
  template <std::size_t N>
  std::array<std::int64_t, N> shape() const {
    if (dims_ != N) refuse_dims(N);
    std::array<std::int64_t, N> found;
    std::copy_n(shape_.begin(), N, found.begin());
    return found;
  }
  explicit operator bool() const { return type_ != Type::none; }

  // Its elements, `size` of them; null for None.
  template <class T>
  T* as(std::int64_t size) const {
    if (type_ == Type::none) return nullptr;
    check_type(kType<std::remove_const_t<T>>);
    if (size_ != size) refuse_size(size);
    return static_cast<T*>(data_);
  }
  template <class T>
  T* as() const {
    return as<T>(size_);
  }

  void check_type(Type wanted) const {
    if (type_ != wanted) refuse_type(wanted);
  }

 private:
  bool read_dlpack(nb::handle tensor);
  void read_attributes(nb::handle tensor);
  [[noreturn]] void refuse_dims(std::size_t wanted) const;
  [[noreturn]] void refuse_type(Type wanted) const;
  [[noreturn]] void refuse_size(std::int64_t wanted) const;

  const char* name_;
  void* data_ = nullptr;
  Type type_ = Type::none;
  std::int64_t size_ = 0;
  std::size_t dims_ = 0;
  std::array<std::int64_t, 4> shape_{};  // the first ones, if there are more
};

// The rows of a CSR and where they point to: one more than there are rows, the last of which is the count of entries.
struct Csr {
  Array rowptr, col;
  std::int64_t rows;

  Csr(nb::handle rowptr, nb::handle col);

  // f(I{}) with the type of the indices.
  template <class F>
  auto with_index(const F& f) const {
    return rowptr.type() == Type::int64 ? f(std::int64_t{}) : f(std::int32_t{});
  }
};

}  // namespace tgd::border
