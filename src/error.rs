//! What can go wrong, as data: every variant names the file, tensor, field or pair, and [`Error::kind`] says who can act.

use std::path::PathBuf;

use jointly_cuda::{Failure, FailureKind};

use crate::score::ScoreScale;

/// The result of everything fallible in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Who can do something about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's query, documents or options.
    Input,
    /// The model folder: its configuration, tokenizer, weights or receipt.
    Model,
    /// The file system.
    Io,
    /// A device that computes: it is not there, has too little memory, or is lost.
    Device,
    /// This machine or this program.
    Internal,
}

/// Why a model could not be loaded or a pair could not be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A model folder lacks a file that it must have.
    #[error("{folder}: no {name}: {hint}")]
    MissingFile {
        /// The model folder, bundle, or model in memory.
        folder: String,
        /// The name of the file inside the folder.
        name: String,
        /// What to do about it.
        hint: String,
    },
    /// A file is larger than anything of its kind can honestly be.
    #[error("{file}: {size} bytes; the limit is {limit}")]
    FileTooLarge {
        /// The file.
        file: String,
        /// Its size in bytes.
        size: u64,
        /// The largest accepted size in bytes.
        limit: u64,
    },
    /// A JSON file is not JSON, or not of the shape that is asked for.
    #[error("{file}: {source}")]
    Json {
        /// The file.
        file: String,
        /// What the parser said, with line and column.
        source: serde_json::Error,
    },
    /// A field of a configuration file is absent, or has a value that this program cannot honour.
    #[error("{file}: {field}: {problem}")]
    Config {
        /// The file.
        file: String,
        /// The field, as written in the file.
        field: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The folder holds a model of a kind that is not implemented.
    #[error("{file}: model_type {found:?} is not supported; supported are {known}")]
    UnsupportedArchitecture {
        /// The configuration file.
        file: String,
        /// The `model_type` (and architecture) found.
        found: String,
        /// The list of the supported ones.
        known: String,
    },
    /// The checkpoint is an encoder or language model without anything that scores a pair.
    #[error("{folder}: no score head: {problem}")]
    NoScoreHead {
        /// The model folder.
        folder: String,
        /// What was looked for, and what to do.
        problem: String,
    },
    /// The classification head has more or fewer outputs than a reranker's one.
    #[error("{file}: the head has {found} labels; a reranker has 1")]
    LabelCount {
        /// The configuration file.
        file: String,
        /// The number of labels it states.
        found: usize,
    },
    /// A safetensors file or its index is damaged.
    #[error("{file}: {problem}")]
    Weights {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The checkpoint lacks a tensor that the architecture needs.
    #[error("{folder}: tensor {name} is missing")]
    MissingTensor {
        /// The model folder.
        folder: String,
        /// The tensor, as the checkpoint would name it.
        name: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{folder}: tensor {name} has shape {found:?}; config.json asks for {expected:?}")]
    TensorShape {
        /// The model folder.
        folder: String,
        /// The tensor.
        name: String,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has a number format other than f32, f16 and bf16.
    #[error("{folder}: tensor {name} is {found}; f32, f16 and bf16 are read")]
    TensorDtype {
        /// The model folder.
        folder: String,
        /// The tensor.
        name: String,
        /// Its number format.
        found: String,
    },
    /// A tensor holds a NaN or an infinity.
    #[error("{folder}: tensor {name} holds a value that is not finite")]
    TensorNotFinite {
        /// The model folder.
        folder: String,
        /// The tensor.
        name: String,
    },
    /// The tokenizer file cannot be used.
    #[error("{file}: {problem}")]
    Tokenizer {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The chat template cannot be used for scoring pairs.
    #[error("{file}: {problem}")]
    Template {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A text could not be tokenised.
    #[error("{what} could not be tokenised: {problem}")]
    Encode {
        /// Which text ("query", "document").
        what: &'static str,
        /// What the tokenizer said.
        problem: String,
    },
    /// An option has a value that cannot be honoured.
    #[error("{option}: {problem}")]
    InvalidOption {
        /// The option.
        option: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// The query is empty or white space only.
    #[error("the query is empty")]
    EmptyQuery,
    /// `max_length` leaves no room for a document beside the template and the query.
    #[error(
        "max_length {max_length} leaves no room for a document: the template and the query take {needed} tokens"
    )]
    NoRoom {
        /// The largest pair length, in tokens.
        max_length: usize,
        /// What is needed before the first document token.
        needed: usize,
    },
    /// One pair of many could not be scored.
    #[error("pair {index}: {source}")]
    Pair {
        /// The pair's index in the request.
        index: usize,
        /// Why.
        source: Box<Error>,
    },
    /// The model answered a pair with NaN or infinity.
    #[error("pair {index}: the model gave {logit}, which is not a score")]
    NotFinite {
        /// The pair's index in the request.
        index: usize,
        /// What the model gave.
        logit: f32,
    },
    /// The model gave NaN or infinity for a text.
    #[error("text {index}: the model gave {value}, which has no place in a vector")]
    EmbeddingNotFinite {
        /// The text's index in the request.
        index: usize,
        /// What the model gave.
        value: f32,
    },
    /// The model does not reproduce the scores that its receipt pins.
    #[error("{file}: {problem}")]
    Receipt {
        /// The receipt file.
        file: String,
        /// The first thing that does not hold.
        problem: String,
    },
    /// A calibration cannot be used with this model.
    #[error("{file}: {problem}")]
    Calibration {
        /// The calibration file.
        file: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A stage of a cascade cannot use the scores that it is given.
    #[error("stage {stage}: the scores are {found:?}, and it needs {needed:?}: {hint}")]
    WrongScale {
        /// The stage.
        stage: String,
        /// What the scores are.
        found: ScoreScale,
        /// What they would have to be.
        needed: ScoreScale,
        /// What to do about it.
        hint: &'static str,
    },
    /// A stage of a cascade gave something that is no answer.
    #[error("stage {stage}: {problem}")]
    Stage {
        /// The stage.
        stage: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The instruction set asked for is unknown or absent.
    #[error(transparent)]
    Isa(#[from] jointly_kernels::IsaError),
    /// There is no such device, or what it needs is not installed.
    #[error("{device}: {problem}")]
    NoDevice {
        /// The device that was asked for.
        device: String,
        /// What is missing.
        problem: String,
    },
    /// A device has too little memory for the model, or for one pair by itself; what is too much at once is split.
    #[error("{device}: not enough memory: {problem}")]
    DeviceMemory {
        /// The device.
        device: String,
        /// What did not fit.
        problem: String,
    },
    /// A device is lost, and nothing will work on it until the process starts anew.
    #[error("{device} is lost: {problem}")]
    DeviceLost {
        /// The device.
        device: String,
        /// What it said last.
        problem: String,
    },
    /// A device, or one of its libraries, refused what it was asked for.
    #[error("{device}: {problem}")]
    Device {
        /// The device.
        device: String,
        /// What was asked for, and what it said.
        problem: String,
    },
    /// A bundle file is damaged.
    #[error("{path}: {source}")]
    Bundle {
        /// The bundle.
        path: PathBuf,
        /// What is wrong with it.
        source: jointly_bundle::Error,
    },
}

impl Error {
    /// Who can do something about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } => ErrorKind::Io,
            Self::Encode { .. }
            | Self::InvalidOption { .. }
            | Self::EmptyQuery
            | Self::NoRoom { .. }
            | Self::WrongScale { .. } => ErrorKind::Input,
            Self::Pair { source, .. } => source.kind(),
            Self::NoDevice { .. }
            | Self::DeviceMemory { .. }
            | Self::DeviceLost { .. }
            | Self::Device { .. } => ErrorKind::Device,
            Self::Isa(_) | Self::Stage { .. } => ErrorKind::Internal,
            _ => ErrorKind::Model,
        }
    }

    /// What a device said.
    pub(crate) fn of_device(name: &str, failure: Failure) -> Self {
        let (device, problem) = (name.to_string(), failure.problem);
        match failure.kind {
            FailureKind::Absent => Self::NoDevice { device, problem },
            FailureKind::Memory => Self::DeviceMemory { device, problem },
            FailureKind::Lost => Self::DeviceLost { device, problem },
            FailureKind::Other => Self::Device { device, problem },
        }
    }

    /// The same error, said of the pair at `index`.
    pub(crate) fn at_pair(self, index: usize) -> Self {
        Self::Pair { index, source: Box::new(self) }
    }
}
