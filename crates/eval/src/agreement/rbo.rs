use std::collections::HashSet;
use std::hash::Hash;

/// Rank-biased overlap of two rankings, extrapolated beyond their ends: from 0 (nothing in common) to 1 (the same). A
/// reader goes on from each rank to the next with probability `p`, so 0.9 puts 86 % of the weight on the first ten.
///
/// Two empty rankings are the same (1); an empty one and another have nothing in common (0). Documents are distinct
/// within a ranking; `p` is above 0 and below 1.
///
/// Source: Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", ACM TOIS 28, 2010, equation 32,
/// for rankings of any two lengths.
pub fn rbo<T: Eq + Hash>(a: &[T], b: &[T], p: f64) -> f64 {
    let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    if short.is_empty() {
        return if long.is_empty() { 1.0 } else { 0.0 };
    }
    let (s, l) = (short.len() as f64, long.len() as f64);
    let (mut in_short, mut in_long) = (HashSet::new(), HashSet::new());
    let (mut overlap, mut overlap_at_s, mut sum, mut weight) = (0.0, 0.0, 0.0, 1.0);
    for (i, from_long) in long.iter().enumerate() {
        let depth = i as f64 + 1.0;
        weight *= p;
        in_long.insert(from_long);
        if let Some(from_short) = short.get(i) {
            in_short.insert(from_short);
            overlap += f64::from(u8::from(in_long.contains(from_short)));
            if from_short != from_long {
                overlap += f64::from(u8::from(in_short.contains(from_long)));
            }
            overlap_at_s = overlap;
        } else {
            overlap += f64::from(u8::from(in_short.contains(from_long)));
            // The short ranking is taken to go on as it was: with the agreement that it had at its end.
            sum += overlap_at_s * (depth - s) / (s * depth) * weight;
        }
        sum += overlap / depth * weight;
    }
    let beyond = ((overlap - overlap_at_s) / l + overlap_at_s / s) * weight;
    (1.0 - p) / p * sum + beyond
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(text: &str) -> Vec<char> {
        text.chars().collect()
    }

    #[test]
    fn the_same_nothing_and_two_swapped() {
        let close = |a: &str, b: &str, expected: f64| {
            let found = rbo(&letters(a), &letters(b), 0.9);
            assert!((found - expected).abs() < 1e-6, "{a} {b}: {found}");
            assert!((found - rbo(&letters(b), &letters(a), 0.9)).abs() < 1e-12);
        };
        close("abcdefghij", "abcdefghij", 1.0);
        close("abcde", "fghij", 0.0);
        // Only rank 1 disagrees, and it has the weight 1 - p.
        close("abcdefghij", "bacdefghij", 0.9);
        // 0.1 / 0.9 * (0.9 + 1/2 * 0.81 + 0.729 + 0.6561 + 4/5 * 0.59049) + 4/5 * 0.59049
        close("abcde", "acbdf", 0.823781);
        close("abc", "abcdef", 1.0);
        close("", "", 1.0);
        close("", "a", 0.0);
    }
}
