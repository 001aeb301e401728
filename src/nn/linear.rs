use std::ops::Range;

use jointly_kernels::{Epilogue, Kernels, PackedMatrix, Precision};

use super::{Activation, Matrix};
use crate::error::Result;
use crate::weights::Scope;

/// `y = x · Wᵀ + b`, with the weight packed for the kernels when it is loaded.
#[derive(Debug)]
pub struct Linear {
    weight: PackedMatrix,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// `weight` `[out_features, in_features]` and `bias` `[out_features]` below `scope`.
    ///
    /// # Errors
    /// Those of [`Scope::values`].
    pub fn load(scope: &Scope<'_>, in_features: usize, out_features: usize) -> Result<Self> {
        let bias = Some(scope.values("bias", &[out_features])?);
        Ok(Self { weight: scope.packed("weight", out_features, in_features)?, bias })
    }

    /// `weight` `[out_features, in_features]` below `scope`, and `bias` if the checkpoint has one.
    ///
    /// # Errors
    /// Those of [`Scope::values`].
    pub fn load_optional_bias(scope: &Scope<'_>, in_features: usize, out_features: usize) -> Result<Self> {
        let bias = if scope.has("bias") { Some(scope.values("bias", &[out_features])?) } else { None };
        Ok(Self { weight: scope.packed("weight", out_features, in_features)?, bias })
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
        let weight = scope.values("weight", &[out_features, in_features])?;
        let weight = &weight[rows.start * in_features..rows.end * in_features];
        let bias = match scope.has("bias") {
            true => Some(scope.values("bias", &[out_features])?[rows.clone()].to_vec()),
            false => None,
        };
        Ok(Self { weight: scope.pack(weight, rows.len(), in_features), bias })
    }

    /// Several layers over the same input as one, their outputs side by side: query, key and value for example.
    /// A part without a bias has zeros.
    ///
    /// # Errors
    /// Those of [`Scope::values`].
    pub fn load_together(scope: &Scope<'_>, in_features: usize, parts: &[(&str, usize)]) -> Result<Self> {
        let weights: Vec<(String, usize)> =
            parts.iter().map(|(name, out_features)| (format!("{name}.weight"), *out_features)).collect();
        let weight = scope.packed_together(&weights, in_features)?;
        let mut bias = Vec::new();
        let mut any_bias = false;
        for (name, out_features) in parts {
            let name = format!("{name}.bias");
            if scope.has(&name) {
                bias.extend(scope.values(&name, &[*out_features])?);
                any_bias = true;
            } else {
                bias.resize(bias.len() + out_features, 0.0);
            }
        }
        Ok(Self { weight, bias: any_bias.then_some(bias) })
    }

    /// A layer made of values at hand, in f32: `weight` is `[bias or rows, in_features]`.
    #[must_use]
    pub fn from_rows(kernels: &Kernels, weight: &Matrix, bias: Option<Vec<f32>>) -> Self {
        Self { weight: kernels.packed(weight.view(), Precision::F32), bias }
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
        let mut output = Matrix::reused(input.rows, self.weight.n());
        let then =
            Epilogue { bias: self.bias.as_deref(), map: activation.map(), add: residual.map(Matrix::view) };
        kernels.matmul(input.view(), &self.weight, then, output.view_mut());
        output
    }
}
