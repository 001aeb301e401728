//! The networks that can be trained: one file for each architecture, each a forward pass on a [`Tape`].
//!
//! Their parameters have the names of the checkpoint, so that what is trained is what `jointly` loads.

mod bert;
mod deberta_v2;
mod modernbert;
mod mpnet;

use std::ops::Range;
use std::sync::Arc;

use jointly::batch::{Batch, Read};
use jointly::model::config::Config;
use jointly::nn::Activation;
use jointly::weights::{Checkpoint, Scope};
use jointly_kernels::Map;

use crate::error::{Error, Result};
use crate::parameters::{LinearId, Parameter, ParameterId, Parameters};
use crate::random::Random;
use crate::tape::{Tape, Var};

/// A cross-encoder: a packed batch to a logit for each pair, `[B, 1]`.
pub trait Network: Send + Sync {
    /// The logits.
    fn forward(&self, tape: &mut Tape<'_>, batch: &Batch) -> Var;

    /// The position of the first token: so many rows of the table of positions belong to none.
    fn first_position(&self) -> usize {
        0
    }
}

/// How to build one kind of network.
struct Architecture {
    /// The values of `model_type` in `config.json` that mean it.
    model_types: &'static [&'static str],
    /// The class of Transformers that reads the trained checkpoint.
    class: &'static str,
    build: fn(&Config, &mut Builder<'_>) -> Result<Box<dyn Network>>,
}

/// Every architecture that can be trained.
static ARCHITECTURES: &[Architecture] = &[
    bert::BERT,
    bert::ELECTRA,
    bert::ROBERTA,
    bert::XLM_ROBERTA,
    mpnet::MPNET,
    modernbert::MODERNBERT,
    deberta_v2::DEBERTA_V2,
];

/// The network that a checkpoint holds, its parameters, and the class that reads them. A head that the checkpoint lacks begins with
/// random values from `seed`.
///
/// # Errors
/// [`Error::Architecture`] for one that cannot be trained; what `jointly` says of a checkpoint that it cannot read.
pub fn build(
    config: &Config,
    checkpoint: &Checkpoint,
    seed: u64,
) -> Result<(Box<dyn Network>, Parameters, &'static str)> {
    let model_type = config.text_or("model_type", "")?;
    let architecture =
        ARCHITECTURES.iter().find(|entry| entry.model_types.contains(&model_type)).ok_or_else(|| {
            let known: Vec<&str> =
                ARCHITECTURES.iter().flat_map(|entry| entry.model_types).copied().collect();
            Error::Architecture {
                file: config.file().to_string(),
                found: model_type.to_string(),
                known: known.join(", "),
            }
        })?;
    let kernels = jointly_kernels::Kernels::select()?;
    let mut builder = Builder {
        scope: checkpoint.root(kernels),
        name: String::new(),
        state: &mut State { parameters: Parameters::default(), random: Random::keyed(seed, ["head"]) },
    };
    let network = (architecture.build)(config, &mut builder)?;
    let parameters = std::mem::take(&mut builder.state.parameters);
    Ok((network, parameters, architecture.class))
}

/// Reads the parameters of a network from a checkpoint, and gives them their names.
struct Builder<'a> {
    scope: Scope<'a>,
    /// The names below have this in front, in the trained checkpoint.
    name: String,
    state: &'a mut State,
}

struct State {
    parameters: Parameters,
    random: Random,
}

/// A layer norm.
struct Norm {
    gain: ParameterId,
    bias: Option<ParameterId>,
    eps: f32,
}

impl Norm {
    fn forward(&self, tape: &mut Tape<'_>, x: Var) -> Var {
        tape.layer_norm(x, self.gain, self.bias, self.eps)
    }
}

impl Builder<'_> {
    /// What lies below `name`.
    fn at(&mut self, name: impl std::fmt::Display) -> Builder<'_> {
        Builder { scope: self.scope.at(&name), name: format!("{}{name}.", self.name), state: self.state }
    }

    /// What lies below `name`, which the trunk of a published encoder does without.
    fn at_optional(&mut self, name: &str) -> Builder<'_> {
        Builder {
            scope: self.scope.at_optional(name),
            name: format!("{}{name}.", self.name),
            state: self.state,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.scope.has(name)
    }

    fn add(&mut self, name: &str, shape: &[usize], value: Vec<f32>, fresh: bool) -> ParameterId {
        self.state.parameters.add(Parameter {
            name: format!("{}{name}", self.name),
            shape: shape.to_vec(),
            value,
            decays: shape.len() > 1,
            frozen: false,
            fresh,
        })
    }

    fn values(&mut self, name: &str, shape: &[usize]) -> Result<ParameterId> {
        let value = self.scope.values(name, shape)?;
        Ok(self.add(name, shape, value, false))
    }

    /// A table of embeddings, `[rows, features]`.
    fn table(&mut self, name: &str, rows: usize, features: usize) -> Result<ParameterId> {
        self.at(name).values("weight", &[rows, features])
    }

    fn norm(&mut self, name: &str, features: usize, eps: f32) -> Result<Norm> {
        let mut below = self.at(name);
        let gain = below.values("weight", &[features])?;
        let has_bias = below.has("bias") || below.has("beta");
        let bias = if has_bias { Some(below.values("bias", &[features])?) } else { None };
        Ok(Norm { gain, bias, eps })
    }

    /// The weight and, where there is one, the bias of a linear layer.
    fn weights(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<(ParameterId, Option<ParameterId>)> {
        let mut below = self.at(name);
        let weight = below.values("weight", &[outputs, inputs])?;
        let bias = if below.has("bias") { Some(below.values("bias", &[outputs])?) } else { None };
        Ok((weight, bias))
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<LinearId> {
        let (weight, bias) = self.weights(name, inputs, outputs)?;
        Ok(self.state.parameters.add_linear(weight, bias, 0..outputs))
    }

    /// Linear layers whose outputs a checkpoint keeps in one matrix, `[sum of outputs, inputs]`.
    fn linears<const N: usize>(
        &mut self,
        name: &str,
        inputs: usize,
        outputs: [usize; N],
    ) -> Result<[LinearId; N]> {
        let (weight, bias) = self.weights(name, inputs, outputs.iter().sum())?;
        let mut start = 0;
        Ok(outputs.map(|outputs| {
            let rows = start..start + outputs;
            start = rows.end;
            self.state.parameters.add_linear(weight, bias, rows)
        }))
    }

    /// A linear layer of the head: random, if the checkpoint is a trunk.
    fn head(&mut self, name: &str, inputs: usize, outputs: usize, bias: bool) -> Result<LinearId> {
        if self.at(name).has("weight") {
            return self.linear(name, inputs, outputs);
        }
        let value = (0..inputs * outputs).map(|_| 0.02 * self.state.random.normal() as f32).collect();
        let mut below = self.at(name);
        let weight = below.add("weight", &[outputs, inputs], value, true);
        let bias = bias.then(|| below.add("bias", &[outputs], vec![0.0; outputs], true));
        Ok(self.state.parameters.add_linear(weight, bias, 0..outputs))
    }

    /// A norm of the head: the identity, if the checkpoint is a trunk.
    fn head_norm(&mut self, name: &str, features: usize, eps: f32) -> Result<Norm> {
        if self.at(name).has("weight") {
            return self.norm(name, features, eps);
        }
        let mut below = self.at(name);
        Ok(Norm { gain: below.add("weight", &[features], vec![1.0; features], true), bias: None, eps })
    }
}

/// The function of an activation's name.
fn map(activation: Activation) -> Map {
    match activation {
        Activation::Identity => Map::Identity,
        Activation::Gelu => Map::GeluErf,
        Activation::GeluTanh => Map::GeluTanh,
        Activation::Silu => Map::Silu,
        Activation::Relu => Map::Relu,
        Activation::Tanh => Map::Tanh,
        Activation::Sigmoid => Map::Sigmoid,
    }
}

/// A batch, as the networks read it.
struct Inputs {
    ids: Arc<[u32]>,
    sequences: Arc<[Range<usize>]>,
    /// The place of each token within its pair.
    positions: Vec<usize>,
}

impl Inputs {
    fn new(batch: &Batch) -> Self {
        Self {
            ids: batch.input_ids.as_slice().into(),
            sequences: batch.sequences().map(|sequence| sequence.rows).collect(),
            positions: batch.positions(Read::All),
        }
    }

    /// The first row of each pair.
    fn firsts(&self) -> Vec<usize> {
        self.sequences.iter().map(|rows| rows.start).collect()
    }

    /// Positions as ids of a table, counted from `first`.
    fn position_ids(&self, first: usize) -> Arc<[u32]> {
        self.positions.iter().map(|position| (first + position) as u32).collect()
    }
}

/// Segments as ids of a table.
fn segment_ids(batch: &Batch) -> Arc<[u32]> {
    batch.token_type_ids.iter().map(|&id| u32::from(id)).collect()
}
