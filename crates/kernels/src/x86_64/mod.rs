//! The instruction sets of x86_64. Each is a register type and one `instantiate!`; the kernels themselves are
//! written once, in `generic.rs`.

pub(crate) mod avx2;
pub(crate) mod avx512;

/// Methods on a register type.
///
/// SAFETY, for each of them: `self` is a register of the instruction set, and the only functions that make one are
/// `unsafe` and demand that the CPU has it.
macro_rules! methods {
    ($(fn $name:ident($self:ident $(, $arg:ident: $type:ty)*) -> $out:ty { $($body:tt)* })*) => {$(
        #[inline(always)]
        fn $name($self $(, $arg: $type)*) -> $out {
            // SAFETY: `self` proves the instruction set (see the head of this macro).
            unsafe { $($body)* }
        }
    )*};
}
pub(crate) use methods;

/// The kernels of `generic.rs` for one register type, as a table.
macro_rules! instantiate {
    ($isa:ident, $vector:ident, $dots:ident, rows $rows:literal $bf16_rows:literal, $features:literal) => {
        /// The functions of this instruction set.
        pub(crate) static TABLE: $crate::Kernels = FUNCTIONS;
        pub(super) const FUNCTIONS: $crate::Kernels = $crate::Kernels {
            isa: $crate::Isa::$isa,
            matmul,
            round_bf16,
            pair_bf16,
            softmax_rows,
            layer_norm,
            rms_norm,
            map,
            add,
            mul,
            scale,
            f16_to_f32,
            bf16_to_f32,
        };

        $crate::x86_64::instantiate! { @functions $vector, $features;
            matmul(
                x: $crate::View<'_>, w: &$crate::PackedMatrix, then: $crate::Epilogue<'_>, out: $crate::ViewMut<'_>,
                scratch: &mut $crate::Scratch
            ) = $crate::generic::matmul::<$vector, $dots, $rows, $bf16_rows>;
            round_bf16(src: &[f32], dst: &mut [u32]) = $crate::generic::round_bf16::<$vector>;
            pair_bf16(low: &[f32], high: &[f32], dst: &mut [u32]) = $crate::generic::pair_bf16::<$vector>;
            softmax_rows(x: $crate::ViewMut<'_>) = $crate::generic::softmax_rows::<$vector>;
            layer_norm(x: $crate::ViewMut<'_>, gamma: &[f32], beta: Option<&[f32]>, eps: f32)
                = $crate::generic::layer_norm::<$vector>;
            rms_norm(x: $crate::ViewMut<'_>, gamma: &[f32], eps: f32) = $crate::generic::rms_norm::<$vector>;
            map(map: $crate::Map, x: &mut [f32]) = $crate::generic::map::<$vector>;
            add(x: &mut [f32], y: &[f32]) = $crate::generic::zip::<$vector, $crate::generic::Add>;
            mul(x: &mut [f32], y: &[f32]) = $crate::generic::zip::<$vector, $crate::generic::Mul>;
            scale(x: &mut [f32], s: f32) = $crate::generic::scale::<$vector>;
            f16_to_f32(src: &[u16], dst: &mut [f32]) = $crate::generic::f16_to_f32::<$vector>;
            bf16_to_f32(src: &[u16], dst: &mut [f32]) = $crate::generic::bf16_to_f32::<$vector>;
        }
    };
    // A set that adds instructions for products: all else is that of the module `super::base`.
    (more $isa:ident, $vector:ident, $dots:ident, rows $rows:literal $bf16_rows:literal, $features:literal) => {
        /// The functions of this instruction set.
        pub(crate) static TABLE: $crate::Kernels =
            $crate::Kernels { isa: $crate::Isa::$isa, matmul, ..super::base::FUNCTIONS };

        $crate::x86_64::instantiate! { @functions $vector, $features;
            matmul(
                x: $crate::View<'_>, w: &$crate::PackedMatrix, then: $crate::Epilogue<'_>, out: $crate::ViewMut<'_>,
                scratch: &mut $crate::Scratch
            ) = $crate::generic::matmul::<$vector, $dots, $rows, $bf16_rows>;
        }
    };
    (@functions $vector:ident, $features:literal;
        $($name:ident($($arg:ident: $type:ty),*) = $generic:expr;)*) => {$(
        /// See `Kernels`.
        ///
        /// # Safety
        /// The CPU has the instruction set, and the shapes are those that `Kernels` asserts.
        #[target_feature(enable = $features)]
        unsafe fn $name($($arg: $type),*) {
            // SAFETY: the caller's contract is the callee's.
            unsafe { $generic($($arg),*) }
        }
    )*};
}
pub(crate) use instantiate;
