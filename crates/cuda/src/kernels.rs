//! The kernels' source, in modules that are compiled by themselves.

const DEVICE: &str = include_str!("../kernels/device.cuh");
const ROWS: &str = include_str!("../kernels/rows.cu");
const PRODUCT: &str = include_str!("../kernels/product.cu");
const ATTENTION: &str = include_str!("../kernels/attention.cuh");
const ATTENTION_PLAIN: &str = include_str!("../kernels/attention_plain.cu");
const ATTENTION_TENSOR: &str = include_str!("../kernels/attention_tensor.cu");

/// The heads that there is a kernel for on the tensor cores, by their size; others take the plain one.
pub const TENSOR_HEADS: [usize; 4] = [32, 64, 96, 128];

/// What is added to the scores in [`tensor_attention`], by its name there and its number in the source.
const BIASES: [(&str, &str); 3] =
    [("", "BIAS_NONE"), ("_distance", "BIAS_DISTANCE"), ("_disentangled", "BIAS_DISENTANGLED")];

/// The module that all but the attention on tensor cores is in.
pub const COMMON: &str = "common";

/// The name of the attention kernel for heads of `head_dim`, one of [`TENSOR_HEADS`]; `bias` counts as in the source.
#[must_use]
pub fn tensor_attention(head_dim: usize, bias: usize) -> String {
    format!("attention_{head_dim}{}", BIASES.get(bias).map_or("", |(name, _)| name))
}

/// All modules of a number format, by name. The attention on tensor cores is a module for each of its kernels: to
/// compile all of them takes half a minute, and a model needs one.
#[must_use]
pub fn modules(has_halves: bool) -> Vec<String> {
    let attention =
        TENSOR_HEADS.iter().flat_map(|head| (0..BIASES.len()).map(|bias| tensor_attention(*head, bias)));
    let common = std::iter::once(COMMON.to_string());
    if has_halves { common.chain(attention).collect() } else { common.collect() }
}

/// The module that a kernel is in.
#[must_use]
pub fn module_of(kernel: &str) -> &str {
    let is_tensor =
        kernel.strip_prefix("attention_").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if is_tensor { kernel } else { COMMON }
}

/// The source of a module.
#[must_use]
pub fn source(module: &str) -> String {
    let Some(rest) = module.strip_prefix("attention_") else {
        return [DEVICE, ROWS, PRODUCT, ATTENTION, ATTENTION_PLAIN].join("\n");
    };
    let (head, bias) = rest.split_at(rest.find('_').unwrap_or(rest.len()));
    let bias = BIASES.iter().find(|(name, _)| *name == bias).map_or("", |(_, number)| number);
    [DEVICE, ATTENTION, ATTENTION_TENSOR, &format!("ATTENTION({module}, {head}, {bias})\n")].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_has_a_module_and_every_module_a_source() {
        assert_eq!(module_of("norm_ff"), COMMON);
        assert_eq!(module_of("attention_h"), COMMON);
        assert_eq!(module_of("attention_128_distance"), "attention_128_distance");
        assert_eq!(modules(false), [COMMON]);
        let modules = modules(true);
        assert_eq!(modules.len(), 13);
        for module in &modules[1..] {
            assert!(source(module).contains(&format!("ATTENTION({module}, ")), "{module}");
        }
        assert!(
            source("attention_64_disentangled")
                .ends_with("(attention_64_disentangled, 64, BIAS_DISENTANGLED)\n")
        );
        assert!(source(COMMON).contains("KERNEL attention_h"));
    }
}
