// Which fast paths of the convolution are compiled: CMake's options PYLRP_CONV_*, all on where nobody says otherwise.
#pragma once

#ifndef PYLRP_CONV_BY_CONTRIBUTION
#define PYLRP_CONV_BY_CONTRIBUTION 1
#endif
#ifndef PYLRP_CONV_POSITIONS_IN_LANES
#define PYLRP_CONV_POSITIONS_IN_LANES 1
#endif
#ifndef PYLRP_CONV_FUSED_1X1
#define PYLRP_CONV_FUSED_1X1 1
#endif
#ifndef PYLRP_CONV_SIGNS_BY_MAGNITUDE  // a variant of the fused 1x1
#define PYLRP_CONV_SIGNS_BY_MAGNITUDE PYLRP_CONV_FUSED_1X1
#endif
#ifndef PYLRP_CONV_DEPTHWISE
#define PYLRP_CONV_DEPTHWISE 1
#endif
#ifndef PYLRP_CONV_DEPTHWISE_LINES
#define PYLRP_CONV_DEPTHWISE_LINES 1
#endif
#ifndef PYLRP_CONV_PACK_IN_TASKS  // read by products/taps.cpp, too
#define PYLRP_CONV_PACK_IN_TASKS 1
#endif
#ifndef PYLRP_CONV_OUTPUT_AS_SUM
#define PYLRP_CONV_OUTPUT_AS_SUM 1
#endif
#ifndef PYLRP_CONV_ONE_OF_FOUR
#define PYLRP_CONV_ONE_OF_FOUR 1
#endif
#ifndef PYLRP_CONV_SUM_BY_SUBTRACTION
#define PYLRP_CONV_SUM_BY_SUBTRACTION 1
#endif
#ifndef PYLRP_CONV_TAPS_BY_MAGNITUDE
#define PYLRP_CONV_TAPS_BY_MAGNITUDE 1
#endif
#ifndef PYLRP_CONV_FEW_INPUT_CHANNELS
#define PYLRP_CONV_FEW_INPUT_CHANNELS 1
#endif
#ifndef PYLRP_CONV_UNIFORM_WEIGHTS
#define PYLRP_CONV_UNIFORM_WEIGHTS 1
#endif
