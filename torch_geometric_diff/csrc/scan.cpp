// The inner loop of the search, compiled once per instruction set as kernel.cpp is.
#include "scan.h"

#include <cstring>

#if TGD_VECTOR_BYTES > 16
#include <immintrin.h>
#endif

namespace tgd {
namespace {

template <class T>
using Vec __attribute__((vector_size(TGD_VECTOR_BYTES))) = T;

// The lanes of v up to the bound, as bits.
template <class T>
inline unsigned within(Vec<T> v, T bound) {
#if TGD_VECTOR_BYTES == 64
  if constexpr (sizeof(T) == 4)
    return _mm512_cmp_ps_mask((__m512)v, _mm512_set1_ps(bound), _CMP_LE_OQ);
  else
    return _mm512_cmp_pd_mask((__m512d)v, _mm512_set1_pd(bound), _CMP_LE_OQ);
#elif TGD_VECTOR_BYTES == 32
  if constexpr (sizeof(T) == 4)
    return _mm256_movemask_ps(_mm256_cmp_ps((__m256)v, _mm256_set1_ps(bound), _CMP_LE_OQ));
  else
    return _mm256_movemask_pd(_mm256_cmp_pd((__m256d)v, _mm256_set1_pd(bound), _CMP_LE_OQ));
#else
  unsigned bits = 0;
  for (unsigned i = 0; i < sizeof v / sizeof(T); ++i) bits |= static_cast<unsigned>(v[i] <= bound) << i;
  return bits;
#endif
}

template <class T>
void scan(const Scan<T>& s) {
  constexpr int lanes = TGD_VECTOR_BYTES / static_cast<int>(sizeof(T));
  for (std::int64_t block = 0; block < s.count; ++block) {
    unsigned bits[kQueries] = {};
    for (int first = 0; first < kPoints; first += lanes) {
      const T* point = s.blocks + block * s.dim * kPoints + first;
      const T* query = s.queries;
      Vec<T> squared[kQueries] = {};
      for (std::int64_t d = 0; d < s.dim; ++d, point += kPoints, query += kQueries) {
        Vec<T> p;
        std::memcpy(&p, point, sizeof p);
        for (int q = 0; q < kQueries; ++q) {
          const Vec<T> gap = p - query[q];
          squared[q] += gap * gap;
        }
      }
      for (int q = 0; q < kQueries; ++q) bits[q] |= within<T>(squared[q], s.bound[q]) << first;
    }
    for (int q = 0; q < kQueries; ++q)
      s.hits[block * kQueries + q] = static_cast<std::uint16_t>(bits[q]);
  }
}

}  // namespace

#define TGD_SCANNER_OF(level) level##Scanner
#define TGD_SCANNER(level) TGD_SCANNER_OF(level)
extern const Scanner TGD_SCANNER(TGD_LEVEL);
const Scanner TGD_SCANNER(TGD_LEVEL) = {TGD_LEVEL_NAME, scan<float>, scan<double>};

}  // namespace tgd
