use super::Matrix;

/// Rotary position embedding, in the form that rotates the two halves of a head against each other. Source: arXiv
/// 2104.09864, section 3.4; the pairing of dimension `i` with `i + head_dim / 2` is that of GPT-NeoX.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// Radians per position, `[head_dim / 2]`.
    frequencies: Vec<f32>,
}

impl Rotary {
    /// Frequencies `theta^(-2i / head_dim)`, `head_dim` even.
    #[must_use]
    pub fn new(head_dim: usize, theta: f64) -> Self {
        // Transformers computes these in f32; the powers of f64 rounded once are within half a unit of them.
        let frequencies =
            (0..head_dim / 2).map(|i| (1.0 / theta.powf((2 * i) as f64 / head_dim as f64)) as f32).collect();
        Self { frequencies }
    }

    /// Cosines and sines for positions `0..positions`, each `[positions, head_dim / 2]`.
    #[must_use]
    pub fn angles(&self, positions: usize) -> Angles {
        let half = self.frequencies.len();
        let mut cos = Vec::with_capacity(positions * half);
        let mut sin = Vec::with_capacity(positions * half);
        for position in 0..positions {
            for frequency in &self.frequencies {
                // The product is rounded to f32 as the published models do; its sine and cosine are then exact.
                let angle = f64::from(position as f32 * frequency);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        Angles { cos, sin, half }
    }
}

/// Cosines and sines by position.
#[derive(Debug)]
pub struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Angles {
    /// Rotates `heads` heads of every row of `x`, in place, beginning at column `column`. `positions` is `[rows]`.
    pub fn apply(&self, x: &mut Matrix, column: usize, heads: usize, positions: &[usize]) {
        for (row, &position) in positions.iter().enumerate() {
            let cos = &self.cos[position * self.half..][..self.half];
            let sin = &self.sin[position * self.half..][..self.half];
            let heads = &mut x.row_mut(row)[column..column + heads * 2 * self.half];
            for head in heads.chunks_exact_mut(2 * self.half) {
                let (first, second) = head.split_at_mut(self.half);
                for i in 0..self.half {
                    let (a, b) = (first[i], second[i]);
                    first[i] = a * cos[i] - b * sin[i];
                    second[i] = b * cos[i] + a * sin[i];
                }
            }
        }
    }
}
