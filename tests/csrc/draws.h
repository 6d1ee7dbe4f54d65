// Random numbers and arrays of exactly the size they need, for the tests of this folder.
#pragma once

#include <cstdint>
#include <memory>
#include <random>

namespace {

std::mt19937_64 random_bits;  // seeded by each test

std::int64_t draw(std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(random_bits);
}

template <class T>
std::unique_ptr<T[]> exact(std::int64_t size) {
  return std::unique_ptr<T[]>(new T[static_cast<std::size_t>(size)]);
}

}  // namespace
