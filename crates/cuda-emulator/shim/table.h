// The kernels of one module by name.

using Call = void (*)(void **);

template <class... Parameters, size_t... index>
void call_with(void (*kernel)(Parameters...), void **arguments, std::index_sequence<index...>) {
    kernel(*(Parameters *)arguments[index]...);
}
template <class... Parameters> void call_kernel(void (*kernel)(Parameters...), void **arguments) {
    call_with(kernel, arguments, std::index_sequence_for<Parameters...>{});
}

inline Call find(const char *name) {
#define ENTRY(NAME) {#NAME, [](void **arguments) { call_kernel(NAME, arguments); }},
    static const struct {
        const char *name;
        Call call;
    } TABLE[] = {
        ENTRY(embed_f32) ENTRY(embed_bf16) ENTRY(embed_f16)
        ENTRY(norm_ff) ENTRY(norm_fh) ENTRY(norm_hh)
        ENTRY(rotate_f) ENTRY(rotate_h)
        ENTRY(gate_f) ENTRY(gate_h)
        ENTRY(apply_f) ENTRY(apply_h)
        ENTRY(convert_fh) ENTRY(convert_hf)
        ENTRY(take_f) ENTRY(take_h)
        ENTRY(pool_f) ENTRY(pool_h)
        ENTRY(product_ff) ENTRY(product_hf) ENTRY(product_hh)
        ENTRY(attention_f) ENTRY(attention_h)
#if HALF != 0
        ENTRY(attention_32) ENTRY(attention_32_distance) ENTRY(attention_32_disentangled)
        ENTRY(attention_64) ENTRY(attention_64_distance) ENTRY(attention_64_disentangled)
        ENTRY(attention_96) ENTRY(attention_96_distance) ENTRY(attention_96_disentangled)
        ENTRY(attention_128) ENTRY(attention_128_distance) ENTRY(attention_128_disentangled)
#endif
    };
#undef ENTRY
    for (auto &entry : TABLE)
        if (std::strcmp(entry.name, name) == 0) return entry.call;
    return nullptr;
}
