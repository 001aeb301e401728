use jointly_kernels::{Kernels, Map};

use super::Matrix;

/// An activation function, by the names that `config.json` and module folders use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// None.
    Identity,
    /// `x · Φ(x)`, through the error function.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// `x · sigmoid(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
}

impl Activation {
    /// From a name of Transformers (`gelu`) or a class of PyTorch (`torch.nn.modules.activation.GELU`).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.rsplit('.').next().unwrap_or(name) {
            "Identity" | "linear" => Self::Identity,
            "gelu" | "GELU" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Self::GeluTanh,
            "silu" | "swish" | "SiLU" => Self::Silu,
            "relu" | "ReLU" => Self::Relu,
            "tanh" | "Tanh" => Self::Tanh,
            "sigmoid" | "Sigmoid" => Self::Sigmoid,
            _ => return None,
        })
    }

    /// In place.
    pub fn apply(self, kernels: &Kernels, x: &mut [f32]) {
        kernels.map(self.map(), x);
    }

    /// The kernel.
    #[must_use]
    pub fn map(self) -> Map {
        match self {
            Self::Identity => Map::Identity,
            Self::Gelu => Map::GeluErf,
            Self::GeluTanh => Map::GeluTanh,
            Self::Silu => Map::Silu,
            Self::Relu => Map::Relu,
            Self::Tanh => Map::Tanh,
            Self::Sigmoid => Map::Sigmoid,
        }
    }
}

/// The gated unit of GEGLU and SwiGLU: `x` is `[rows, 2 · features]`, input and gate side by side; the result is
/// `activation(input) · gate`, `[rows, features]`. Source: arXiv 2002.05202.
#[must_use]
pub fn gated(kernels: &Kernels, x: &Matrix, activation: Activation) -> Matrix {
    if let Some(x) = &x.device {
        return Matrix::of_tensor(x.gated(activation.on_device()));
    }
    let features = x.cols / 2;
    let mut output = Matrix::reused(x.rows, features);
    let mut gate = Vec::with_capacity(x.rows * features);
    for row in 0..x.rows {
        let (input, row_gate) = x.row(row).split_at(features);
        output.row_mut(row).copy_from_slice(input);
        gate.extend_from_slice(row_gate);
    }
    activation.apply(kernels, &mut output.data);
    kernels.mul(&mut output.data, &gate);
    output
}
