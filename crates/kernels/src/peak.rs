//! The most that one core multiplies: what a speed is a share of.

use std::time::{Duration, Instant};

use crate::{Kernels, Precision};

impl Kernels {
    /// Operations a second (two for each product that is added) of one core that reads no memory: the instruction that
    /// multiplies in `precision` on this instruction set, in as many independent chains as hide its latency. For bf16 that
    /// may be the one of f32, for int8 the one of 16 bits. The fastest of the bursts that this thread does in about `time`:
    /// what others do on the machine does not count. `None` for the reference, which has no such instruction, and for
    /// AArch64, whose peak is not measured.
    ///
    /// The clock of a processor depends on what its other cores do: measure on all that will compute.
    pub fn peak(&self, precision: Precision, time: Duration) -> Option<f64> {
        let (burst, operations) = loops::of(self.isa, precision)?;
        // SAFETY: `self` proves the instruction set.
        let burst = || unsafe { burst() };
        let (start, mut fastest) = (Instant::now(), f64::INFINITY);
        let mut before = Duration::ZERO;
        while before < time || fastest.is_infinite() {
            burst();
            let after = start.elapsed();
            fastest = fastest.min((after - before).as_secs_f64());
            before = after;
        }
        Some(operations / fastest)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod loops {
    use crate::{Isa, Precision};

    pub(super) fn of(_: Isa, _: Precision) -> Option<(unsafe fn(), f64)> {
        None
    }
}

#[cfg(target_arch = "x86_64")]
mod loops {
    use std::hint::black_box;

    use crate::vector::{Dots, Vector, Words};
    use crate::x86_64::amx::peak as amx;
    use crate::x86_64::avx2::{AvxVnni, F32x8};
    use crate::x86_64::avx512::{F32x16, Vnni, VnniBf16};
    use crate::{Isa, Precision};

    /// Two instructions a cycle of a latency of six, which is the most that is known.
    const CHAINS: usize = 12;
    /// A few microseconds: the clock is read between bursts.
    const ROUNDS: usize = 4096;

    /// A burst of instructions, and the operations that it does.
    pub(super) fn of(isa: Isa, precision: Precision) -> Option<(unsafe fn(), f64)> {
        let (burst, products): (unsafe fn(), usize) = match (isa, precision) {
            // Other architectures' sets are never chosen here.
            (Isa::Scalar | Isa::Neon | Isa::NeonDot | Isa::NeonBf16, _) => return None,
            // A product of tiles: sixteen rows by sixteen columns by sixteen words.
            (Isa::Amx, Precision::Bf16) => {
                return Some((amx::bf16, (2 * amx::PRODUCTS * 16 * 16 * 32) as f64));
            }
            (Isa::Amx, Precision::Int8) => {
                return Some((amx::int8, (2 * amx::PRODUCTS * 16 * 16 * 64) as f64));
            }
            (Isa::Avx512Bf16, Precision::Bf16) => (avx512bf16_bf16, 2 * F32x16::LANES),
            (Isa::Avx512Bf16 | Isa::Avx512Vnni, Precision::Int8) => (avx512vnni_int8, 4 * F32x16::LANES),
            (Isa::Avx512, Precision::Int8) => (avx512_halves, 2 * F32x16::LANES),
            (Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512Vnni | Isa::Avx512, _) => (avx512_f32, F32x16::LANES),
            (Isa::AvxVnni, Precision::Int8) => (avxvnni_int8, 4 * F32x8::LANES),
            (Isa::Avx2, Precision::Int8) => (avx2_halves, 2 * F32x8::LANES),
            (Isa::AvxVnni | Isa::Avx2, _) => (avx2_f32, F32x8::LANES),
        };
        Some((burst, (2 * products * CHAINS * ROUNDS) as f64))
    }

    /// Sums that differ, so that the compiler cannot compute one for all.
    ///
    /// # Safety
    /// The CPU has the instruction set of `V`.
    #[inline(always)]
    unsafe fn chains<V: Vector>() -> [V; CHAINS] {
        // SAFETY: the caller's contract.
        std::array::from_fn(|i| unsafe { V::splat(black_box(i as f32)) })
    }

    /// # Safety
    /// The CPU has the instruction set of `V`.
    #[inline(always)]
    unsafe fn f32<V: Vector>() {
        // SAFETY: the caller's contract.
        let (mut sums, x) = unsafe { (chains::<V>(), V::splat(black_box(0.5))) };
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = x.fma(x, *sum);
            }
        }
        black_box(sums.map(V::largest));
    }

    /// # Safety
    /// The CPU has the instruction sets of `V` and `D`.
    #[inline(always)]
    unsafe fn bf16<V: Vector, D: Dots<V>>() {
        // SAFETY: the caller's contract.
        let (mut sums, x) = unsafe { (chains::<V>(), V::splat(black_box(0.5)).bits()) };
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                // SAFETY: the caller's contract.
                *sum = unsafe { D::bf16(*sum, x, x) };
            }
        }
        black_box(sums.map(V::largest));
    }

    /// # Safety
    /// The CPU has the instruction sets of `V` and `D`.
    #[inline(always)]
    unsafe fn int8<V: Vector, D: Dots<V>>() {
        // SAFETY: the caller's contract.
        let (sums, x) = unsafe { (chains::<V>(), V::splat(black_box(0.5)).bits()) };
        let mut sums = sums.map(V::bits);
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                // SAFETY: the caller's contract.
                *sum = unsafe { D::int8(*sum, x, x) };
            }
        }
        black_box(sums.map(|sum| V::from_ints(sum).largest()));
    }

    /// # Safety
    /// The CPU has the instruction set of `V`.
    #[inline(always)]
    unsafe fn halves<V: Vector>() {
        // SAFETY: the caller's contract.
        let (sums, x) = unsafe { (chains::<V>(), V::splat(black_box(0.5)).bits()) };
        let mut sums = sums.map(V::bits);
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = sum.multiply_halves(x);
            }
        }
        black_box(sums.map(|sum| V::from_ints(sum).largest()));
    }

    macro_rules! bursts {
        ($($name:ident = $body:expr, $features:literal;)*) => {$(
            /// # Safety
            /// The CPU has the instruction set.
            #[target_feature(enable = $features)]
            unsafe fn $name() {
                // SAFETY: the caller's contract.
                unsafe { $body() }
            }
        )*};
    }

    bursts! {
        avx2_f32 = f32::<F32x8>, "avx2,fma,f16c";
        avx2_halves = halves::<F32x8>, "avx2,fma,f16c";
        avxvnni_int8 = int8::<F32x8, AvxVnni>, "avx2,fma,f16c,avxvnni";
        avx512_f32 = f32::<F32x16>, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c";
        avx512_halves = halves::<F32x16>, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c";
        avx512vnni_int8 = int8::<F32x16, Vnni>, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,avx512vnni";
        avx512bf16_bf16 = bf16::<F32x16, VnniBf16>,
            "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,avx512vnni,avx512bf16";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Isa, TABLES};

    #[test]
    fn every_table_of_x86_64_but_the_reference_has_a_peak() {
        for kernels in TABLES.iter().filter_map(crate::TableEntry::kernels) {
            for precision in Precision::ALL {
                let peak = kernels.peak(precision, Duration::from_millis(2));
                if cfg!(not(target_arch = "x86_64")) || kernels.isa == Isa::Scalar {
                    assert_eq!(peak, None);
                } else {
                    // A tenth of one operation a cycle: only a loop that does nothing, or counts wrong, is slower.
                    let rate = peak.expect("an instruction set with registers");
                    assert!(rate.is_finite() && rate > 1e8, "{} {precision}: {rate}", kernels.isa);
                }
            }
        }
    }
}
