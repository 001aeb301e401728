use jointly_cuda::{Format, Tensor};
use jointly_kernels::{Kernels, ViewMut};

use super::{Matrix, device};
use crate::error::Result;
use crate::weights::Scope;

/// Layer normalisation over the features of each row. Source: arXiv 1607.06450.
#[derive(Debug)]
pub struct LayerNorm {
    gamma: Vec<f32>,
    beta: Option<Vec<f32>>,
    eps: f32,
    on_device: Option<OnDevice>,
}

/// Root-mean-square normalisation over the features of each row. Source: arXiv 1910.07467.
#[derive(Debug)]
pub struct RmsNorm {
    gamma: Vec<f32>,
    eps: f32,
    on_device: Option<OnDevice>,
}

/// The parameters on a device, and the format that the layers behind it multiply in.
#[derive(Debug)]
struct OnDevice {
    gamma: Tensor,
    beta: Option<Tensor>,
    format: Format,
}

impl OnDevice {
    fn load(scope: &Scope<'_>, gamma: &[f32], beta: Option<&[f32]>) -> Result<Option<Self>> {
        let form = scope.form();
        let Some(device) = &form.device else { return Ok(None) };
        Ok(Some(Self {
            gamma: device::load_values(device, gamma)?,
            beta: beta.map(|beta| device::load_values(device, beta)).transpose()?,
            format: device::format(form.precision),
        }))
    }

    fn of(&self, x: &Matrix, options: (f32, bool)) -> Matrix {
        let x = x.tensor_on(self.gamma.device());
        Matrix::of_tensor(x.norm(&self.gamma, self.beta.as_ref(), options, self.format))
    }

    fn forward(&self, x: &mut Matrix, options: (f32, bool)) {
        let mut tensor = x.tensor_on(self.gamma.device());
        tensor.normalise(&self.gamma, self.beta.as_ref(), options, self.format);
        *x = Matrix::of_tensor(tensor);
    }
}

/// The same values, to change.
fn copy(x: &Matrix) -> Matrix {
    let mut copy = Matrix::reused(x.rows, x.cols);
    copy.data.copy_from_slice(&x.data);
    copy
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
        let gamma = scope.values("weight", &[features])?;
        let on_device = OnDevice::load(scope, &gamma, beta.as_deref())?;
        Ok(Self { gamma, beta, eps, on_device })
    }

    /// In place; `x` is `[rows, features]`.
    pub fn forward(&self, kernels: &Kernels, x: &mut Matrix) {
        match &self.on_device {
            Some(parameters) => parameters.forward(x, (self.eps, false)),
            None => kernels.layer_norm(x.view_mut(), &self.gamma, self.beta.as_deref(), self.eps),
        }
    }

    /// Of `x`, `[rows, features]`, which is kept.
    #[must_use]
    pub fn of(&self, kernels: &Kernels, x: &Matrix) -> Matrix {
        if let Some(parameters) = &self.on_device {
            return parameters.of(x, (self.eps, false));
        }
        let mut normed = copy(x);
        self.forward(kernels, &mut normed);
        normed
    }
}

impl RmsNorm {
    /// `weight` `[features]`.
    ///
    /// # Errors
    /// Those of [`Scope::values`].
    pub fn load(scope: &Scope<'_>, features: usize, eps: f32) -> Result<Self> {
        let gamma = scope.values("weight", &[features])?;
        let on_device = OnDevice::load(scope, &gamma, None)?;
        Ok(Self { gamma, eps, on_device })
    }

    /// In place; `x` is `[rows, features]`.
    pub fn forward(&self, kernels: &Kernels, x: &mut Matrix) {
        match &self.on_device {
            Some(parameters) => parameters.forward(x, (self.eps, true)),
            None => self.runs(kernels, &mut x.data),
        }
    }

    /// Of `x`, `[rows, features]`, which is kept.
    #[must_use]
    pub fn of(&self, kernels: &Kernels, x: &Matrix) -> Matrix {
        if let Some(parameters) = &self.on_device {
            return parameters.of(x, (self.eps, true));
        }
        let mut normed = copy(x);
        self.runs(kernels, &mut normed.data);
        normed
    }

    /// In place, on runs of `features` values: the heads of a query or key.
    pub(super) fn runs(&self, kernels: &Kernels, x: &mut [f32]) {
        let features = self.gamma.len();
        let rows = x.len() / features;
        kernels.rms_norm(ViewMut::new(x, rows, features), &self.gamma, self.eps);
    }

    /// The parameters on the device, and epsilon.
    pub(super) fn on_device(&self) -> Option<(&Tensor, f32)> {
        self.on_device.as_ref().map(|parameters| (&parameters.gamma, self.eps))
    }
}
