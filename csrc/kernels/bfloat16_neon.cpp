#define PYLRP_BFLOAT16_SYMBOL bfloat16_neon
#define PYLRP_BFLOAT16_NAME "bfdot"
#define PYLRP_VECTOR_BYTES 16
#define PYLRP_TILE_ROWS 12  // as in isa_baseline.cpp
#include "kernels/bfloat16_instruction.inl"
