// Memory for packed tiles, and the caches they should fit.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace tgd {

// Large buffers lie in huge pages, since rows are read in any order. The last one is kept for the next call:
// the system would clear fresh pages, which takes longer than ten steps of a small graph.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : block_(kept().exchange(nullptr)) {
    if (block_ && block_->size >= bytes) return;
    delete block_;
    block_ = new Block(bytes);
  }
  ~Buffer() { delete (block_->size <= kMostKept ? kept().exchange(block_) : block_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(block_->data);
  }

 private:
  // A few tiles of 16 float32 columns of 169,343 nodes. 20 steps on Pubmed took 7.6 ms with fresh pages and 2.9
  // with these (`--suite propagation`).
  static constexpr std::size_t kMostKept = std::size_t{64} << 20;

  struct Block {
    std::size_t size;
    void* data;
    explicit Block(std::size_t bytes) {
      constexpr std::size_t huge = std::size_t{1} << 21;
      const std::size_t align = bytes >= huge ? huge : 64;
      size = std::max((bytes + align - 1) / align * align, align);
      data = std::aligned_alloc(align, size);
      if (!data) throw std::bad_alloc();
#if defined(__linux__)
      if (align == huge) madvise(data, size, MADV_HUGEPAGE);
#endif
    }
    ~Block() { std::free(data); }
  };

  static std::atomic<Block*>& kept() {
    static std::atomic<Block*> block{nullptr};
    return block;
  }

  Block* block_;
};

struct Caches {
  std::int64_t l2 = 512 << 10, l3 = 8 << 20;
  std::int64_t die = 0;  // the last cache that the cores of a die share, where l3 is a socket's
  Caches() {
#if defined(__linux__) && defined(_SC_LEVEL2_CACHE_SIZE)
    const long two = sysconf(_SC_LEVEL2_CACHE_SIZE), three = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (two > 0) l2 = two;
    if (three > 0) l3 = three;
    // the C library may add up the caches of a socket
    if (std::FILE* file = std::fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r")) {
      long kib = 0;
      if (std::fscanf(file, "%ldK", &kib) == 1 && kib > 0) die = std::int64_t{kib} << 10;
      std::fclose(file);
    }
#elif defined(__APPLE__)
    std::int64_t size = 0;
    std::size_t length = sizeof size;
    if (sysctlbyname("hw.l2cachesize", &size, &length, nullptr, 0) == 0 && size > 0) l2 = l3 = size;
#endif
    die = die > 0 ? std::min(die, l3) : l3;
  }

  // Columns of so many bytes that are read at random out of the nearest cache.
  std::int64_t fit(std::int64_t bytes) const { return l2 * 3 / 4 / std::max<std::int64_t>(bytes, 1); }
};

inline const Caches& caches() {
  static const Caches found;
  return found;
}

}  // namespace tgd
