#include "tensors.h"

#include <nanobind/ndarray.h>

#include <stdexcept>
#include <string>

namespace tgd::border {
namespace {

// Of dlpack.h, version 1: what torch gives away without a Python call.
struct ExchangeApi {
  std::uint32_t major, minor;
  const void* previous;
  int (*allocate)(...);
  int (*managed_from)(void*, void**);
  int (*managed_to)(void*, void**);
  int (*read)(void* tensor, nb::dlpack::dltensor* to);
};

// What is asked for once, and never freed.
struct Torch {
  PyTypeObject* tensor;
  const ExchangeApi* api = nullptr;  // null: this torch has none

  Torch() {
    const nb::object type = nb::module_::import_("torch").attr("Tensor");
    tensor = reinterpret_cast<PyTypeObject*>(type.inc_ref().ptr());
    const nb::object capsule = nb::getattr(type, "__dlpack_c_exchange_api__", nb::none());
    if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return;
    api = static_cast<const ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (api->major != 1 || !api->read) api = nullptr;
  }

  static const Torch& get() {
    static const Torch torch;
    return torch;
  }
};

bool is_contiguous(const nb::dlpack::dltensor& t) {
  std::int64_t stride = 1;
  bool plain = true;
  for (int d = t.ndim - 1; d >= 0; stride *= t.shape[d--]) {
    if (t.shape[d] == 0) return true;
    plain &= t.shape[d] == 1 || !t.strides || t.strides[d] == stride;
  }
  return plain;
}

std::string quoted(const char* name) { return "Expected '" + std::string(name) + "' to "; }

template <class I>
std::int64_t last(const Array& rowptr) {
  const I* start = rowptr.as<const I>();
  return start[0] == 0 ? static_cast<std::int64_t>(start[rowptr.size() - 1]) : -1;
}

}  // namespace

Array::Array(nb::handle tensor, const char* name) : name_(name) {
  if (tensor.is_none()) return;
  if (!PyObject_TypeCheck(tensor.ptr(), Torch::get().tensor))
    throw nb::type_error((quoted(name) + "be a Tensor (got " + nb::type_name(tensor.type()).c_str() + ")").c_str());
  if (!read_dlpack(tensor)) read_attributes(tensor);
  if (type_ == Type::none) throw nb::type_error((quoted(name) + "be of floats or integers of 32 or 64 bits").c_str());
}

bool Array::read_dlpack(nb::handle tensor) {
  const ExchangeApi* api = Torch::get().api;
  if (!api) return false;
  nb::dlpack::dltensor t;
  if (api->read(tensor.ptr(), &t)) {
    PyErr_Clear();
    throw std::invalid_argument(quoted(name_) + "be on the CPU, with memory of its own");
  }
  if (t.device.device_type != nb::device::cpu::value) throw std::invalid_argument(quoted(name_) + "be on the CPU");
  if (!is_contiguous(t)) throw std::invalid_argument(quoted(name_) + "be contiguous");
  const bool is_float = t.dtype.code == static_cast<int>(nb::dlpack::dtype_code::Float);
  const bool is_int = t.dtype.code == static_cast<int>(nb::dlpack::dtype_code::Int);
  if (is_float && t.dtype.bits >= 32) type_ = t.dtype.bits == 32 ? Type::float32 : Type::float64;
  if (is_int && t.dtype.bits >= 32) type_ = t.dtype.bits == 32 ? Type::int32 : Type::int64;
  data_ = static_cast<char*>(t.data) + t.byte_offset;
  dims_ = static_cast<std::size_t>(t.ndim);
  size_ = 1;
  for (std::size_t d = 0; d < dims_; ++d) {
    size_ *= t.shape[d];
    if (d < shape_.size()) shape_[d] = t.shape[d];
  }
  return true;
}

void Array::read_attributes(nb::handle tensor) {
  if (!nb::cast<bool>(tensor.attr("is_cpu"))) throw std::invalid_argument(quoted(name_) + "be on the CPU");
  if (!nb::cast<bool>(tensor.attr("is_contiguous")())) throw std::invalid_argument(quoted(name_) + "be contiguous");
  const nb::object dtype = tensor.attr("dtype"), torch = nb::module_::import_("torch");
  for (int t = 1; t < 5; ++t)
    if (dtype.is(torch.attr(kTypeNames[t]))) type_ = static_cast<Type>(t);
  data_ = reinterpret_cast<void*>(nb::cast<std::uintptr_t>(tensor.attr("data_ptr")()));
  const nb::object shape = tensor.attr("shape");
  dims_ = nb::len(shape);
  size_ = nb::cast<std::int64_t>(tensor.attr("numel")());
  for (std::size_t d = 0; d < std::min(dims_, shape_.size()); ++d) shape_[d] = nb::cast<std::int64_t>(shape[d]);
}

void Array::refuse_dims(std::size_t wanted) const {
  throw std::invalid_argument(quoted(name_) + "have " + std::to_string(wanted) + " dimensions (got " +
                              std::to_string(dims_) + ")");
}

void Array::refuse_type(Type wanted) const {
  throw nb::type_error((quoted(name_) + "be torch." + kTypeNames[static_cast<int>(wanted)] + " (got torch." +
                        kTypeNames[static_cast<int>(type_)] + ")")
                           .c_str());
}

void Array::refuse_size(std::int64_t wanted) const {
  throw std::invalid_argument(quoted(name_) + "have " + std::to_string(wanted) + " elements (got " +
                              std::to_string(size_) + ")");
}

Csr::Csr(nb::handle rowptr, nb::handle col) : rowptr(rowptr, "rowptr"), col(col, "col"), rows(this->rowptr.size() - 1) {
  if (this->rowptr.type() != Type::int64) this->rowptr.check_type(Type::int32);
  this->col.check_type(this->rowptr.type());
  if (rows < 0) throw std::invalid_argument("Expected 'rowptr' to have at least one element (got none)");
  const std::int64_t entries = with_index([&](auto i) { return last<decltype(i)>(this->rowptr); });
  if (entries < 0 || entries > this->col.size())
    throw std::invalid_argument("Expected 'rowptr' to go from 0 to at most the " + std::to_string(this->col.size()) +
                                " elements of 'col'");
}

}  // namespace tgd::border
