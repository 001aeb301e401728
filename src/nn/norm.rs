use jointly_kernels::Kernels;

use super::Matrix;
use crate::error::Result;
use crate::weights::Scope;

/// Layer normalisation over the features of each row. Source: arXiv 1607.06450.
#[derive(Debug)]
pub struct LayerNorm {
    gamma: Vec<f32>,
    beta: Option<Vec<f32>>,
    eps: f32,
}

impl LayerNorm {
    /// `weight` `[features]`, and `bias` `[features]` if the checkpoint has one.
    ///
    /// # Errors
    /// Those of [`Scope::values`].
    pub fn load(scope: &Scope<'_>, features: usize, eps: f32) -> Result<Self> {
        let beta = if scope.has("bias") || scope.has("beta") {
            Some(scope.values("bias", &[features])?)
        } else {
            None
        };
        Ok(Self { gamma: scope.values("weight", &[features])?, beta, eps })
    }

    /// In place; `x` is `[rows, features]`.
    pub fn forward(&self, kernels: &Kernels, x: &mut Matrix) {
        kernels.layer_norm(x.view_mut(), &self.gamma, self.beta.as_deref(), self.eps);
    }
}

/// Root-mean-square normalisation over the features of each row. Source: arXiv 1910.07467.
#[derive(Debug)]
pub struct RmsNorm {
    gamma: Vec<f32>,
    eps: f32,
}

impl RmsNorm {
    /// `weight` `[features]`.
    ///
    /// # Errors
    /// Those of [`Scope::values`].
    pub fn load(scope: &Scope<'_>, features: usize, eps: f32) -> Result<Self> {
        Ok(Self { gamma: scope.values("weight", &[features])?, eps })
    }

    /// In place; `x` is `[rows, features]`, or any matrix whose rows are made of runs of `features` values (the
    /// heads of a query or key).
    pub fn forward(&self, kernels: &Kernels, x: &mut [f32]) {
        let features = self.gamma.len();
        let rows = x.len() / features;
        kernels.rms_norm(jointly_kernels::ViewMut::new(x, rows, features), &self.gamma, self.eps);
    }
}
