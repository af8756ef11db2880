#define PYLRP_ISA_SYMBOL isa_avx2
#define PYLRP_ISA_NAME "avx2"
#define PYLRP_VECTOR_BYTES 32
#define PYLRP_TILE_ROWS 6  // 12 accumulators + 2 of the panel + 1 broadcast of 16 registers
#include "kernels/kernels.inl"
