use std::ops::Range;
use std::sync::Arc;

use jointly_kernels::{Epilogue, Kernels, PackedMatrix, Precision, View};

use super::{Activation, Inputs, Matrix, Observation, Smoothing};
use crate::error::Result;
use crate::weights::{Form, Packed, Scope};

/// `y = x · Wᵀ + b`, with the weight packed for the kernels when it is loaded.
#[derive(Debug)]
pub struct Linear {
    weight: PackedMatrix,
    bias: Option<Vec<f32>>,
    /// Where the inputs are recorded, while a model is observed.
    record: Option<(Arc<Inputs>, String)>,
}

impl Linear {
    /// `weight` `[out_features, in_features]` and `bias` `[out_features]` below `scope`.
    ///
    /// # Errors
    /// Those of [`Scope::values`].
    pub fn load(scope: &Scope<'_>, in_features: usize, out_features: usize) -> Result<Self> {
        let rows = 0..out_features;
        Self::prepare(scope, "weight", in_features, rows, || {
            let bias = Some(scope.values("bias", &[out_features])?);
            Ok((scope.values("weight", &[out_features, in_features])?, bias))
        })
    }

    /// `weight` `[out_features, in_features]` below `scope`, and `bias` if the checkpoint has one.
    ///
    /// # Errors
    /// Those of [`Scope::values`].
    pub fn load_optional_bias(scope: &Scope<'_>, in_features: usize, out_features: usize) -> Result<Self> {
        Self::load_rows(scope, in_features, out_features, 0..out_features)
    }

    /// Outputs `rows` of a layer of `out_features`: one of several that a checkpoint keeps in one matrix.
    ///
    /// # Errors
    /// Those of [`Scope::values`].
    pub fn load_rows(
        scope: &Scope<'_>,
        in_features: usize,
        out_features: usize,
        rows: Range<usize>,
    ) -> Result<Self> {
        Self::prepare(scope, "weight", in_features, rows.clone(), || {
            let mut weight = scope.values("weight", &[out_features, in_features])?;
            weight.truncate(rows.end * in_features);
            weight.drain(..rows.start * in_features);
            let bias = match scope.has("bias") {
                true => Some(scope.values("bias", &[out_features])?[rows].to_vec()),
                false => None,
            };
            Ok((weight, bias))
        })
    }

    /// Several layers over the same input as one, their outputs side by side: query, key and value for example.
    /// A part without a bias has zeros.
    ///
    /// # Errors
    /// Those of [`Scope::values`].
    pub fn load_together(scope: &Scope<'_>, in_features: usize, parts: &[(&str, usize)]) -> Result<Self> {
        let first = parts.first().map_or("", |(name, _)| name);
        let rows = 0..parts.iter().map(|(_, out_features)| out_features).sum();
        Self::prepare(scope, &format!("{first}.weight"), in_features, rows, || {
            let (mut weight, mut bias) = (Vec::new(), Vec::new());
            let mut any_bias = false;
            for (name, out_features) in parts {
                weight.extend(scope.values(&format!("{name}.weight"), &[*out_features, in_features])?);
                let name = format!("{name}.bias");
                if scope.has(&name) {
                    bias.extend(scope.values(&name, &[*out_features])?);
                    any_bias = true;
                } else {
                    bias.resize(bias.len() + out_features, 0.0);
                }
            }
            Ok((weight, any_bias.then_some(bias)))
        })
    }

    /// What `read` gives, a weight `[rows, in_features]` and a bias, in the form of `scope`. Layers that share an input may
    /// share a `name`, with other `rows`. If the weight is at hand as it is to be, nothing is read.
    fn prepare(
        scope: &Scope<'_>,
        name: &str,
        in_features: usize,
        rows: Range<usize>,
        read: impl FnOnce() -> Result<(Vec<f32>, Option<Vec<f32>>)>,
    ) -> Result<Self> {
        let (name, out_features) = (scope.full(name), rows.len());
        let Form { precision, observation, packed } = scope.form();
        let part = format!("{name}[{}..{}]", rows.start, rows.end);
        if let Packed::Mapped(file) = packed {
            let (weight, bias) = file.layer(&part, [out_features, in_features])?;
            return Ok(Self { weight, bias, record: None });
        }
        let (mut weight, mut bias) = read()?;
        let seen = match observation {
            Observation::Use(inputs) if *precision == Precision::Int8 => inputs.of(&name),
            _ => None,
        };
        let smoothing = seen.map(|seen| {
            let bias = bias.get_or_insert_with(|| vec![0.0; out_features]);
            seen.smooth(&mut weight, bias)
        });
        let view = View::new(&weight, out_features, in_features);
        let mut weight = scope.kernels().packed(view, *precision);
        if let Some(Smoothing { factor, offset }) = smoothing {
            weight = weight.smoothed(factor, offset);
        }
        if let Packed::Write(writer) = packed {
            writer.layer(&part, &weight, bias.as_deref());
        }
        let record = match observation {
            Observation::Record(inputs) => Some((inputs.clone(), name)),
            _ => None,
        };
        Ok(Self { weight, bias, record })
    }

    /// A layer made of values at hand, in f32: `weight` is `[bias or rows, in_features]`.
    #[must_use]
    pub fn from_rows(kernels: &Kernels, weight: &Matrix, bias: Option<Vec<f32>>) -> Self {
        Self { weight: kernels.packed(weight.view(), Precision::F32), bias, record: None }
    }

    /// The number of outputs.
    #[must_use]
    pub fn out_features(&self) -> usize {
        self.weight.n()
    }

    /// `[rows, in_features]` to `[rows, out_features]`.
    #[must_use]
    pub fn forward(&self, kernels: &Kernels, input: &Matrix) -> Matrix {
        self.forward_then(kernels, input, Activation::Identity, None)
    }

    /// `activation(x · Wᵀ + b) + residual`; `residual` is `[rows, out_features]`.
    #[must_use]
    pub fn forward_then(
        &self,
        kernels: &Kernels,
        input: &Matrix,
        activation: Activation,
        residual: Option<&Matrix>,
    ) -> Matrix {
        if let Some((inputs, name)) = &self.record {
            inputs.record(name, input);
        }
        let mut output = Matrix::reused(input.rows, self.weight.n());
        let then =
            Epilogue { bias: self.bias.as_deref(), map: activation.map(), add: residual.map(Matrix::view) };
        kernels.matmul(input.view(), &self.weight, then, output.view_mut());
        output
    }
}
