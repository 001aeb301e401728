use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use jointly_cuda::Device;
use jointly_kernels::{Epilogue, Kernels, PackedMatrix, Precision, View};

use super::{Activation, Inputs, Matrix, Observation, Smoothing, device};
use crate::error::Result;
use crate::weights::{Form, Packed, Scope};

/// `y = x · Wᵀ + b`, with the weight packed for the kernels, or on its device, when it is loaded.
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
    /// Where the inputs are recorded, while a model is observed.
    record: Option<(Arc<Inputs>, String)>,
}

#[derive(Debug)]
enum Weight {
    Host { weight: PackedMatrix, bias: Option<Vec<f32>> },
    Device { weight: jointly_cuda::Weight, device: Arc<Device> },
}

/// Some outputs of a layer as a checkpoint has it.
struct Part<'a> {
    scope: Scope<'a>,
    /// Of the layer.
    out_features: usize,
    /// Those of them that are wanted.
    rows: Range<usize>,
    /// Whether a checkpoint without a bias is refused.
    needs_bias: bool,
}

impl<'a> Part<'a> {
    fn all(scope: Scope<'a>, out_features: usize, needs_bias: bool) -> Self {
        Self { scope, out_features, rows: 0..out_features, needs_bias }
    }

    fn bias(&self) -> Result<Option<Vec<f32>>> {
        if !self.needs_bias && !self.scope.has("bias") {
            return Ok(None);
        }
        Ok(Some(self.scope.values("bias", &[self.out_features])?[self.rows.clone()].to_vec()))
    }

    fn weight(&self, in_features: usize) -> Result<Vec<f32>> {
        let mut weight = self.scope.values("weight", &[self.out_features, in_features])?;
        weight.truncate(self.rows.end * in_features);
        weight.drain(..self.rows.start * in_features);
        Ok(weight)
    }
}

/// The biases of several parts one after another; zeros for a part without, none if no part has one.
fn biases(parts: &[Part<'_>]) -> Result<Option<Vec<f32>>> {
    let mut bias = Vec::new();
    let mut any = false;
    for part in parts {
        let own = part.bias()?;
        any |= own.is_some();
        bias.extend(own.unwrap_or_else(|| vec![0.0; part.rows.len()]));
    }
    Ok(any.then_some(bias))
}

impl Linear {
    /// `weight` `[out_features, in_features]` and `bias` `[out_features]` below `scope`.
    ///
    /// # Errors
    /// Those of [`Scope::values`].
    pub fn load(scope: &Scope<'_>, in_features: usize, out_features: usize) -> Result<Self> {
        Self::prepare(&[Part::all(scope.clone(), out_features, true)], in_features)
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
        Self::prepare(&[Part { scope: scope.clone(), out_features, rows, needs_bias: false }], in_features)
    }

    /// Several layers over the same input as one, their outputs side by side: query, key and value for example.
    /// A part without a bias has zeros.
    ///
    /// # Errors
    /// Those of [`Scope::values`].
    pub fn load_together(scope: &Scope<'_>, in_features: usize, parts: &[(&str, usize)]) -> Result<Self> {
        let parts: Vec<Part<'_>> = parts
            .iter()
            .map(|(name, out_features)| Part::all(scope.at(name), *out_features, false))
            .collect();
        Self::prepare(&parts, in_features)
    }

    /// The parts, outputs side by side, in the form of their scope. Layers that share an input may share a name, with other
    /// rows. If the weight is at hand as it is to be, nothing is read.
    fn prepare(parts: &[Part<'_>], in_features: usize) -> Result<Self> {
        let scope = &parts[0].scope;
        let name = scope.full("weight");
        let rows = match parts {
            [part] => part.rows.clone(),
            _ => 0..parts.iter().map(|part| part.rows.len()).sum(),
        };
        let out_features = rows.len();
        let Form { precision, observation, packed, device } = scope.form();
        if let Some(device) = device {
            return Self::on_device(device, *precision, parts, in_features);
        }
        let part = format!("{name}[{}..{}]", rows.start, rows.end);
        if let Packed::Mapped(file) = packed {
            let (weight, bias) = file.layer(&part, [out_features, in_features])?;
            return Ok(Self { weight: Weight::Host { weight, bias }, record: None });
        }
        let mut bias = biases(parts)?;
        let mut weight = Vec::new();
        for part in parts {
            let own = part.weight(in_features)?;
            if weight.is_empty() {
                weight = own;
            } else {
                weight.extend(own);
            }
        }
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
        Ok(Self { weight: Weight::Host { weight, bias }, record })
    }

    /// The same on a device: out of the checkpoint's bytes as they are, if they are in that format.
    fn on_device(
        device: &Arc<Device>,
        precision: Precision,
        parts: &[Part<'_>],
        in_features: usize,
    ) -> Result<Self> {
        let format = device::format(precision);
        let size = in_features * format.size();
        let mut bytes: Vec<(Cow<'_, [u8]>, Range<usize>)> = Vec::new();
        for Part { scope, out_features, rows, .. } in parts {
            let whole = scope.bytes("weight", &[*out_features, in_features], format)?;
            bytes.push((whole, rows.start * size..rows.end * size));
        }
        let slices: Vec<&[u8]> = bytes.iter().map(|(whole, part)| &whole[part.clone()]).collect();
        let rows = parts.iter().map(|part| part.rows.len()).sum();
        let bias = biases(parts)?;
        let weight = device::loaded(device, device.load([rows, in_features], format, &slices))?;
        let weight = device::loaded(device, device.weight(weight, bias.as_deref()))?;
        Ok(Self { weight: Weight::Device { weight, device: Arc::clone(device) }, record: None })
    }

    /// A layer made of values at hand, in f32, where `scope` says: `weight` is `[rows, in_features]`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn from_rows(scope: &Scope<'_>, weight: &Matrix, bias: Option<Vec<f32>>) -> Result<Self> {
        let weight = match &scope.form().device {
            None => {
                let weight = scope.kernels().packed(weight.view(), Precision::F32);
                Weight::Host { weight, bias }
            }
            Some(device) => {
                let weight = device.weight(weight.tensor_on(device), bias.as_deref());
                Weight::Device { weight: device::loaded(device, weight)?, device: Arc::clone(device) }
            }
        };
        Ok(Self { weight, record: None })
    }

    /// The number of outputs.
    #[must_use]
    pub fn out_features(&self) -> usize {
        match &self.weight {
            Weight::Host { weight, .. } => weight.n(),
            Weight::Device { weight, .. } => weight.outputs(),
        }
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
        match &self.weight {
            Weight::Host { weight, bias } => {
                let mut output = Matrix::reused(input.rows, weight.n());
                let then = Epilogue {
                    bias: bias.as_deref(),
                    map: activation.map(),
                    add: residual.map(Matrix::view),
                };
                kernels.matmul(input.view(), weight, then, output.view_mut());
                output
            }
            Weight::Device { weight, device } => {
                let (input, residual) = (input.tensor_on(device), residual.map(|x| x.tensor_on(device)));
                Matrix::of_tensor(input.times(weight, activation.on_device(), residual.as_ref()))
            }
        }
    }
}
