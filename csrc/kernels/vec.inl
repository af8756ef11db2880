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
// The first n lanes; the others are zero, resp. left alone.
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
// A list of lane numbers, for shuffles.
template <int... kIndex>
struct Lanes {};
template <int kCount, int... kIndex>
struct MakeLanes : MakeLanes<kCount - 1, kCount - 1, kIndex...> {};
template <int... kIndex>
struct MakeLanes<0, kIndex...> {
  using type = Lanes<kIndex...>;
};

// Adds the upper half of the first 2 * kHalf lanes to the lower half, and so on down.
template <class T, int kHalf, int... kIndex>
inline __attribute__((always_inline)) void fold(Vec<T>& v, Lanes<kIndex...> lanes) {
  if constexpr (kHalf > 0) {
    v += __builtin_shufflevector(v, v, (kIndex < kHalf ? kIndex + kHalf : kIndex)...);
    fold<T, kHalf / 2>(v, lanes);
  }
}
// Sum of the lanes, always in the same order.
template <class T>
inline T sum_lanes(Vec<T> v) {
  fold<T, kLanes<T> / 2>(v, typename MakeLanes<kLanes<T>>::type{});
  return v[0];
}

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
