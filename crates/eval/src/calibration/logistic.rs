use super::{Example, sigmoid, softplus, targets};

const MAX_STEPS: usize = 200;
/// Of the gradient, for each example: far below what four printed digits show.
const TOLERANCE: f64 = 1e-12;

/// The weights that minimise the log loss of `sigmoid(weights . features(logit) + offset)`, with softened labels: by
/// Newton's method, halving a step until it helps. `None` if features are tied to each other so that no step can be computed.
///
/// With labels strictly between 0 and 1 the loss grows in every direction, and it is convex: there is one minimum.
pub(super) fn fit<const N: usize>(
    examples: &[Example],
    features: impl Fn(f64) -> [f64; N],
) -> Option<[f64; N]> {
    let (relevant, other) = targets(examples);
    let rows: Vec<([f64; N], f64)> =
        examples.iter().map(|e| (features(e.logit), if e.relevant { relevant } else { other })).collect();
    let product = |weights: &[f64; N], row: &[f64; N]| -> f64 {
        weights.iter().zip(row).map(|(weight, value)| weight * value).sum()
    };
    let loss = |weights: &[f64; N]| -> f64 {
        rows.iter()
            .map(|(row, target)| {
                let z = product(weights, row);
                softplus(z) - target * z
            })
            .sum()
    };
    let mut weights = [0.0; N];
    let mut best = loss(&weights);
    for _ in 0..MAX_STEPS {
        let (mut gradient, mut hessian) = ([0.0; N], [[0.0; N]; N]);
        for (row, target) in &rows {
            let p = sigmoid(product(&weights, row));
            for i in 0..N {
                gradient[i] += (p - target) * row[i];
                for j in 0..N {
                    hessian[i][j] += p * (1.0 - p) * row[i] * row[j];
                }
            }
        }
        if gradient.iter().all(|value| value.abs() <= TOLERANCE * rows.len() as f64) {
            break;
        }
        let step = solve(hessian, gradient)?;
        let mut size = 1.0;
        let next = loop {
            let next: [f64; N] = std::array::from_fn(|i| weights[i] - size * step[i]);
            let found = loss(&next);
            if found < best {
                best = found;
                break Some(next);
            }
            size /= 2.0;
            if size < 1e-10 {
                break None; // as close as f64 comes
            }
        };
        match next {
            Some(next) => weights = next,
            None => break,
        }
    }
    weights.iter().all(|weight| weight.is_finite()).then_some(weights)
}

/// Gauss elimination with pivots. `None` for a matrix that has no inverse, as far as f64 can tell.
fn solve<const N: usize>(mut matrix: [[f64; N]; N], mut right: [f64; N]) -> Option<[f64; N]> {
    let scale: f64 = matrix.iter().flatten().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    for column in 0..N {
        let pivot =
            (column..N).max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))?;
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        if matrix[column][column].abs().partial_cmp(&(scale * 1e-14)) != Some(std::cmp::Ordering::Greater) {
            return None;
        }
        for row in column + 1..N {
            let factor = matrix[row][column] / matrix[column][column];
            for k in column..N {
                matrix[row][k] -= factor * matrix[column][k];
            }
            right[row] -= factor * right[column];
        }
    }
    let mut solution = [0.0; N];
    for row in (0..N).rev() {
        let known: f64 = (row + 1..N).map(|k| matrix[row][k] * solution[k]).sum();
        solution[row] = (right[row] - known) / matrix[row][row];
    }
    Some(solution)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_zero_at_the_minimum() {
        let examples: Vec<Example> = (0..200)
            .map(|i| Example { logit: f64::from(i % 37) - 18.0, relevant: (i * 7 + i % 37) % 60 > 30 })
            .collect();
        let (yes, no) = targets(&examples);
        let [a, b] = fit(&examples, |z| [z, 1.0]).unwrap();
        let mut gradient = [0.0; 2];
        for e in &examples {
            let error = sigmoid(a * e.logit + b) - if e.relevant { yes } else { no };
            gradient[0] += error * e.logit;
            gradient[1] += error;
        }
        assert!(gradient.iter().all(|value| value.abs() < 1e-7), "{gradient:?}");
    }

    #[test]
    fn equations_are_solved() {
        assert_eq!(solve([[0.0, 2.0], [4.0, 1.0]], [2.0, 9.0]), Some([2.0, 1.0]));
        assert_eq!(solve([[1.0, 2.0], [2.0, 4.0]], [1.0, 2.0]), None);
    }
}
