use super::{Example, Map};

/// Examples with neighbouring logits whose mean is one step.
struct Block {
    first: f64,
    last: f64,
    relevant: f64,
    count: f64,
}

impl Block {
    fn mean(&self) -> f64 {
        self.relevant / self.count
    }
}

/// Pool adjacent violators; equal logits are one step from the start. Probabilities keep `1 / (n + 2)` away from 0 and 1.
/// `None` if there is only one step: then no score says more than another.
///
/// Source: Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates", KDD 2002;
/// between steps it interpolates as scikit-learn's `IsotonicRegression` does.
pub(super) fn fit(examples: &[Example]) -> Option<Map> {
    let mut sorted: Vec<&Example> = examples.iter().collect();
    sorted.sort_by(|a, b| a.logit.total_cmp(&b.logit));
    let mut blocks: Vec<Block> = Vec::new();
    for tied in sorted.chunk_by(|a, b| a.logit == b.logit) {
        let relevant = tied.iter().filter(|example| example.relevant).count() as f64;
        let logit = tied[0].logit;
        blocks.push(Block { first: logit, last: logit, relevant, count: tied.len() as f64 });
        while let [.., before, last] = &mut blocks[..]
            && before.mean() >= last.mean()
        {
            before.last = last.last;
            before.relevant += last.relevant;
            before.count += last.count;
            blocks.pop();
        }
    }
    if blocks.len() < 2 {
        return None;
    }
    let least = 1.0 / (examples.len() as f64 + 2.0);
    let mut points = Vec::with_capacity(2 * blocks.len());
    for block in &blocks {
        let probability = block.mean().clamp(least, 1.0 - least);
        points.push((block.first, probability));
        if block.last > block.first {
            points.push((block.last, probability));
        }
    }
    Some(Map::Isotonic { points })
}

/// The line through `points` at `logit`, level outside; NaN without a point.
pub(super) fn interpolate(points: &[(f64, f64)], logit: f64) -> f64 {
    let above = points.partition_point(|(x, _)| *x < logit);
    match (above.checked_sub(1).map(|below| points[below]), points.get(above)) {
        (Some((x0, y0)), Some(&(x1, y1))) => y0 + (y1 - y0) * ((logit - x0) / (x1 - x0)),
        (None, Some(&(_, y))) | (Some((_, y)), None) => y,
        (None, None) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(examples: &[(f64, u8)]) -> Option<Vec<(f64, f64)>> {
        let examples: Vec<Example> =
            examples.iter().map(|&(logit, label)| Example { logit, relevant: label == 1 }).collect();
        fit(&examples).map(|map| match map {
            Map::Isotonic { points } => points,
            other => panic!("{other}"),
        })
    }

    #[test]
    fn by_hand() {
        // 0 | 1 0 -> 1/2 | 1, kept 1/6 from the ends.
        let found = points(&[(1.0, 0), (2.0, 1), (3.0, 0), (4.0, 1)]).unwrap();
        assert_eq!(found, [(1.0, 1.0 / 6.0), (2.0, 0.5), (3.0, 0.5), (4.0, 5.0 / 6.0)]);
        // Ties are one step, whatever order they come in; 2/3 is pooled with the 0 after it.
        let found = points(&[(2.0, 1), (1.0, 0), (2.0, 0), (2.0, 1), (3.0, 0), (4.0, 1)]).unwrap();
        assert_eq!(found, [(1.0, 0.125), (2.0, 0.5), (3.0, 0.5), (4.0, 0.875)]);
        assert_eq!(points(&[(1.0, 1), (2.0, 0)]), None);
        assert_eq!(points(&[(1.0, 1), (1.0, 0)]), None);
    }

    #[test]
    fn level_outside_and_a_line_between() {
        let points = [(0.0, 0.2), (2.0, 0.6), (3.0, 0.6)];
        for (logit, expected) in [(-1.0, 0.2), (0.0, 0.2), (1.0, 0.4), (2.0, 0.6), (2.5, 0.6), (9.0, 0.6)] {
            assert!((interpolate(&points, logit) - expected).abs() < 1e-12, "{logit}");
        }
    }
}
