#define PYLRP_ISA_SYMBOL isa_baseline
#define PYLRP_VECTOR_BYTES 16
#ifdef __aarch64__  // 32 vector registers, NEON and FMA are the baseline
#define PYLRP_ISA_NAME "neon"
#define PYLRP_TILE_ROWS 12
#else
#define PYLRP_ISA_NAME "baseline"
#define PYLRP_TILE_ROWS 6
#endif
#include "kernels/kernels.inl"
