use std::sync::{Arc, Mutex, PoisonError};

use jointly_cuda::Tensor;
use jointly_kernels::Kernels;

use super::{Matrix, OnDevice, RmsNorm};

/// Rotary position embedding, in the form that rotates the two halves of a head against each other. Source: arXiv
/// 2104.09864, section 3.4; the pairing of dimension `i` with `i + head_dim / 2` is that of GPT-NeoX.
#[derive(Debug)]
pub struct Rotary {
    /// Radians per position, `[head_dim / 2]`.
    frequencies: Vec<f32>,
    /// The angles of as many positions as a device was asked for so far.
    on_device: Mutex<Option<Arc<[Tensor; 2]>>>,
}

/// Places of tokens within their pairs.
#[derive(Debug)]
pub struct Positions {
    places: Vec<usize>,
    on_device: Option<Tensor>,
}

impl Positions {
    pub(super) fn new(places: Vec<usize>, device: Option<&OnDevice>) -> Self {
        let on_device = device.map(|device| {
            let places: Vec<u32> = places.iter().map(|place| *place as u32).collect();
            device.device().indices(&places)
        });
        Self { places, on_device }
    }

    /// One more than the largest.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.places.iter().max().map_or(0, |last| last + 1)
    }
}

impl Rotary {
    /// Frequencies `theta^(-2i / head_dim)`, `head_dim` even.
    #[must_use]
    pub fn new(head_dim: usize, theta: f64) -> Self {
        // Transformers computes these in f32; the powers of f64 rounded once are within half a unit of them.
        let frequencies =
            (0..head_dim / 2).map(|i| (1.0 / theta.powf((2 * i) as f64 / head_dim as f64)) as f32).collect();
        Self { frequencies, on_device: Mutex::default() }
    }

    /// What [`Angles::apply`] needs for tokens at these positions or before.
    #[must_use]
    pub fn angles(&self, positions: &Positions) -> Angles {
        let half = self.frequencies.len();
        match &positions.on_device {
            None => {
                let (cos, sin) = self.table(positions.longest());
                Angles { cos, sin, half, on_device: None }
            }
            Some(places) => {
                let mut known = self.on_device.lock().unwrap_or_else(PoisonError::into_inner);
                let longest = positions.longest();
                let tables = match known.as_ref().filter(|tables| tables[0].rows() >= longest) {
                    Some(tables) => Arc::clone(tables),
                    None => {
                        let rows = longest.next_power_of_two();
                        let (cos, sin) = self.table(rows);
                        let tables = [cos, sin].map(|table| places.device().upload([rows, half], &table));
                        let tables = Arc::new(tables);
                        // Without memory for them this batch is not computed, and the next one tries again.
                        if tables.iter().all(Tensor::is_there) {
                            *known = Some(Arc::clone(&tables));
                        }
                        tables
                    }
                };
                Angles { cos: Vec::new(), sin: Vec::new(), half, on_device: Some(tables) }
            }
        }
    }

    /// Cosines and sines for positions `0..positions`, each `[positions, head_dim / 2]`.
    fn table(&self, positions: usize) -> (Vec<f32>, Vec<f32>) {
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
        (cos, sin)
    }
}

/// Cosines and sines by position.
#[derive(Debug)]
pub struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
    on_device: Option<Arc<[Tensor; 2]>>,
}

impl Angles {
    /// Rotates the first `heads` heads of every row of `x`, in place, each after its `norm` if there is one. `positions` has
    /// one for each row.
    pub fn apply(
        &self,
        kernels: &Kernels,
        x: &mut Matrix,
        (heads, norm): (usize, Option<&RmsNorm>),
        positions: &Positions,
    ) {
        if let (Some(x), Some([cos, sin]), Some(places)) =
            (&mut x.device, self.on_device.as_deref(), &positions.on_device)
        {
            return x.rotate(heads, norm.and_then(RmsNorm::on_device), (cos, sin), places);
        }
        let width = heads * 2 * self.half;
        if let Some(norm) = norm {
            match x.cols == width {
                true => norm.runs(kernels, &mut x.data),
                false => (0..x.rows).for_each(|row| norm.runs(kernels, &mut x.row_mut(row)[..width])),
            }
        }
        for (row, &position) in positions.places.iter().enumerate() {
            let cos = &self.cos[position * self.half..][..self.half];
            let sin = &self.sin[position * self.half..][..self.half];
            for head in x.row_mut(row)[..width].chunks_exact_mut(2 * self.half) {
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
