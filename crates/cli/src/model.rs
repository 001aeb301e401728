//! Finding the model that an argument names.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use jointly::files::ModelFiles;
use jointly::rank::listwise::OnePass;
use jointly::{
    BiEncoder, CrossEncoder, DeviceChoice, LoadOptions, Long, PackedCacheState, ScoreOptions, WindowOptions,
};
use jointly_hub::{HubId, HubOptions, Named, Progress};

use jointly_retrieve::Index;

use crate::Global;
use crate::error::{CliError, Result};
use crate::output;

/// The name of the embedded model.
pub const DEFAULT: &str = "default";

/// Which model, and how it runs.
#[derive(Args)]
pub struct ModelArguments {
    /// Folder, bundle, hub id (org/name), or `default` for the embedded model
    #[arg(long, value_name = "MODEL", default_value = DEFAULT)]
    pub model: String,
    /// Longest pair in tokens, template included [default: the model's own maximum]
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// What the layers multiply in; head, norms, sums and logits are f32 in any case
    ///
    /// f16 is for devices, int8 for processors. `auto` is the fastest that the model's receipt certifies and this processor multiplies by itself.
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub precision: Precision,
    /// What computes: auto, cpu, cuda (the first device), cuda:N, cuda:N,M or cuda:all [default: cpu]
    ///
    /// `auto` is the first device if there is one, else the processor. Which it is, is said.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// What its logits mean as probabilities, as `jointly calibrate` wrote it [default: calibration.json beside the model]
    #[arg(long, value_name = "FILE")]
    pub calibration: Option<PathBuf>,
    /// Use a model whose receipt does not hold
    #[arg(long)]
    pub no_receipt_check: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    Auto,
    F32,
    Bf16,
    // On devices. No help of its own: one value with help makes a list of all.
    F16,
    Int8,
}

/// The precisions by name, without `auto`.
pub fn precision() -> impl TypedValueParser<Value = jointly::Precision> {
    let all = jointly::Precision::ALL;
    PossibleValuesParser::new(all.map(jointly::Precision::name))
        .map(move |name| all.into_iter().find(|precision| precision.name() == name).unwrap_or_default())
}

/// The precisions of processors and of devices, by name.
pub fn any_precision() -> impl TypedValueParser<Value = jointly::Precision> {
    let all = [&jointly::Precision::ALL[..], &[jointly::Precision::F16]].concat();
    PossibleValuesParser::new(all.iter().map(|precision| precision.name()))
        .map(move |name| all.iter().copied().find(|precision| precision.name() == name).unwrap_or_default())
}

/// What to do with documents that are longer than the model reads.
#[derive(Args)]
pub struct LongArguments {
    /// Documents that are too long: read the beginning, or all of it in windows (the best one counts) [default: truncate; in search: windows]
    #[arg(long, value_enum)]
    pub long: Option<LongMode>,
    /// Tokens from one window to the next [default: half the room for the document]
    #[arg(long, value_name = "N")]
    pub stride: Option<usize>,
    /// Windows read at most; what is left then counts as truncated
    #[arg(long, value_name = "N", default_value_t = WindowOptions::DEFAULT_MAX_WINDOWS)]
    pub max_windows: usize,
    /// What to look for, for models whose template takes an instruction
    #[arg(long, value_name = "TEXT")]
    pub instruction: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LongMode {
    Truncate,
    Windows,
}

impl LongArguments {
    pub fn options(&self) -> ScoreOptions {
        self.options_of(self.long.unwrap_or(LongMode::Truncate))
    }

    /// The flags that say how long documents are read.
    pub fn said(&self) -> String {
        match (self.long, self.stride) {
            (Some(LongMode::Windows), None) => format!("--long windows --max-windows {}", self.max_windows),
            (Some(LongMode::Windows), Some(stride)) => {
                format!("--long windows --stride {stride} --max-windows {}", self.max_windows)
            }
            _ => "--long truncate".into(),
        }
    }

    /// Documents are read as a whole, unless it was said that they are not.
    pub fn windows_unless_said(&self) -> ScoreOptions {
        self.options_of(self.long.unwrap_or(LongMode::Windows))
    }

    fn options_of(&self, long: LongMode) -> ScoreOptions {
        let long = match long {
            LongMode::Truncate => Long::Truncate,
            LongMode::Windows => {
                let windows = WindowOptions::new().max_windows(self.max_windows);
                Long::Windows(match self.stride {
                    Some(stride) => windows.stride(stride),
                    None => windows,
                })
            }
        };
        let options = ScoreOptions::new().long(long);
        match &self.instruction {
            Some(instruction) => options.instruction(instruction),
            None => options,
        }
    }
}

impl ModelArguments {
    pub fn load(&self, global: Global) -> Result<CrossEncoder> {
        self.load_with(self.options(), global)
    }

    /// Without what the logits mean as probabilities, which may be what is to be found out.
    pub fn load_uncalibrated(&self, global: Global) -> Result<CrossEncoder> {
        self.load_with(self.options().without_calibration(), global)
    }

    fn options(&self) -> LoadOptions {
        let options = LoadOptions::new().check_receipt(!self.no_receipt_check);
        let mut options = match self.precision {
            Precision::Auto => options.auto_precision(),
            Precision::F32 => options.precision(jointly::Precision::F32),
            Precision::Bf16 => options.precision(jointly::Precision::Bf16),
            Precision::F16 => options.precision(jointly::Precision::F16),
            Precision::Int8 => options.precision(jointly::Precision::Int8),
        };
        if let Some(max_length) = self.max_length {
            options = options.max_length(max_length);
        }
        if let Some(device) = &self.device {
            options = options.device(device.clone());
        }
        if let Some(calibration) = &self.calibration {
            options = options.calibration(calibration);
        }
        options
    }

    fn load_with(&self, options: LoadOptions, global: Global) -> Result<CrossEncoder> {
        let model = load(&self.model, options, global)?;
        if self.device.is_some() && !global.quiet {
            output::say(format_args!("device {}", model.info().device));
        }
        if self.precision == Precision::Auto && !global.quiet {
            output::say(format_args!("precision {}", model.info().precision));
        }
        Ok(model)
    }
}

/// Loads the model that `name` names.
pub fn load(name: &str, options: LoadOptions, global: Global) -> Result<CrossEncoder> {
    find(name, global)?.load(options, global)
}

/// Where a model is.
pub enum Found {
    Embedded,
    At(PathBuf),
    /// A snapshot in the hub's cache, whose folder is named for its commit.
    Snapshot(PathBuf),
}

impl Found {
    pub fn load(&self, options: LoadOptions, global: Global) -> Result<CrossEncoder> {
        let options = options.threads(global.threads.unwrap_or(0)).packed_cache(packed_cache(global));
        let model = match self {
            Self::Embedded => embedded(options)?,
            Self::At(path) | Self::Snapshot(path) => CrossEncoder::load(path, options)?,
        };
        say_what_was_not_written(&model.info().packed_cache, global);
        Ok(model)
    }
}

/// The folder of packed weights, if there is to be one.
pub fn packed_cache(global: Global) -> Option<PathBuf> {
    if global.no_packed_cache { None } else { jointly::packed_cache_folder() }
}

fn say_what_was_not_written(state: &PackedCacheState, global: Global) {
    if let PackedCacheState::NotWritten(problem) = state
        && !global.quiet
    {
        output::say(format_args!(
            "converted weights are not kept: {problem} (--no-packed-cache does not try)"
        ));
    }
}

/// Loads a bi-encoder from its files.
pub fn load_bi_encoder(files: ModelFiles, options: LoadOptions, global: Global) -> Result<BiEncoder> {
    let options = options.threads(threads(global)).packed_cache(packed_cache(global));
    let model = BiEncoder::from_files(files, options)?;
    say_what_was_not_written(&model.info().packed_cache, global);
    Ok(model)
}

/// The bi-encoder that `name` names.
pub fn bi_encoder(name: &str, options: LoadOptions, global: Global) -> Result<BiEncoder> {
    let (files, _) = find_bi_encoder(name, global)?;
    load_bi_encoder(files, options, global)
}

/// The model that `name` names, which reads a list in one pass.
pub fn one_pass(name: &str, options: LoadOptions, global: Global) -> Result<OnePass> {
    let (files, _) = find_one_pass(name, global)?;
    Ok(OnePass::from_files(&files, options.threads(threads(global)).packed_cache(packed_cache(global)))?)
}

/// The files of the bi-encoder that `name` names, and a name by which it can be found again from any folder.
pub fn find_bi_encoder(name: &str, global: Global) -> Result<(ModelFiles, String)> {
    find_files(name, "and has no vectors; name a bi-encoder", global)
}

/// The same of a model that reads a list in one pass.
pub fn find_one_pass(name: &str, global: Global) -> Result<(ModelFiles, String)> {
    find_files(name, "and no list; name a model that reads a list in one pass", global)
}

fn find_files(name: &str, lacks: &str, global: Global) -> Result<(ModelFiles, String)> {
    match find(name, global)? {
        Found::Embedded => {
            let problem = format!("the default model reads a query and a document together {lacks}");
            Err(CliError::Input(problem))
        }
        Found::At(path) => {
            let path = std::fs::canonicalize(&path).map_err(|error| CliError::open(&path, &error))?;
            Ok((ModelFiles::open(&path)?, path.display().to_string()))
        }
        Found::Snapshot(path) => Ok((ModelFiles::open(&path)?, name.to_string())),
    }
}

/// The number of threads: what was asked for, or one for each core.
pub fn threads(global: Global) -> usize {
    let all = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    global.threads.unwrap_or_else(all)
}

/// A path that exists is a folder or a bundle; any other name is a hub id, looked up in the cache first.
pub fn find(name: &str, global: Global) -> Result<Found> {
    if name == DEFAULT {
        return Ok(Found::Embedded);
    }
    let id = match jointly_hub::named(name)? {
        Named::Path(path) => return Ok(Found::At(path)),
        Named::Id(id) => id,
    };
    let hub = HubOptions::from_env()?;
    if let Some(folder) = jointly_hub::cached(&id, None, &hub)? {
        return Ok(Found::Snapshot(folder));
    }
    let tried = |error: String| format!("{name} is no folder or bundle, and not in the hub's cache; {error}");
    pull(&id, None, &hub, global).map(Found::Snapshot).map_err(|error| match error {
        CliError::Failed(error) => CliError::Failed(tried(error)),
        CliError::Input(error) => CliError::Input(tried(error)),
        other => other,
    })
}

/// A bar on standard error, if that is a terminal. It goes when it is dropped.
pub fn bar(length: Option<u64>, template: &str, global: Global) -> ProgressBar {
    // A hidden target and one that is no terminal draw nothing.
    let target = if global.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(length, target)
        .with_style(style.progress_chars("=> "))
        .with_finish(ProgressFinish::AndClear)
}

/// Fetches a model from the hub, with a progress bar.
pub fn pull(id: &HubId, revision: Option<&str>, hub: &HubOptions, global: Global) -> Result<PathBuf> {
    let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
    let mut bar = PullBar { bar: bar(Some(0), template, global), files: 0, number: 0, name: String::new() };
    let folder = jointly_hub::pull(id, revision, hub, &mut bar)?;
    Ok(folder)
}

struct PullBar {
    bar: ProgressBar,
    files: usize,
    /// Of the file that is being fetched, from 1.
    number: usize,
    name: String,
}

impl PullBar {
    fn show(&self, note: &str) {
        self.bar.set_message(format!("{}/{} {}{note}", self.number, self.files, self.name));
    }
}

impl Progress for PullBar {
    fn plan(&mut self, files: usize, _: u64) {
        self.files = files;
    }

    fn file(&mut self, name: &str, total: u64, resumed: u64) {
        if self.name != name {
            self.number += 1;
            self.name = name.to_string();
        }
        self.bar.reset();
        self.bar.set_length(total);
        self.bar.set_position(resumed);
        self.bar.reset_eta(); // what was there already says nothing about the speed
        self.show("");
    }

    fn advance(&mut self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn done(&mut self, name: &str) {
        self.bar.println(name);
    }

    fn waiting(&mut self, _: &str) {
        self.show(" (waiting for another process)");
    }

    fn retrying(&mut self, attempt: u32, reason: &str) {
        self.show(&format!(" (attempt {} after: {reason})", attempt + 1));
    }
}

#[cfg(feature = "default-model")]
fn embedded(options: LoadOptions) -> Result<CrossEncoder> {
    Ok(CrossEncoder::load_default(options)?)
}

#[cfg(not(feature = "default-model"))]
fn embedded(_: LoadOptions) -> Result<CrossEncoder> {
    Err(CliError::Input("this program was built without the default model; name another one".into()))
}

/// The bi-encoder that made the vectors of an index, from where it was then or from `name`.
pub fn of_index((path, index): (&Path, &Index), name: Option<&str>, global: Global) -> Result<BiEncoder> {
    let Some(made) = index.dense_info() else {
        return Err(jointly_retrieve::Error::NoVectors { path: path.to_path_buf() }.into());
    };
    let Some(precision) = made.precision() else {
        let (path, precision) = (path.display(), &made.precision);
        return Err(CliError::Failed(format!(
            "{path}: its vectors were made in {precision}, which is unknown here"
        )));
    };
    let options = LoadOptions::new().precision(precision).max_length(made.max_length);
    let (files, _) = find_bi_encoder(name.unwrap_or(&made.model), global)?;
    index.check_files(&files, packed_cache(global).as_deref())?;
    let model = load_bi_encoder(files, options, global)?;
    index.check_model(&model)?;
    Ok(model)
}
