//! The other kind of model: one vector for each text, compared by their product. Less often right than reading both
//! texts together, but documents are computed once: it finds the candidates that a cross-encoder then sorts.

use std::path::Path;
use std::sync::Arc;

use jointly_cuda::Device;
use jointly_kernels::{Kernels, Precision};

use crate::cross_encoder::LoadOptions;
use crate::device::Chosen;
use crate::error::{Error, Result};
use crate::files::ModelFiles;
use crate::model::embedding::{self, EmbeddingModel};
use crate::network::{self, MAX_PENDING, Network};
use crate::nn::Matrix;
use crate::packed_cache::{self, Kind, PackedCache, PackedCacheState};
use crate::text::EncodedPair;
use crate::weights::Form;

/// What a text is: some models write another prompt before each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// What is looked for.
    Query,
    /// What is searched.
    Document,
}

/// What a loaded bi-encoder is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BiEncoderInfo {
    /// The folder, bundle or name it came from.
    pub source: String,
    /// The architecture, by its name in the field.
    pub architecture: &'static str,
    /// How the tokens of a text become one vector, in a few words.
    pub head: String,
    /// Values of a vector.
    pub dimensions: usize,
    /// The longest text, in tokens; what lies beyond is not read.
    pub max_length: usize,
    /// What was done about packed weights.
    pub packed_cache: PackedCacheState,
    /// What the trunk multiplies in.
    pub precision: Precision,
    /// The instruction set that computes, where no device does.
    pub isa: String,
    /// What computes: `cpu`, or the device.
    pub device: String,
    /// The number of threads.
    pub threads: usize,
}

/// A bi-encoder: a sentence-transformers folder with a transformer, a pooling and what follows.
///
/// ```no_run
/// use jointly::{BiEncoder, LoadOptions, Role};
///
/// let model = BiEncoder::load("all-MiniLM-L6-v2", LoadOptions::new())?;
/// let query = model.embed(&["Which planet is red?"], Role::Query)?;
/// let documents = model.embed(&["Venus is hot.", "Mars is called the Red Planet."], Role::Document)?;
/// let closeness = |i| query.row(0).iter().zip(documents.row(i)).map(|(a, b)| a * b).sum::<f32>();
/// assert!(closeness(1) > closeness(0));
/// # Ok::<(), jointly::Error>(())
/// ```
pub struct BiEncoder {
    model: EmbeddingModel,
    kernels: &'static Kernels,
    info: BiEncoderInfo,
    files: ModelFiles,
    device: Option<Arc<Device>>,
}

impl std::fmt::Debug for BiEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BiEncoder").field("info", &self.info).finish_non_exhaustive()
    }
}

impl BiEncoder {
    /// Loads a model from a folder of sentence-transformers, or from a bundle of one.
    ///
    /// # Errors
    /// Any [`Error`] of kind [`Model`](crate::ErrorKind::Model) or [`Io`](crate::ErrorKind::Io).
    pub fn load(path: impl AsRef<Path>, options: LoadOptions) -> Result<Self> {
        Self::from_files(ModelFiles::open(path.as_ref())?, options)
    }

    /// Loads a model from its files, wherever they lie. A bi-encoder has no receipt, so `auto_precision` is f32.
    ///
    /// # Errors
    /// As [`BiEncoder::load`].
    pub fn from_files(files: ModelFiles, options: LoadOptions) -> Result<Self> {
        let kernels = Kernels::select()?;
        let precision = options.precision;
        let chosen = options.device.open(precision, options.packed_cache.as_deref())?;
        let cache = || {
            if !chosen.devices.is_empty() {
                return Ok(None);
            }
            let Some(folder) = &options.packed_cache else { return Ok(None) };
            PackedCache::of(folder, &files, &[], (Kind::Bi, precision, kernels.isa)).map(Some)
        };
        let observe = || {
            network::observation_for(precision, |observation, texts| {
                let form = Form { observation, ..Form::default() };
                let cpu = Chosen { devices: Vec::new(), name: String::new() };
                let model =
                    Self::build(files.clone(), kernels, form, (&LoadOptions::new().threads(1), &cpu))?;
                let (queries, documents): (Vec<_>, Vec<_>) = texts.iter().cloned().unzip();
                model.embed(&queries, Role::Query)?;
                model.embed(&documents, Role::Document).map(drop)
            })
        };
        let build = |form| Self::build(files.clone(), kernels, form, (&options, &chosen));
        let (mut encoder, state) = packed_cache::load(precision, cache, observe, build)?;
        encoder.info.packed_cache = state;
        Ok(encoder)
    }

    fn build(
        files: ModelFiles,
        kernels: &'static Kernels,
        form: Form,
        (options, chosen): (&LoadOptions, &Chosen),
    ) -> Result<Self> {
        let precision = form.precision;
        // One device: copies of a model are for rerankers.
        let device = chosen.devices.first().cloned();
        let form = Form { device: device.clone(), ..form };
        let model = embedding::load(&files, kernels, form, options.max_length)?;
        let info = BiEncoderInfo {
            source: files.describe(),
            architecture: model.architecture,
            head: model.head.describe(),
            dimensions: model.head.outputs(model.trunk.sizes().hidden),
            max_length: model.text.max_length(),
            packed_cache: PackedCacheState::Off,
            precision,
            isa: kernels.isa.to_string(),
            device: chosen.name.clone(),
            threads: options.thread_count(),
        };
        Ok(Self { model, kernels, info, files, device })
    }

    /// What this model is.
    #[must_use]
    pub fn info(&self) -> &BiEncoderInfo {
        &self.info
    }

    /// The files it was loaded from.
    #[must_use]
    pub fn files(&self) -> &ModelFiles {
        &self.files
    }

    /// One vector for each text, a row each, in the order given. It does not depend, bit for bit, on the texts beside it,
    /// their order, or the number of threads. Texts may be empty; long ones are cut at the end.
    ///
    /// # Errors
    /// [`Error::Encode`], [`Error::EmbeddingNotFinite`].
    pub fn embed<T: AsRef<str> + Sync>(&self, texts: &[T], role: Role) -> Result<Matrix> {
        self.embed_each(texts, role, drop)
    }

    /// As [`embed`](Self::embed), with what each text was read as.
    ///
    /// # Errors
    /// Those of [`embed`](Self::embed).
    pub fn embed_encoded<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        role: Role,
    ) -> Result<(Matrix, Vec<EncodedPair>)> {
        let mut all = Vec::with_capacity(texts.len());
        let vectors = self.embed_each(texts, role, |encoded| all.extend(encoded))?;
        Ok((vectors, all))
    }

    /// `each` is given the texts of a chunk, encoded, once their vectors are there.
    fn embed_each<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        role: Role,
        mut each: impl FnMut(Vec<EncodedPair>),
    ) -> Result<Matrix> {
        let network = Network {
            trunk: &*self.model.trunk,
            head: &self.model.head,
            kernels: self.kernels,
            precision: self.info.precision,
            threads: self.info.threads,
            device: self.device.as_ref(),
            replicas: &[],
        };
        let mut vectors = Vec::with_capacity(texts.len() * self.info.dimensions);
        for texts in texts.chunks(MAX_PENDING) {
            let encode = |(): &mut (), text: &T| self.encode(text.as_ref(), role);
            let encoded =
                network::in_parts(self.info.threads, texts, &(), encode).map_err(|(_, error)| error)?;
            for sequence in &encoded {
                network.check_ids(sequence, "text")?;
            }
            vectors.extend(network.outputs(&encoded.iter().collect::<Vec<_>>())?);
            each(encoded);
        }
        match vectors.iter().position(|value| !value.is_finite()) {
            None => Ok(Matrix::new(vectors, texts.len(), self.info.dimensions)),
            Some(at) => {
                Err(Error::EmbeddingNotFinite { index: at / self.info.dimensions, value: vectors[at] })
            }
        }
    }

    /// The token ids that a text is read as: for inspection, and for comparing with other programs.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn encode(&self, text: &str, role: Role) -> Result<EncodedPair> {
        self.model.text.encode(&self.model.prompts[role as usize], text)
    }
}
