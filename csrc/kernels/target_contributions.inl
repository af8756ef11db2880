// Contributions one by one for several targets of the same inputs: an output that is off has no relevance for any of
// them, so they share a list, the sums of contributions, and what is above zero of an entry.
#if defined(__AVX2__)
inline Index compress_targets(Index k, int targets, const float* x, Index step, float* to, Index to_step,
                              std::uint16_t* steps) {
  Index count = 0;
  for (Index p = 0; p < k; p += kLanes<float>) {
    const Index n = k - p;
#if defined(__AVX512F__)
    __mmask16 kept = 0;
    for (int t = 0; t < targets; ++t) {
      kept = static_cast<__mmask16>(kept | _mm512_cmp_ps_mask(reinterpret_cast<__m512>(load_n(x + t * step + p, n)),
                                                              _mm512_setzero_ps(), _CMP_NEQ_UQ));
    }
    for (int t = 0; t < targets; ++t) {
      _mm512_storeu_ps(to + t * to_step + count,
                       _mm512_maskz_compress_ps(kept, reinterpret_cast<__m512>(load_n(x + t * step + p, n))));
    }
    const __m512i at = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(p)),
                                        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    const __m256i narrow = _mm512_maskz_cvtepi32_epi16(0xffff, _mm512_maskz_compress_epi32(kept, at));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(steps + count), narrow);
#else
    int kept = 0;
    for (int t = 0; t < targets; ++t) {
      kept |= nonzero_mask(load_n(x + t * step + p, n));
    }
    const __m128i lanes = kept_lanes(kept);
    for (int t = 0; t < targets; ++t) {
      store(to + t * to_step + count, reinterpret_cast<Vec<float> >(in_order(load_n(x + t * step + p, n), lanes)));
    }
    store_steps(steps_of(lanes, p), float{}, steps + count);
#endif
    count += __builtin_popcount(static_cast<unsigned>(kept));
  }
  return count;
}

template <int kVectors, int kTargets>
void send_targets_of(const Contributions& args, const float* s, Index s_step, bool add, float* out, Index out_step) {
  constexpr int lanes = kLanes<float>;
  for (Index i = 0; i < args.rows; ++i) {
    const float* const from = args.x + i * args.stride;
    Vec<float> signs[kVectors], acc[kTargets][kVectors] = {};
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      signs[v] = sign_bits(load(from + v * lanes));
    }
    const Index end = args.begins[i + 1];
    for (Index e = args.begins[i]; e < end; ++e) {
      const float* const row = args.w + args.at[e] * args.stride;
      Vec<float> share[kTargets];
#pragma GCC unroll 4
      for (int t = 0; t < kTargets; ++t) {
        share[t] = splat(s[t * s_step + e]);
      }
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const Vec<float> most = above_zero(flip_signs(load(row + v * lanes), signs[v]));
#pragma GCC unroll 4
        for (int t = 0; t < kTargets; ++t) {
          acc[t][v] += share[t] * most;
        }
      }
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Vec<float> size = flip_signs(load(from + v * lanes), signs[v]);
#pragma GCC unroll 4
      for (int t = 0; t < kTargets; ++t) {
        float* const to = out + t * out_step + i * args.stride + v * lanes;
        store(to, add ? load(to) + size * acc[t][v] : size * acc[t][v]);
      }
    }
  }
}

// As many targets side by side as there are registers for.
#if defined(__AVX512F__)
constexpr int kTargetRegisters = 32;
#else
constexpr int kTargetRegisters = 16;
#endif
template <int kTargets, int kVectors = kContributionVectors>
bool send_some_targets(const Contributions& args, const float* s, Index s_step, bool add, float* out, Index out_step) {
  if constexpr (kVectors > 1) {
    if (args.columns <= (kVectors - 1) * kLanes<float>) {
      return send_some_targets<kTargets, kVectors - 1>(args, s, s_step, add, out, out_step);
    }
  }
  if constexpr (kVectors + kTargets * (kVectors + 1) + 2 <= kTargetRegisters) {
    send_targets_of<kVectors, kTargets>(args, s, s_step, add, out, out_step);
    return true;
  }
  return false;
}
inline void send_of_targets(const Contributions& args, int targets, const float* s, Index s_step, bool add, float* out,
                            Index out_step) {
  int t = 0;
  for (; t + 4 <= targets && !favours(args); t += 4) {
    if (!send_some_targets<4>(args, s + t * s_step, s_step, add, out + t * out_step, out_step)) {
      break;
    }
  }
  for (; t + 2 <= targets && !favours(args); t += 2) {
    if (!send_some_targets<2>(args, s + t * s_step, s_step, add, out + t * out_step, out_step)) {
      break;
    }
  }
  for (; t < targets; ++t) {
    send_of_contributions(args, s + t * s_step, nullptr, add, out + t * out_step);
  }
}
#endif
