//! Which model, and how it is used: the arguments that the programs share, as those of `jointly`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jointly::calibration::Calibration;
use jointly::files::ModelFiles;
use jointly::{CrossEncoder, DeviceChoice, LoadOptions, WindowOptions};
use jointly_hub::{HubOptions, Named, NoProgress};

use crate::engine::{Engine, Identity, Scoring, calibration_fingerprint};
use crate::error::{Error, Result};

/// What every program takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Threads, 1 to 1024 [default: one for each core]
    #[arg(long, global = true, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024), display_order = 900)]
    pub threads: Option<usize>,
    /// No progress and no notes on standard error; errors are still said
    #[arg(long, global = true, display_order = 901)]
    pub quiet: bool,
    /// Convert the weights of models at every start, and keep nothing on disk
    #[arg(long, global = true, display_order = 902)]
    pub no_packed_cache: bool,
    /// Say what goes on, on standard error
    #[arg(long, global = true, display_order = 903)]
    pub verbose: bool,
}

/// Which model.
#[derive(Debug, Clone, Args)]
pub struct ModelArguments {
    /// Folder, bundle, hub id (org/name), or `default` for the embedded model
    #[arg(long, value_name = "MODEL", default_value = "default")]
    pub model: String,
    /// What the layers multiply in; head, norms, sums and logits are f32 in any case
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
    /// What computes: auto, cpu, cuda (the first device), cuda:N, cuda:N,M or cuda:all [default: cpu]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// What its logits mean as probabilities, as `jointly calibrate` wrote it [default: calibration.json beside the model]
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// Use a model whose receipt does not hold
    #[arg(long)]
    pub no_receipt_check: bool,
}

/// What the layers multiply in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// The fastest that the model's receipt certifies and this processor multiplies by itself
    Auto,
    /// As the authors do
    F32,
    /// 16 bits
    Bf16,
    /// 16 bits, on devices
    F16,
    /// 8 bits
    Int8,
}

impl Precision {
    fn name(self) -> Option<jointly::Precision> {
        match self {
            Self::Auto => None,
            Self::F32 => Some(jointly::Precision::F32),
            Self::Bf16 => Some(jointly::Precision::Bf16),
            Self::F16 => Some(jointly::Precision::F16),
            Self::Int8 => Some(jointly::Precision::Int8),
        }
    }
}

/// How pairs are scored.
#[derive(Debug, Clone, Args)]
pub struct ScoringArguments {
    /// Longest pair in tokens, template included [default: the model's own maximum]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub max_length: Option<usize>,
    /// Documents that are too long: read the beginning, or all of it in windows (the best one counts)
    #[arg(long, value_enum, default_value_t = LongMode::Truncate)]
    pub long: LongMode,
    /// Tokens from one window to the next [default: half the room for the document]
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub stride: Option<usize>,
    /// Windows read at most; what is left then counts as truncated
    #[arg(long, value_name = "N", default_value_t = WindowOptions::DEFAULT_MAX_WINDOWS)]
    pub max_windows: usize,
    /// What to look for, for models whose template takes an instruction
    #[arg(long, value_name = "TEXT")]
    pub instruction: Option<String>,
}

/// What is done about long documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LongMode {
    /// Read the beginning
    Truncate,
    /// Read all of it
    Windows,
}

impl ScoringArguments {
    /// How a query scores, without saying by which model.
    pub fn scoring(&self) -> Scoring {
        Scoring {
            model: None,
            max_length: self.max_length,
            windows: self.long == LongMode::Windows,
            stride: self.stride,
            max_windows: Some(self.max_windows),
            instruction: self.instruction.clone(),
        }
    }
}

impl ModelArguments {
    /// Loads the model; with the name of the executor, if this is one.
    ///
    /// # Errors
    /// If there is no such model, or its receipt does not hold.
    pub fn load(&self, global: &Global, executor: Option<String>) -> Result<Arc<Engine>> {
        let options = LoadOptions::new()
            .check_receipt(!self.no_receipt_check)
            .threads(global.threads.unwrap_or(0))
            .packed_cache(if global.no_packed_cache { None } else { jointly::packed_cache_folder() });
        let mut options = match self.precision.name() {
            None => options.auto_precision(),
            Some(precision) => options.precision(precision),
        };
        if let Some(device) = &self.device {
            options = options.device(device.clone());
        }
        if let Some(calibration) = &self.calibration {
            options = options.calibration(calibration);
        }
        let model = match find(&self.model)? {
            None => embedded(options)?,
            Some(path) => CrossEncoder::load(path, options)?,
        };
        Engine::new(model, executor).map(Arc::new)
    }

    /// Says in `scoring` which model a query is for, without loading it: executors do that.
    ///
    /// # Errors
    /// If there is no such model.
    pub fn name_in(&self, scoring: &mut Scoring) -> Result<()> {
        let Some(precision) = self.precision.name() else {
            return Err(Error::Input(
                "--precision auto: what is fastest differs between machines; name what the executors have"
                    .into(),
            ));
        };
        let files = match find(&self.model)? {
            None => embedded(LoadOptions::new().check_receipt(false).threads(1))?.files().clone(),
            Some(path) => ModelFiles::open(&path)?,
        };
        let calibration = match &self.calibration {
            Some(path) => Some(Calibration::read(path, &files, None)?),
            None => Calibration::beside(&files, None)?,
        };
        scoring.model = Some(Identity {
            model: jointly::receipt::identity(&files)?,
            precision: precision.name().to_string(),
            calibration: calibration_fingerprint(calibration.as_ref()),
        });
        Ok(())
    }
}

/// Where a model lies; none if it is the embedded one.
fn find(name: &str) -> Result<Option<PathBuf>> {
    if name == "default" {
        return Ok(None);
    }
    match jointly_hub::named(name)? {
        Named::Path(path) => Ok(Some(path)),
        Named::Id(id) => {
            let hub = HubOptions::from_env()?;
            Ok(Some(jointly_hub::cached_or_pulled(&id, None, &hub, &mut NoProgress)?))
        }
    }
}

#[cfg(feature = "default-model")]
fn embedded(options: LoadOptions) -> Result<CrossEncoder> {
    Ok(CrossEncoder::load_default(options)?)
}

#[cfg(not(feature = "default-model"))]
fn embedded(_: LoadOptions) -> Result<CrossEncoder> {
    Err(Error::Input("this program was built without the default model; name another one".into()))
}
