//! AdamW, its schedule, and clipping.

use crate::parameters::{Gradients, Parameters};
use crate::simd;

/// AdamW's constants. Source: arXiv 1711.05101, algorithm 2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// How slowly the mean of gradients moves.
    pub beta1: f32,
    /// How slowly the mean of their squares moves.
    pub beta2: f32,
    /// Added to the root of the latter.
    pub eps: f32,
    /// What a matrix loses in each step, times the learning rate.
    pub weight_decay: f32,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

/// Its state: for each parameter two running means.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Of the gradients.
    pub first: Vec<Vec<f32>>,
    /// Of their squares.
    pub second: Vec<Vec<f32>>,
}

impl Moments {
    /// Those before the first step.
    #[must_use]
    pub fn new(parameters: &Parameters) -> Self {
        let zeros = || parameters.gradients().iter().map(<[f32]>::to_vec).collect::<Vec<_>>();
        Self { first: zeros(), second: zeros() }
    }
}

impl AdamW {
    /// Step `step`, counted from 1. `rate` is the learning rate; parameters that began with random values take `fresh` times as much.
    /// The result does not depend on the number of threads.
    pub fn step(
        &self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        moments: &mut Moments,
        (step, rate, fresh): (usize, f64, f64),
        threads: usize,
    ) {
        const CHUNK: usize = 1 << 16;
        let correction = |beta: f32| 1.0 - f64::from(beta).powi(step.min(1 << 30) as i32);
        // Work by chunks of parameters, so that a large table is shared among threads.
        let mut work = Vec::new();
        let tensors =
            parameters.iter_mut().zip(gradients.iter()).zip(&mut moments.first).zip(&mut moments.second);
        for (((parameter, gradient), first), second) in tensors {
            if parameter.frozen {
                continue;
            }
            let rate = rate * if parameter.fresh { fresh } else { 1.0 };
            let keep = if parameter.decays { 1.0 - rate * f64::from(self.weight_decay) } else { 1.0 };
            let size = rate / correction(self.beta1);
            let chunks = parameter
                .value
                .chunks_mut(CHUNK)
                .zip(gradient.chunks(CHUNK))
                .zip(first.chunks_mut(CHUNK))
                .zip(second.chunks_mut(CHUNK));
            work.extend(chunks.map(|chunk| (chunk, keep as f32, size as f32)));
        }
        let root = (1.0 / correction(self.beta2)) as f32;
        let each = work.len().div_ceil(threads.max(1)).max(1);
        let constants = *self;
        std::thread::scope(|scope| {
            for part in work.chunks_mut(each) {
                scope.spawn(move || {
                    for ((((value, gradient), first), second), keep, size) in part {
                        constants.update((value, gradient, first, second), (*keep, *size, root));
                    }
                });
            }
        });
    }

    fn update(
        &self,
        (value, gradient, first, second): (&mut [f32], &[f32], &mut [f32], &mut [f32]),
        (keep, size, root): (f32, f32, f32),
    ) {
        let Self { beta1, beta2, eps, .. } = *self;
        simd::on(
            #[inline(always)]
            || {
                let n = value.len();
                let (gradient, first, second) = (&gradient[..n], &mut first[..n], &mut second[..n]);
                for i in 0..n {
                    let g = gradient[i];
                    first[i] = beta1 * first[i] + (1.0 - beta1) * g;
                    second[i] = beta2 * second[i] + (1.0 - beta2) * g * g;
                    value[i] = keep * value[i] - size * first[i] / ((second[i] * root).sqrt() + eps);
                }
            },
        );
    }
}

/// How the learning rate changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// The peak, from the end of the warm-up.
    Constant,
    /// Down to zero in a straight line.
    Linear,
    /// Down to zero along half a cosine.
    Cosine,
}

impl Schedule {
    /// The share of the peak at `step`, counted from 0, of `steps`, of which the first `warmup` rise in a straight line.
    #[must_use]
    pub fn at(self, step: usize, warmup: usize, steps: usize) -> f64 {
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let done = (step - warmup) as f64 / (steps.saturating_sub(warmup)).max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Linear => (1.0 - done).max(0.0),
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Parameter;

    #[test]
    fn a_step_is_that_of_the_paper() {
        let mut parameters = Parameters::default();
        let parameter = |decays| Parameter {
            name: String::new(),
            shape: vec![1, 1],
            value: vec![2.0],
            decays,
            frozen: false,
            fresh: false,
        };
        let ids = [true, false].map(|decays| parameters.add(parameter(decays)));
        let mut moments = Moments::new(&parameters);
        let adam = AdamW { weight_decay: 0.5, ..AdamW::default() };
        let (mut x, mut m, mut v) = ([2.0_f64; 2], [0.0; 2], [0.0; 2]);
        for step in 1..6 {
            let g = [0.3 * step as f32, -0.7];
            let mut gradients = parameters.gradients();
            for (id, g) in ids.iter().zip(g) {
                if let Some(gradient) = gradients.get_mut(*id) {
                    gradient[0] = g;
                }
            }
            adam.step(&mut parameters, &gradients, &mut moments, (step, 0.1, 1.0), 2);
            for i in 0..2 {
                let g = f64::from(g[i]);
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let (m, v) =
                    (m[i] / (1.0 - 0.9_f64.powi(step as i32)), v[i] / (1.0 - 0.999_f64.powi(step as i32)));
                x[i] -= 0.1 * (m / (v.sqrt() + 1e-8) + if i == 0 { 0.5 * x[i] } else { 0.0 });
                assert!((x[i] - f64::from(parameters.get(ids[i]).value[0])).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn schedules_begin_and_end_where_they_should() {
        for schedule in [Schedule::Constant, Schedule::Linear, Schedule::Cosine] {
            assert_eq!(schedule.at(0, 10, 100), 0.1);
            assert_eq!(schedule.at(9, 10, 100), 1.0);
            assert_eq!(schedule.at(10, 10, 100), 1.0);
            let last = schedule.at(100, 10, 100);
            assert!(if schedule == Schedule::Constant { last == 1.0 } else { last.abs() < 1e-9 });
        }
    }
}
