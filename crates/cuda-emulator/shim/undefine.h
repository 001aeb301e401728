// What the kernels define, so that they can be included again.
#undef ALL_LANES
#undef NEGATIVE_INFINITY
#undef TILE
#undef MASK_FULL
#undef MASK_CAUSAL
#undef MASK_WINDOW
#undef BIAS_NONE
#undef BIAS_DISTANCE
#undef BIAS_DISENTANGLED
#undef ATTENTION
#undef ATTENTIONS
