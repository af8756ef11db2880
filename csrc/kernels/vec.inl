// Vectors: GCC's and Clang's extension, so that one source serves every instruction set.
template <class T>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(PYLRP_VECTOR_BYTES)));
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(PYLRP_VECTOR_BYTES)));
};
template <class T>
using Vec = typename VecOf<T>::type;
template <class T>
constexpr int kLanes = PYLRP_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T>
inline __attribute__((always_inline)) Vec<T> load(const T* p) {
  Vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
inline __attribute__((always_inline)) void store(T* p, Vec<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}
// The first n lanes; the others are zero in a load and left alone in a store. By mask where the processor can: a copy
// of unknown length is a call, before which the compiler puts away all that a loop keeps in registers.
#ifdef __AVX512F__
inline __attribute__((always_inline)) Vec<float> load_part(const float* p, Index n) {
  return reinterpret_cast<Vec<float>>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1 << n) - 1), p));
}
inline __attribute__((always_inline)) Vec<double> load_part(const double* p, Index n) {
  return reinterpret_cast<Vec<double>>(_mm512_maskz_loadu_pd(static_cast<__mmask8>((1 << n) - 1), p));
}
inline __attribute__((always_inline)) void store_part(float* p, Vec<float> v, Index n) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1 << n) - 1), reinterpret_cast<__m512>(v));
}
inline __attribute__((always_inline)) void store_part(double* p, Vec<double> v, Index n) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1 << n) - 1), reinterpret_cast<__m512d>(v));
}
#elif defined(__AVX2__)
inline __attribute__((always_inline)) __m256i first_lanes(Vec<float>, Index n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __attribute__((always_inline)) __m256i first_lanes(Vec<double>, Index n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}
inline __attribute__((always_inline)) Vec<float> load_part(const float* p, Index n) {
  return reinterpret_cast<Vec<float>>(_mm256_maskload_ps(p, first_lanes(Vec<float>{}, n)));
}
inline __attribute__((always_inline)) Vec<double> load_part(const double* p, Index n) {
  return reinterpret_cast<Vec<double>>(_mm256_maskload_pd(p, first_lanes(Vec<double>{}, n)));
}
inline __attribute__((always_inline)) void store_part(float* p, Vec<float> v, Index n) {
  _mm256_maskstore_ps(p, first_lanes(v, n), reinterpret_cast<__m256>(v));
}
inline __attribute__((always_inline)) void store_part(double* p, Vec<double> v, Index n) {
  _mm256_maskstore_pd(p, first_lanes(v, n), reinterpret_cast<__m256d>(v));
}
#else
template <class T>
inline Vec<T> load_part(const T* p, Index n) {
  Vec<T> v = {};
  __builtin_memcpy(&v, p, static_cast<unsigned long>(n) * sizeof(T));
  return v;
}
template <class T>
inline void store_part(T* p, Vec<T> v, Index n) {
  __builtin_memcpy(p, &v, static_cast<unsigned long>(n) * sizeof(T));
}
#endif
// Loads and stores that know the last, partial vector of a row.
template <class T>
inline Vec<T> load_n(const T* p, Index n) {
  return n >= kLanes<T> ? load(p) : load_part(p, n);
}
template <class T>
inline void store_n(T* p, Vec<T> v, Index n) {
  if (n >= kLanes<T>) {
    store(p, v);
  } else {
    store_part(p, v, n);
  }
}
template <class T>
inline __attribute__((always_inline)) Vec<T> splat(T x) {
  return x - Vec<T>{};  // scalar with vector: broadcast; x - 0 == x for every x, signed zeros and NaN too
}
// NaN stays NaN: a bad weight must show up in the result.
template <class T>
inline __attribute__((always_inline)) Vec<T> positive(Vec<T> v) {
  return v < Vec<T>{} ? Vec<T>{} : v;
}
template <class T>
inline __attribute__((always_inline)) Vec<T> negative(Vec<T> v) {
  return v > Vec<T>{} ? Vec<T>{} : v;
}
template <class T>
inline __attribute__((always_inline)) Vec<T> take_part(Vec<T> v, int part) {
  return part == 0 ? v : (part > 0 ? positive<T>(v) : negative<T>(v));
}
// A list of lane numbers, for shuffles.
template <int... kIndex>
struct Lanes {};
template <int kCount, int... kIndex>
struct MakeLanes : MakeLanes<kCount - 1, kCount - 1, kIndex...> {};
template <int... kIndex>
struct MakeLanes<0, kIndex...> {
  using type = Lanes<kIndex...>;
};

// The lanes kIndex of a and b, one after the other: a's, then b's.
template <class T, int... kIndex>
inline __attribute__((always_inline)) Vec<T> shuffle(const Vec<T>& a, const Vec<T>& b) {
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, kIndex...);
#else  // GCC before 12
  using Order = decltype(a < b);
  return __builtin_shuffle(a, b, Order{kIndex...});
#endif
}

// Adds the upper half of the first 2 * kHalf lanes to the lower half, and so on down.
template <class T, int kHalf, int... kIndex>
inline __attribute__((always_inline)) void fold(Vec<T>& v, Lanes<kIndex...> lanes) {
  if constexpr (kHalf > 0) {
    v += shuffle<T, (kIndex < kHalf ? kIndex + kHalf : kIndex)...>(v, v);
    fold<T, kHalf / 2>(v, lanes);
  }
}
// Sum of the lanes, always in the same order.
template <class T>
inline T sum_lanes(Vec<T> v) {
  fold<T, kLanes<T> / 2>(v, typename MakeLanes<kLanes<T>>::type{});
  return v[0];
}

// What a comparison of vectors gives.
template <class T>
using Mask = decltype(Vec<T>{} < Vec<T>{});
#ifdef __AVX512F__
template <class T>
inline __attribute__((always_inline)) bool any_lane(Mask<T> mask) {
  if constexpr (sizeof(T) == 4) {
    return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)) != 0;
  } else {
    return _mm512_movepi64_mask(reinterpret_cast<__m512i>(mask)) != 0;
  }
}
template <class T>
inline __attribute__((always_inline)) bool any_nan(Vec<T> v) {
  if constexpr (sizeof(T) == 4) {
    const __m512 x = reinterpret_cast<__m512>(v);
    return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q) != 0;
  } else {
    const __m512d x = reinterpret_cast<__m512d>(v);
    return _mm512_cmp_pd_mask(x, x, _CMP_UNORD_Q) != 0;
  }
}
#elif defined(__AVX2__)
template <class T>
inline __attribute__((always_inline)) bool any_lane(Mask<T> mask) {
  return _mm256_movemask_epi8(reinterpret_cast<__m256i>(mask)) != 0;
}
#else
template <class T>
inline __attribute__((always_inline)) bool any_lane(Mask<T> mask) {
  bool any = false;
  for (int l = 0; l < kLanes<T>; ++l) {
    any |= mask[l] != 0;
  }
  return any;
}
#endif

#ifndef __AVX512F__
template <class T>
inline __attribute__((always_inline)) bool any_nan(Vec<T> v) {
  return any_lane<T>(v != v);
}
#endif

// rho(w), by kind of reading; p and n are the broadcast factors of kMixed.
template <Read kRead, class T>
inline __attribute__((always_inline)) Vec<T> map_weight(Vec<T> w, Vec<T> p, Vec<T> n) {
  if constexpr (kRead == Read::kPositive) {
    return positive<T>(w);
  } else if constexpr (kRead == Read::kNegative) {
    return negative<T>(w);
  } else if constexpr (kRead == Read::kMixed) {
    return w * (w < Vec<T>{} ? n : p);
  } else if constexpr (kRead == Read::kSquare) {
    return w * w;
  } else if constexpr (kRead == Read::kOne) {
    return splat(T(1));
  } else {
    return w;
  }
}

// Weights, however they are stored.
template <class T>
inline __attribute__((always_inline)) Vec<T> load_weight(const T* w) {
  return load(w);
}
template <class T>
inline __attribute__((always_inline)) Vec<T> load_weight_part(const T* w, Index n) {
  return load_part(w, n);
}

// Calls body(constant) with the reading as a compile-time constant.
template <Read kRead>
struct ReadConstant {
  static constexpr Read value = kRead;
};
template <class Body>
inline void with_read(Read read, Body body) {
  switch (read) {
    case Read::kPlain:
      return body(ReadConstant<Read::kPlain>{});
    case Read::kPositive:
      return body(ReadConstant<Read::kPositive>{});
    case Read::kNegative:
      return body(ReadConstant<Read::kNegative>{});
    case Read::kMixed:
      return body(ReadConstant<Read::kMixed>{});
    case Read::kSquare:
      return body(ReadConstant<Read::kSquare>{});
    case Read::kOne:
      return body(ReadConstant<Read::kOne>{});
  }
}

// A number known at compile time.
template <int kRows>
struct Height {
  static constexpr int value = kRows;
};
