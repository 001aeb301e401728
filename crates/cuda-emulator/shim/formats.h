// Conversions and products of the two half formats, which are types of the namespace that this is included in.

inline float to_float(bf16 x) { return __int_as_float((int)((u32)x.bits << 16)); }
inline float to_float(f16 x) {
    u32 exponent = x.bits >> 10 & 31, fraction = x.bits & 0x3ff;
    float size = exponent == 0    ? std::ldexp((float)fraction, -24)
                 : exponent == 31 ? (fraction ? NAN : INFINITY)
                                  : std::ldexp(1.0f + (float)fraction / 1024, (int)exponent - 15);
    return x.bits >> 15 ? -size : size;
}
inline void round_to(float x, bf16 &y) {
    u32 bits = bits_of(x);
    y.bits = x != x ? (u16)(bits >> 16 | 0x40) : (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline void round_to(float x, f16 &y) {
    u16 sign = (u16)(bits_of(x) >> 16 & 0x8000);
    float size = std::fabs(x);
    if (x != x) {
        y.bits = 0x7fff;
    } else if (size >= 65520.0f) {
        y.bits = sign | 0x7c00;
    } else if (size < 6.103515625e-05f) { // subnormal: units of 2^-24; the default rounding is to even
        y.bits = sign | (u16)std::nearbyint(std::ldexp(size, 24));
    } else {
        int exponent;
        float fraction = std::frexp(size, &exponent); // 0.5 ..= 1
        // A fraction that rounds up to 2 carries into the exponent by itself.
        y.bits = sign | (u16)(((exponent + 14) << 10) + (int)std::nearbyint(std::ldexp(fraction, 11)) - 1024);
    }
}
template <class T> inline u32 pack2(float low, float high) {
    T a, b;
    round_to(low, a);
    round_to(high, b);
    return (u32)a.bits | (u32)b.bits << 16;
}

template <class T> inline float half_of(u32 word, int which) {
    T x;
    x.bits = (u16)(word >> (16 * which));
    return to_float(x);
}

template <class T> inline void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    emulator::Warp &warp = emulator::warp();
    u32 lane = emulator::lane();
    u32 given[6] = {a[0], a[1], a[2], a[3], b0, b1};
    std::memcpy(warp.words[lane], given, sizeof given);
    __syncwarp();
    for (int i = 0; i < 4; i++) {
        u32 row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        for (u32 k = 0; k < 16; k++) {
            u32 word = row / 8 + k / 8 * 2, from = row % 8 * 4 + k % 8 / 2;
            float left = half_of<T>(warp.words[from][word], k % 2);
            float right = half_of<T>(warp.words[column * 4 + k % 8 / 2][4 + k / 8], k % 2);
            c[i] += left * right;
        }
    }
    __syncwarp();
}
