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
