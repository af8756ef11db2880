#define PYLRP_ISA_SYMBOL isa_avx512
#define PYLRP_ISA_NAME "avx512"
#define PYLRP_VECTOR_BYTES 64
#define PYLRP_TILE_ROWS 14  // 28 accumulators + 2 of the panel + 1 broadcast of 32 registers
#include "kernels/kernels.inl"
