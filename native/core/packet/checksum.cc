#include "checksum.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tsflannel {
namespace {

// All sums below are of words in memory order; the last step swaps them. That is allowed because 2^16 ≡ 1 modulo
// 2^16 - 1: swapping the bytes of a 64-bit sum swaps those of each of its 16-bit words, and their order is irrelevant.

// 64-bit words are added twice: whole, modulo 2^64, and their upper halves alone. The sum of the lower halves follows
// as total - (high << 32), so no carry is ever looked at and the loops have no dependency but the additions.
struct WideSum {
  uint64_t total = 0;
  uint64_t high = 0;

  void add(uint64_t word) {
    total += word;
    high += word >> 32;
  }
  // Exact: for fewer than 2^32 words neither half exceeds 2^64.
  [[nodiscard]] uint64_t value() const { return (total - (high << 32)) + high; }
};

uint64_t sum_tail(const uint8_t* data, size_t length) {
  uint64_t sum = 0;
  if ((length & 4) != 0) {
    sum += load_raw32(data);
    data += 4;
  }
  if ((length & 2) != 0) {
    sum += load_raw16(data);
    data += 2;
  }
  if ((length & 1) != 0) sum += swap_be16(static_cast<uint16_t>(*data << 8));
  return sum;
}

uint64_t sum_scalar(const uint8_t* data, size_t length) {
  WideSum a;
  WideSum b;
  for (; length >= 32; data += 32, length -= 32) {
    a.add(load_raw64(data));
    b.add(load_raw64(data + 8));
    a.add(load_raw64(data + 16));
    b.add(load_raw64(data + 24));
  }
  for (; length >= 8; data += 8, length -= 8) a.add(load_raw64(data));
  return a.value() + b.value() + sum_tail(data, length);
}

#if defined(__x86_64__)

__attribute__((target("avx2"))) inline __m256i load256(const uint8_t* data) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data));
}

__attribute__((target("avx2"))) uint64_t sum_avx2(const uint8_t* data, size_t length) {
  __m256i total_a = _mm256_setzero_si256();
  __m256i total_b = total_a;
  __m256i high_a = total_a;
  __m256i high_b = total_a;
  for (; length >= 128; data += 128, length -= 128) {
    const __m256i w0 = load256(data);
    const __m256i w1 = load256(data + 32);
    const __m256i w2 = load256(data + 64);
    const __m256i w3 = load256(data + 96);
    total_a = _mm256_add_epi64(total_a, _mm256_add_epi64(w0, w1));
    total_b = _mm256_add_epi64(total_b, _mm256_add_epi64(w2, w3));
    high_a = _mm256_add_epi64(high_a, _mm256_add_epi64(_mm256_srli_epi64(w0, 32), _mm256_srli_epi64(w1, 32)));
    high_b = _mm256_add_epi64(high_b, _mm256_add_epi64(_mm256_srli_epi64(w2, 32), _mm256_srli_epi64(w3, 32)));
  }
  for (; length >= 32; data += 32, length -= 32) {
    const __m256i w = load256(data);
    total_a = _mm256_add_epi64(total_a, w);
    high_a = _mm256_add_epi64(high_a, _mm256_srli_epi64(w, 32));
  }
  const __m256i total = _mm256_add_epi64(total_a, total_b);
  const __m256i high = _mm256_add_epi64(high_a, high_b);
  const __m128i total2 = _mm_add_epi64(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
  const __m128i high2 = _mm_add_epi64(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
  WideSum sum;
  sum.total = static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_add_epi64(total2, _mm_unpackhi_epi64(total2, total2))));
  sum.high = static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_add_epi64(high2, _mm_unpackhi_epi64(high2, high2))));
  for (; length >= 8; data += 8, length -= 8) sum.add(load_raw64(data));
  return sum.value() + sum_tail(data, length);
}

bool cpu_has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") != 0;
}

const bool kHasAvx2 = cpu_has_avx2();

// Below this many bytes the reduction at the end of the vector loop costs more than the loop saves (measured).
constexpr size_t kVectorThreshold = 128;

#endif

}  // namespace

uint64_t sum_bytes(const uint8_t* data, size_t length, uint64_t initial) {
#if defined(__x86_64__)
  if (length >= kVectorThreshold && kHasAvx2) return add_sums(initial, swap_be64(sum_avx2(data, length)));
#endif
  return add_sums(initial, swap_be64(sum_scalar(data, length)));
}

uint64_t sum_bytes_portable(const uint8_t* data, size_t length, uint64_t initial) {
  return add_sums(initial, swap_be64(sum_scalar(data, length)));
}

const char* sum_bytes_implementation() {
#if defined(__x86_64__)
  if (kHasAvx2) return "avx2";
#endif
  return "portable";
}

}  // namespace tsflannel
