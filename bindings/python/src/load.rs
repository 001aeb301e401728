//! Finding and loading what a name names: as the command line does.

use std::path::PathBuf;

use jointly::files::ModelFiles;
use jointly::rank::listwise::OnePass;
use jointly::{BiEncoder, CrossEncoder, LoadOptions, Precision};
use jointly_hub::{HubOptions, Named, NoProgress};
use pyo3::prelude::*;

use crate::errors::{self, Kind};

/// How to load a model: `LoadOptions` of `jointly._types`.
#[derive(Debug, Clone, FromPyObject)]
#[pyo3(from_item_all)]
pub struct Load {
    threads: usize,
    precision: String,
    max_length: Option<usize>,
    check_receipt: bool,
    /// None: that beside the model.
    calibration: Option<PathBuf>,
    without_calibration: bool,
    packed_cache: Option<PathBuf>,
    revision: Option<String>,
    token: Option<String>,
    cache_folder: Option<PathBuf>,
    local_files_only: bool,
}

/// Why a model was not loaded.
#[derive(Debug)]
pub enum Failure {
    Engine(jointly::Error),
    Hub(jointly_hub::Error),
    /// The caller's mistake, in words.
    Input(String),
}

impl From<jointly::Error> for Failure {
    fn from(error: jointly::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<jointly_hub::Error> for Failure {
    fn from(error: jointly_hub::Error) -> Self {
        Self::Hub(error)
    }
}

impl Failure {
    /// As an exception.
    pub fn raise(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::Engine(error) => errors::engine(py, error),
            Self::Hub(error) => {
                let kind = match error.kind() {
                    jointly_hub::ErrorKind::Input => Kind::Input,
                    jointly_hub::ErrorKind::Access => Kind::Model,
                    _ => Kind::Io,
                };
                kind.error(py, error.to_string(), None)
            }
            Self::Input(problem) => Kind::Input.error(py, problem.clone(), None),
        }
    }
}

enum Found {
    Embedded,
    At(PathBuf),
}

/// Loads a cross-encoder: `default` is the embedded one; a path that exists is a folder or a bundle; anything else is a hub id.
pub fn cross_encoder(source: &str, load: &Load) -> Result<CrossEncoder, Failure> {
    let options = load.options()?;
    Ok(match find(source, load)? {
        Found::Embedded => CrossEncoder::load_default(options)?,
        Found::At(path) => CrossEncoder::load(path, options)?,
    })
}

/// Loads a bi-encoder; of the options, only precision, threads and folders hold for it.
pub fn bi_encoder(source: &str, options: LoadOptions, load: &Load) -> Result<BiEncoder, Failure> {
    Ok(BiEncoder::from_files(files(source, "has no vectors; name a bi-encoder", load)?, load.here(options))?)
}

/// Loads a model that reads a list in one pass; of the options, as for a bi-encoder.
pub fn one_pass(source: &str, options: LoadOptions, load: &Load) -> Result<OnePass, Failure> {
    let files = files(source, "reads no list; name a model that reads one in one pass", load)?;
    Ok(OnePass::from_files(&files, load.here(options))?)
}

fn files(source: &str, lacks: &str, load: &Load) -> Result<ModelFiles, Failure> {
    match find(source, load)? {
        Found::Embedded => Err(Failure::Input(format!("the default model reads pairs and {lacks}"))),
        Found::At(path) => Ok(ModelFiles::open(&path)?),
    }
}

fn find(source: &str, load: &Load) -> Result<Found, Failure> {
    if source == "default" {
        return Ok(Found::Embedded);
    }
    let id = match jointly_hub::named(source)? {
        Named::Path(path) => return Ok(Found::At(path)),
        Named::Id(id) => id,
    };
    let mut hub = HubOptions::from_env()?;
    if load.local_files_only {
        hub = hub.offline(true);
    }
    if let Some(token) = &load.token {
        hub = hub.token(token);
    }
    if let Some(folder) = &load.cache_folder {
        hub = hub.cache_dir(folder);
    }
    let revision = load.revision.as_deref();
    Ok(Found::At(jointly_hub::cached_or_pulled(&id, revision, &hub, &mut NoProgress)?))
}

impl Load {
    /// With the threads and folders of these.
    fn here(&self, options: LoadOptions) -> LoadOptions {
        options.threads(self.threads).packed_cache(self.packed_cache.clone())
    }

    /// The same with another precision.
    pub fn with_precision(&self, precision: Option<Precision>) -> Self {
        let precision = precision.map_or("auto", Precision::name).into();
        Self { precision, ..self.clone() }
    }

    fn options(&self) -> Result<LoadOptions, Failure> {
        let options = LoadOptions::new().threads(self.threads).check_receipt(self.check_receipt);
        let mut options = options.packed_cache(self.packed_cache.clone());
        options = match Precision::ALL.into_iter().find(|precision| precision.name() == self.precision) {
            Some(precision) => options.precision(precision),
            None if self.precision == "auto" => options.auto_precision(),
            None => {
                let found = &self.precision;
                return Err(Failure::Input(format!("precision {found:?}: it is auto, f32, bf16 or int8")));
            }
        };
        if let Some(max_length) = self.max_length {
            options = options.max_length(max_length);
        }
        Ok(match &self.calibration {
            _ if self.without_calibration => options.without_calibration(),
            Some(path) => options.calibration(path),
            None => options,
        })
    }
}
