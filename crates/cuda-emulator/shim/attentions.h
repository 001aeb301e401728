// Every kernel that the library may ask for; on a device each is compiled when it is first used.
#define ATTENTIONS(DIM)                                                                                                \
    ATTENTION(attention_##DIM, DIM, BIAS_NONE)                                                                         \
    ATTENTION(attention_##DIM##_distance, DIM, BIAS_DISTANCE)                                                          \
    ATTENTION(attention_##DIM##_disentangled, DIM, BIAS_DISENTANGLED)
ATTENTIONS(32)
ATTENTIONS(64)
ATTENTIONS(96)
ATTENTIONS(128)
