use super::rng::Rng;

/// The p-value, two-sided, of the paired randomisation test: how often the mean difference is as large as it is, or
/// larger, if for each query it is a coin's toss which of the two rankers is called which.
///
/// With 2^n <= `rounds` all assignments are counted and the p-value is exact. Otherwise `rounds` random ones are tried
/// and the p-value is `(hits + 1) / (rounds + 1)`, which is never too small. 1 if there are no differences.
///
/// Source: Smucker, Allan and Carterette, "A comparison of statistical significance tests for information retrieval
/// evaluation", CIKM 2007; the `+ 1` is from Phipson and Smyth, 2010.
pub fn randomisation_p(differences: &[f64], rounds: usize, seed: u64) -> f64 {
    // A query on which nothing changes adds nothing, whatever its sign.
    let changed: Vec<f64> = differences.iter().copied().filter(|difference| *difference != 0.0).collect();
    let observed = changed.iter().sum::<f64>().abs();
    // Sums of the same numbers in another order differ in their last bits; they must count as equal.
    let enough = observed - 1e-12 * changed.iter().map(|difference| difference.abs()).sum::<f64>();
    let all = u32::try_from(changed.len()).ok().and_then(|n| 1_usize.checked_shl(n));
    if let Some(all) = all.filter(|all| *all <= rounds.max(1)) {
        let hits = (0..all).filter(|signs| signed_sum(&changed, || *signs as u64).abs() >= enough).count();
        return hits as f64 / all as f64;
    }
    let mut rng = Rng::new(seed);
    let hits = (0..rounds).filter(|_| signed_sum(&changed, || rng.bits()).abs() >= enough).count();
    (hits as f64 + 1.0) / (rounds as f64 + 1.0)
}

/// The sum with random signs; `bits` gives 64 signs at a time.
fn signed_sum(differences: &[f64], mut bits: impl FnMut() -> u64) -> f64 {
    let mut sum = 0.0;
    for some in differences.chunks(64) {
        let mut signs = bits();
        for difference in some {
            sum += if signs & 1 == 0 { *difference } else { -difference };
            signs >>= 1;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Of the eight assignments of signs to 1, 2, 3 only + + + and - - - reach 6.
        assert_eq!(randomisation_p(&[1.0, 2.0, 3.0], 1000, 1), 0.25);
        // |1 + 2 - 2| = 1 is reached by all eight.
        assert_eq!(randomisation_p(&[1.0, 2.0, -2.0], 1000, 1), 1.0);
        assert_eq!(randomisation_p(&[0.0; 50], 1000, 1), 1.0);
        assert_eq!(randomisation_p(&[], 1000, 1), 1.0);
    }

    #[test]
    fn sampling_comes_close_to_counting() {
        let mut rng = Rng::new(3);
        for n in [12, 13, 14] {
            let differences: Vec<f64> = (0..n).map(|_| rng.below(1000) as f64 / 1000.0 - 0.35).collect();
            let exact = randomisation_p(&differences, 1 << n, 0);
            let rounds = (1 << n) - 1;
            for seed in 0..5 {
                let sampled = randomisation_p(&differences, rounds, seed);
                let deviation = (exact * (1.0 - exact) / rounds as f64).sqrt();
                assert!(
                    (sampled - exact).abs() < 5.0 * deviation + 1e-3,
                    "{n} {seed}: {sampled}, exact {exact}"
                );
            }
        }
    }

    #[test]
    fn of_chance_differences_one_in_twenty_is_significant() {
        let mut rng = Rng::new(5);
        let significant = (0..1000)
            .filter(|seed| {
                let differences: Vec<f64> = (0..80).map(|_| rng.below(2001) as f64 - 1000.0).collect();
                randomisation_p(&differences, 500, *seed) <= 0.05
            })
            .count();
        // 50 expected, standard deviation 7.
        assert!((25..=78).contains(&significant), "{significant} of 1000");
    }
}
