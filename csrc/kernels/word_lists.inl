// Left operands in bfloat16 that are mostly zeros: lists (lists.inl, quads.inl) of the words of which a half is not
// zero, whose entry stands for two steps of the reduction. A word reads as many bytes of weights as a number and
// multiplies twice as much; of neighbouring steps of which half are zeros, three words of four are left.

struct WordEntries {
#ifdef PYLRP_EMULATES_BFLOAT16
  static constexpr bool kPanelByPanel = true;  // little code, for tests
#else
  static constexpr bool kPanelByPanel = false;
#endif
  static inline __attribute__((always_inline)) Vec<float> spread(const float* word) {
    return reinterpret_cast<Vec<float>>(splat_word(word));
  }
  static inline __attribute__((always_inline)) void add(Vec<float>& acc, Vec<float> value, Vec<float> weights) {
    acc = dot_words(acc, reinterpret_cast<Words>(value), reinterpret_cast<Words>(weights));
  }
};

// Of kRows rows side by side, as in compress and compress_pair. By their bits: as numbers, words might be denormals.
template <int kRows>
Index compress_words_of(Index k, const float* const* x, float* words, std::uint16_t* steps) {
  Index count = 0, p = 0;
#if defined(__AVX512F__)
  for (; p < k; p += kLanes<float>) {
    __m512i rows[kRows];
    __mmask16 kept = 0;
    for (int r = 0; r < kRows; ++r) {
      rows[r] = reinterpret_cast<__m512i>(load_n(x[r] + p, k - p));
      kept = static_cast<__mmask16>(kept | _mm512_test_epi32_mask(rows[r], _mm512_set1_epi32(0x7fff7fff)));
    }
    const __m512i at = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(p)),
                                        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    const __m256i narrow = _mm512_maskz_cvtepi32_epi16(0xffff, _mm512_maskz_compress_epi32(kept, at));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(steps + count), narrow);
    const __m512 first = _mm512_castsi512_ps(_mm512_maskz_compress_epi32(kept, rows[0]));
    if constexpr (kRows == 1) {
      _mm512_storeu_ps(words + count, first);
    } else {
      store_by_turns(first, _mm512_castsi512_ps(_mm512_maskz_compress_epi32(kept, rows[1])), words + 2 * count);
    }
    count += __builtin_popcount(kept);
  }
#endif
  for (; p < k; ++p) {
    std::uint32_t any = 0;
    for (int r = 0; r < kRows; ++r) {
      std::uint32_t bits;
      __builtin_memcpy(&bits, x[r] + p, sizeof bits);
      __builtin_memcpy(words + kRows * count + r, &bits, sizeof bits);
      any |= bits;
    }
    steps[count] = static_cast<std::uint16_t>(p);
    count += (any & 0x7fff7fffU) != 0 ? 1 : 0;
  }
  return count;
}
inline Index compress_words(int rows, Index k, const float* const* x, float* words, std::uint16_t* steps) {
#if defined(__AVX2__)
  if (rows == 4) {
    return compress_quad<true>(k, x, words, steps);
  }
#endif
  return rows == 1 ? compress_words_of<1>(k, x, words, steps) : compress_words_of<2>(k, x, words, steps);
}

#if defined(__AVX2__)
constexpr auto list_quads_of_words = list_quads<WordEntries>;
#else
constexpr void (*list_quads_of_words)(const ListQuads&) = nullptr;
#endif
