#define PYLRP_BFLOAT16_SYMBOL bfloat16_avx512
#define PYLRP_BFLOAT16_NAME "avx512_bf16"
#define PYLRP_VECTOR_BYTES 64
#define PYLRP_TILE_ROWS 14  // as in isa_avx512.cpp
#include "kernels/bfloat16_instruction.inl"
