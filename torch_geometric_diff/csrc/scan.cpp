// The inner loop of the search, compiled once per instruction set as kernel.cpp is.
#include "scan.h"

#include "vectors.h"

#if TGD_VECTOR_BYTES > 16
#include <immintrin.h>
#endif

namespace tgd {
namespace {

template <class T>
using Lanes = Vec<T, kPoints>;

// The lanes of v up to the bound, as bits.
template <class T>
inline unsigned within(Lanes<T> v, T bound) {
#if TGD_VECTOR_BYTES == 64
  if constexpr (sizeof(T) == 4) return _mm512_cmp_ps_mask((__m512)v, _mm512_set1_ps(bound), _CMP_LE_OQ);
  else return _mm512_cmp_pd_mask((__m512d)v, _mm512_set1_pd(bound), _CMP_LE_OQ);
#elif TGD_VECTOR_BYTES == 32
  if constexpr (sizeof(T) == 4) return _mm256_movemask_ps(_mm256_cmp_ps((__m256)v, _mm256_set1_ps(bound), _CMP_LE_OQ));
  else return _mm256_movemask_pd(_mm256_cmp_pd((__m256d)v, _mm256_set1_pd(bound), _CMP_LE_OQ));
#else
  unsigned bits = 0;
  for (unsigned i = 0; i < sizeof v / sizeof(T); ++i) bits |= static_cast<unsigned>(v[i] <= bound) << i;
  return bits;
#endif
}

template <bool Survey, class T>
void scan(const Scan<T>& s) {
  for (std::int64_t block = 0; block < s.count; ++block) {
    unsigned bits[kQueries] = {};
    for (int first = 0; first < kPoints; first += kLanes<T, kPoints>) {
      const T* point = s.blocks + block * s.dim * kPoints + first;
      const T* query = s.queries;
      Lanes<T> squared[kQueries] = {};
      for (std::int64_t d = 0; d < s.dim; ++d, point += kPoints, query += kQueries) {
        const auto p = load<Lanes<T>>(point);
        for (int q = 0; q < kQueries; ++q) {
          const Lanes<T> gap = p - query[q];
          squared[q] += gap * gap;
        }
      }
      T* to = s.squared + block * kQueries * kPoints + first;
      T* least = Survey ? s.least + block % s.groups * kQueries * kPoints + first : nullptr;
      for (int q = 0; q < kQueries; ++q, to += kPoints) {
        if constexpr (Survey) {
          store(to, squared[q]);
          const auto before = load<Lanes<T>>(least + q * kPoints);
          store<Lanes<T>>(least + q * kPoints, squared[q] < before ? squared[q] : before);
        } else if (const unsigned near = within<T>(squared[q], s.bound[q])) {
          store(to, squared[q]);
          bits[q] |= near << first;
        }
      }
    }
    if constexpr (!Survey)
      for (int q = 0; q < kQueries; ++q) s.hits[block * kQueries + q] = static_cast<std::uint16_t>(bits[q]);
  }
}

template <class T>
void compare(const Scan<T>& s) {
  const T* squared = s.squared;
  for (std::int64_t block = 0; block < s.count; ++block)
    for (int q = 0; q < kQueries; ++q, squared += kPoints) {
      unsigned bits = 0;
      for (int first = 0; first < kPoints; first += kLanes<T, kPoints>)
        bits |= within<T>(load<Lanes<T>>(squared + first), s.bound[q]) << first;
      s.hits[block * kQueries + q] = static_cast<std::uint16_t>(bits);
    }
}

}  // namespace

#define TGD_SCANNER_OF(level) level##Scanner
#define TGD_SCANNER(level) TGD_SCANNER_OF(level)
extern const Scanner TGD_SCANNER(TGD_LEVEL);
const Scanner TGD_SCANNER(TGD_LEVEL) = {TGD_LEVEL_NAME,      scan<false, float>, scan<true, float>, compare<float>,
                                        scan<false, double>, scan<true, double>, compare<double>};

}  // namespace tgd
