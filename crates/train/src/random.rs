//! Random numbers that a seed and some words decide: the same on every machine, and independent of what was drawn elsewhere.

/// SplitMix64: the same numbers for a seed in every version of this crate, which a dependency would not promise.
/// Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// For a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers of their own for a seed and some words, whichever other words there are.
    pub fn keyed<'a>(seed: u64, words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut state = Self(seed).bits();
        for word in words {
            for byte in word.bytes() {
                state = Self(state ^ u64::from(byte)).bits();
            }
            // A byte that UTF-8 does not have: `ab`, `c` is not `a`, `bc`.
            state = Self(state ^ 0xff).bits();
        }
        Self(state)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `limit`, which is above 0. Its bias is less than `limit` / 2^64.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.bits()) * limit as u128) >> 64) as usize
    }

    /// From 0 to 1, 1 excluded.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Of a normal distribution with mean 0 and variance 1: Box and Muller's method.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Puts items in a random order: Fisher and Yates' shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// A random order of the numbers below `count`.
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        self.shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_sequence() {
        let mut rng = Random::new(1_234_567);
        let found: Vec<u64> = (0..3).map(|_| rng.bits()).collect();
        assert_eq!(found, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn words_are_told_apart() {
        let first = |words: &[&str]| Random::keyed(1, words.iter().copied()).bits();
        assert_ne!(first(&["ab", "c"]), first(&["a", "bc"]));
        assert_eq!(first(&["ab", "c"]), first(&["ab", "c"]));
    }

    #[test]
    fn the_normal_distribution_has_its_moments() {
        let mut rng = Random::new(3);
        let (mut sum, mut squares, mut fourth) = (0.0, 0.0, 0.0);
        let count = 100_000;
        for _ in 0..count {
            let value = rng.normal();
            (sum, squares, fourth) = (sum + value, squares + value * value, fourth + value.powi(4));
        }
        let count = f64::from(count);
        // Five standard errors: of the mean 1, of the square 2, of the fourth power 96, over the root of the count.
        assert!((sum / count).abs() < 5.0 / count.sqrt());
        assert!((squares / count - 1.0).abs() < 5.0 * (2.0 / count).sqrt());
        assert!((fourth / count - 3.0).abs() < 5.0 * (96.0 / count).sqrt());
    }
}
