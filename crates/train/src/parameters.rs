//! What is trained: named values, their gradients, and the packed weights of the current step.

use std::ops::Range;

use jointly_kernels::{Kernels, PackedMatrix, Precision, View};

/// A parameter's place in [`Parameters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParameterId(usize);

/// A linear layer's place in [`Parameters`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearId(usize);

/// One tensor of the checkpoint.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape there.
    pub shape: Vec<usize>,
    /// Row-major.
    pub value: Vec<f32>,
    /// Whether weight decay applies: to matrices, not to biases and norms.
    pub decays: bool,
    /// Whether it stays as it is.
    pub frozen: bool,
    /// Whether it was not in the checkpoint, and begins with random values.
    pub fresh: bool,
}

/// `y = x · W[rows]ᵀ + b[rows]`.
#[derive(Debug, Clone)]
pub(crate) struct LinearLayer {
    pub weight: ParameterId,
    pub bias: Option<ParameterId>,
    /// Rows of the weight, its outputs: all, or one of several layers that a checkpoint keeps in one matrix.
    pub rows: Range<usize>,
    pub in_features: usize,
}

/// A weight, packed for both directions.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    /// For `x · Wᵀ`.
    pub forward: PackedMatrix,
    /// For `dy · W`.
    pub backward: PackedMatrix,
}

/// All that is trained, and which layers use it.
#[derive(Debug, Default)]
pub struct Parameters {
    list: Vec<Parameter>,
    linears: Vec<LinearLayer>,
    packed: Vec<Packed>,
}

impl Parameters {
    /// Adds a tensor.
    pub fn add(&mut self, parameter: Parameter) -> ParameterId {
        self.list.push(parameter);
        ParameterId(self.list.len() - 1)
    }

    /// Adds a linear layer over `rows` of a weight `[out_features, in_features]`.
    pub fn add_linear(
        &mut self,
        weight: ParameterId,
        bias: Option<ParameterId>,
        rows: Range<usize>,
    ) -> LinearId {
        let in_features = self.get(weight).shape[1];
        self.linears.push(LinearLayer { weight, bias, rows, in_features });
        self.packed.push(Packed::default());
        LinearId(self.linears.len() - 1)
    }

    /// One tensor.
    #[must_use]
    pub fn get(&self, id: ParameterId) -> &Parameter {
        &self.list[id.0]
    }

    /// All tensors, in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Parameter> {
        self.list.iter()
    }

    /// All tensors, to change. [`pack`](Self::pack) comes before the next use.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Parameter> {
        self.list.iter_mut()
    }

    pub(crate) fn linear(&self, id: LinearId) -> (&LinearLayer, &Packed) {
        (&self.linears[id.0], &self.packed[id.0])
    }

    /// The weight of a linear layer, `[out_features, in_features]`.
    fn weight(&self, layer: &LinearLayer) -> View<'_> {
        let k = layer.in_features;
        let values = &self.list[layer.weight.0].value[layer.rows.start * k..layer.rows.end * k];
        View::new(values, layer.rows.len(), k)
    }

    /// Packs the weights of all linear layers as they are now. Frozen ones are packed once.
    pub fn pack(&mut self, kernels: &'static Kernels, precision: Precision, threads: usize) {
        let mut packed = std::mem::take(&mut self.packed);
        let this = &*self;
        let each = packed.len().div_ceil(threads.max(1)).max(1);
        std::thread::scope(|scope| {
            for (part, packed) in packed.chunks_mut(each).enumerate() {
                scope.spawn(move || {
                    for (layer, packed) in this.linears[part * each..].iter().zip(packed) {
                        let weight = this.weight(layer);
                        if this.list[layer.weight.0].frozen && packed.forward.n() == weight.rows {
                            continue;
                        }
                        kernels.pack(weight, precision, &mut packed.forward);
                        kernels.pack_transposed(weight, precision, &mut packed.backward);
                    }
                });
            }
        });
        self.packed = packed;
    }

    /// Gradients of zero.
    #[must_use]
    pub fn gradients(&self) -> Gradients {
        let zeros = |parameter: &Parameter| match parameter.frozen {
            true => Vec::new(),
            false => vec![0.0; parameter.value.len()],
        };
        Gradients { list: self.list.iter().map(zeros).collect() }
    }
}

/// One gradient for each parameter; empty for those that are frozen.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    list: Vec<Vec<f32>>,
}

impl Gradients {
    /// That of one parameter; `None` if it is frozen.
    pub fn get_mut(&mut self, id: ParameterId) -> Option<&mut [f32]> {
        let gradient = &mut self.list[id.0];
        (!gradient.is_empty()).then_some(gradient)
    }

    /// In the order of [`Parameters::iter`].
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.list.iter().map(Vec::as_slice)
    }

    /// Sets all to zero.
    pub fn clear(&mut self) {
        self.list.iter_mut().for_each(|gradient| gradient.fill(0.0));
    }

    /// Adds those of another part of the batch.
    pub fn add(&mut self, kernels: &Kernels, other: &Self) {
        self.list.iter_mut().zip(&other.list).for_each(|(to, from)| kernels.add(to, from));
    }

    /// Multiplies all by one number.
    pub fn scale(&mut self, kernels: &Kernels, factor: f32) {
        self.list.iter_mut().for_each(|gradient| kernels.scale(gradient, factor));
    }

    /// The Euclidean norm of all of them together.
    #[must_use]
    pub fn norm(&self) -> f64 {
        // By parts of a size that f32 sums well, and those in f64.
        let parts = self.list.iter().flat_map(|gradient| gradient.chunks(4096));
        parts
            .map(|part| f64::from(crate::simd::on(|| crate::simd::sum2(part, part, |a, b| a * b))))
            .sum::<f64>()
            .sqrt()
    }
}
