/// The matrix of a weighted graph: `ridge` on the diagonal, and for each edge its weight times (1, -1; -1, 1).
pub(crate) struct Laplacian {
    nodes: usize,
    ridge: f64,
    edges: Vec<(u32, u32, f64)>,
    diagonal: Vec<f64>,
}

/// Up to so many nodes variances come from a dense factor (8 MiB); beyond, from a solution for each node.
const DENSE: usize = 1024;
/// Of the residual, relative to the right side.
const TOLERANCE: f64 = 1e-11;

impl Laplacian {
    /// Edges between the same nodes are added up if they follow one another.
    pub(crate) fn new(nodes: usize, ridge: f64, edges: impl IntoIterator<Item = (u32, u32, f64)>) -> Self {
        let mut merged: Vec<(u32, u32, f64)> = Vec::new();
        let mut diagonal = vec![ridge; nodes];
        for (a, b, weight) in edges {
            diagonal[a as usize] += weight;
            diagonal[b as usize] += weight;
            match merged.last_mut() {
                Some((last_a, last_b, sum)) if (*last_a, *last_b) == (a, b) => *sum += weight,
                _ => merged.push((a, b, weight)),
            }
        }
        Self { nodes, ridge, edges: merged, diagonal }
    }

    fn times(&self, x: &[f64], out: &mut [f64]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = self.ridge * x;
        }
        for &(a, b, weight) in &self.edges {
            let flow = weight * (x[a as usize] - x[b as usize]);
            out[a as usize] += flow;
            out[b as usize] -= flow;
        }
    }

    /// The solution for a right side whose sum over each connected part is 0; so is the solution's, and it is the only one even
    /// without a ridge. By conjugate gradients, with the diagonal as preconditioner.
    pub(crate) fn solve(&self, right: &[f64]) -> Vec<f64> {
        let mut x = vec![0.0; self.nodes];
        let mut residual = right.to_vec();
        let precondition = |residual: &[f64], z: &mut Vec<f64>| {
            z.clear();
            // A node without edges and ridge has a right side of 0.
            z.extend(residual.iter().zip(&self.diagonal).map(|(r, d)| if *d > 0.0 { r / d } else { 0.0 }));
        };
        let mut z = Vec::new();
        precondition(&residual, &mut z);
        let mut direction = z.clone();
        let mut product = vec![0.0; self.nodes];
        let mut energy = dot(&residual, &z);
        let enough = energy * TOLERANCE * TOLERANCE;
        // In exact arithmetic as many steps as nodes.
        for _ in 0..2 * self.nodes + 20 {
            if energy <= enough {
                break;
            }
            self.times(&direction, &mut product);
            let bend = dot(&direction, &product);
            if bend <= 0.0 {
                break; // rounding is all that is left
            }
            let step = energy / bend;
            for i in 0..self.nodes {
                x[i] += step * direction[i];
                residual[i] -= step * product[i];
            }
            precondition(&residual, &mut z);
            let next = dot(&residual, &z);
            for i in 0..self.nodes {
                direction[i] = z[i] + next / energy * direction[i];
            }
            energy = next;
        }
        if self.ridge == 0.0 {
            let mean = x.iter().sum::<f64>() / self.nodes.max(1) as f64;
            x.iter_mut().for_each(|x| *x -= mean);
        }
        x
    }

    /// For each node, the variance of its value less the mean of all, if this is the inverse of their covariance: the diagonal of
    /// the inverse without the part along (1, ..., 1). Without a ridge the graph must be connected.
    pub(crate) fn centred_variances(&self) -> Vec<f64> {
        let n = self.nodes;
        if n <= DENSE {
            return self.dense_variances();
        }
        let mut right = vec![-1.0 / n as f64; n];
        (0..n)
            .map(|node| {
                right[node] += 1.0;
                let variance = self.solve(&right)[node];
                right[node] -= 1.0;
                variance
            })
            .collect()
    }

    /// `lift` along (1, ..., 1) makes the matrix regular without a ridge, and is taken off the inverse again; of the size of the
    /// diagonal, so that little is lost. The inverse's diagonal is the squares of the columns of the inverse of Cholesky's factor.
    fn dense_variances(&self) -> Vec<f64> {
        let n = self.nodes;
        let lift = self.diagonal.iter().sum::<f64>() / n.max(1) as f64;
        let mut lower = vec![lift / n as f64; n * n];
        for (i, value) in self.diagonal.iter().enumerate() {
            lower[i * n + i] += value;
        }
        for &(a, b, weight) in &self.edges {
            let (a, b) = (a as usize, b as usize);
            lower[a * n + b] -= weight;
            lower[b * n + a] -= weight;
        }
        for i in 0..n {
            let (before, rest) = lower.split_at_mut(i * n);
            let row = &mut rest[..n];
            for j in 0..i {
                let other = &before[j * n..j * n + n];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
            row[i] = (row[i] - dot(&row[..i], &row[..i])).max(f64::MIN_POSITIVE).sqrt();
        }
        // Row i of the inverse, from the rows above it.
        let mut variances = vec![0.0; n];
        let mut inverse = vec![0.0; n * n];
        for i in 0..n {
            let (before, rest) = inverse.split_at_mut(i * n);
            let row = &mut rest[..n];
            for k in 0..i {
                let factor = lower[i * n + k];
                for (value, above) in row[..=k].iter_mut().zip(&before[k * n..=k * n + k]) {
                    *value -= factor * above;
                }
            }
            row[i] = 1.0;
            let scale = 1.0 / lower[i * n + i];
            for (value, variance) in row[..=i].iter_mut().zip(&mut variances) {
                *value *= scale;
                *variance += *value * *value;
            }
        }
        let along_ones = 1.0 / (n as f64 * (self.ridge + lift));
        variances.iter().map(|variance| (variance - along_ones).max(0.0)).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Four sums, which the compiler can compute side by side.
    let mut sums = [0.0; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest: f64 = a4.remainder().iter().zip(b4.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a4.zip(b4) {
        for i in 0..4 {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::zelo::sample::cycles;

    fn random(nodes: usize, ridge: f64) -> Laplacian {
        let mut rng = Random::new(nodes as u64);
        let edges = cycles(nodes, 3, 7).into_iter();
        Laplacian::new(nodes, ridge, edges.map(|(a, b)| (a as u32, b as u32, 0.1 + rng.uniform())))
    }

    #[test]
    fn a_solution_solves() {
        for (nodes, ridge) in [(2, 0.0), (3, 0.5), (57, 0.0), (300, 1e-3)] {
            let laplacian = random(nodes, ridge);
            let mut right: Vec<f64> = (0..nodes).map(|i| (i as f64).sin()).collect();
            let mean = right.iter().sum::<f64>() / nodes as f64;
            right.iter_mut().for_each(|value| *value -= mean);
            let x = laplacian.solve(&right);
            let mut product = vec![0.0; nodes];
            laplacian.times(&x, &mut product);
            assert!(product.iter().zip(&right).all(|(a, b)| (a - b).abs() < 1e-8), "{nodes} {ridge}");
            assert!(x.iter().sum::<f64>().abs() < 1e-7, "{nodes} {ridge}");
        }
    }

    #[test]
    fn both_ways_to_variances_agree() {
        for ridge in [0.0, 0.05] {
            let laplacian = random(60, ridge);
            let dense = laplacian.dense_variances();
            for node in 0..60 {
                let mut right = vec![-1.0 / 60.0; 60];
                right[node] += 1.0;
                let solved = laplacian.solve(&right)[node];
                assert!((dense[node] - solved).abs() < 1e-8 * solved, "{node}: {} {solved}", dense[node]);
            }
        }
    }

    #[test]
    fn variances_of_two_nodes_by_hand() {
        // One edge of weight w: the difference has variance 1 / w, each node less their mean a quarter of it.
        let found = Laplacian::new(2, 0.0, [(0, 1, 5.0)]).centred_variances();
        assert!(found.iter().all(|variance| (variance - 0.05).abs() < 1e-12), "{found:?}");
        // More nodes than the dense way takes: a star, whose leaves have the variance 1 / w to the centre.
        let count = DENSE + 1;
        let star = Laplacian::new(count, 0.0, (1..count as u32).map(|leaf| (0, leaf, 2.0)));
        let (found, n) = (star.centred_variances(), count as f64);
        // With x₀ = 0: variance of x_i - mean = (1/w) ((1 - 1/n)² + (n - 2) / n²); of the centre, (n - 1) / n² / w.
        let leaf = 0.5 * ((1.0 - 1.0 / n).powi(2) + (n - 2.0) / (n * n));
        assert!((found[5] - leaf).abs() < 1e-9 && (found[0] - 0.5 * (n - 1.0) / (n * n)).abs() < 1e-9);
    }
}
