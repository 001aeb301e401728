use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jointly::rank::listwise::OnePass;
use jointly::{BiEncoder, DeviceChoice, LoadOptions};
use jointly_server::config::{Config, Layers, ModelConfig};
use jointly_server::engine::{Engine, Model};
use jointly_server::{Handle, Loader, Server, hash_key, log};
use tokio::signal::unix::{SignalKind, signal};

use crate::Global;
use crate::error::{CliError, Result};
use crate::interrupt;
use crate::model::{self, Found};
use crate::output::{Output, say};

/// Serve models over HTTP, in the dialects of the vendors' rerank APIs
#[derive(Args)]
#[command(after_help = "\
Settings come from the file, then from the environment (JOINTLY_QUEUE_MAX_WAIT for queue.max_wait), then from the flags. \
SIGTERM finishes what was accepted and ends; SIGHUP reads the configuration again and loads models, keys and calibration anew.")]
pub struct Serve {
    /// Configuration in TOML; --print-config shows all settings
    #[arg(long, value_name = "FILE", env = "JOINTLY_CONFIG")]
    config: Option<PathBuf>,
    /// Where to listen: host:port, or unix:PATH; may be repeated [default: 127.0.0.1:8787]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Folder, bundle, hub id or `default` that the model named `default` is loaded from
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// auto, f32, bf16, f16 (on devices) or int8, for the model named `default`
    #[arg(long, value_name = "PRECISION")]
    precision: Option<String>,
    /// What computes all models: auto, cpu, cuda (the first device), cuda:N, cuda:N,M or cuda:all [default: cpu]
    #[arg(long, value_name = "DEVICE", env = "JOINTLY_DEVICE")]
    device: Option<DeviceChoice>,
    /// Any setting, as in --set queue.max_wait=2s; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Check the configuration, and load nothing
    #[arg(long)]
    check_config: bool,
    /// Show the configuration, with all defaults
    #[arg(long)]
    print_config: bool,
    /// Read an API key from standard input and show its hash, for keys.sha256
    #[arg(long)]
    hash_key: bool,
}

impl Serve {
    pub fn run(self, global: Global) -> Result<()> {
        if self.hash_key {
            return show_hash();
        }
        let layers = self.layers()?;
        let (config, notes) = layers.read().map_err(|error| CliError::Input(error.to_string()))?;
        if !global.quiet {
            notes.iter().for_each(say);
        }
        if self.print_config || self.check_config {
            let mut output = Output::new();
            if self.print_config {
                let text = config.to_toml().map_err(|error| CliError::Failed(error.to_string()))?;
                output.line(format_args!("{}", text.trim_end()))?;
            } else {
                output.line(format_args!("the configuration is in order"))?;
            }
            return output.flush();
        }
        interrupt::orderly();
        // Answering takes a small part of what scoring does, and threads that wake each other cost more than they do.
        let threads = model::threads(global).div_ceil(2);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("jointly-serve")
            .on_thread_park(jointly_server::rest)
            .enable_all()
            .build()
            .map_err(|error| CliError::Failed(error.to_string()))?;
        let result = runtime.block_on(serve(config, layers, Models { global, device: self.device }));
        // What is left beyond the limit of draining is left.
        runtime.shutdown_background();
        result
    }

    fn layers(&self) -> Result<Layers> {
        let mut layers = Layers::from_environment(self.config.clone());
        let mut flag = |key: &str, value: &str| layers.flags.push((key.to_string(), value.to_string()));
        if !self.listen.is_empty() {
            flag("listen", &self.listen.join(","));
        }
        if let Some(model) = &self.model {
            flag("models.default.source", model);
        }
        if let Some(precision) = &self.precision {
            flag("models.default.precision", precision);
        }
        for setting in &self.set {
            let Some((key, value)) = setting.split_once('=') else {
                return Err(CliError::Input(format!("--set {setting}: it is KEY=VALUE")));
            };
            flag(key.trim(), value);
        }
        Ok(layers)
    }
}

async fn serve(config: Config, layers: Layers, models: Models) -> Result<()> {
    let global = models.global;
    let _logs = log::start(&config).map_err(CliError::Failed)?;
    let reader = Box::new(move || layers.read().map(|(config, _)| config));
    let server = Server::bind(config, Arc::new(models), reader).await.map_err(CliError::Failed)?;
    if !global.quiet {
        for address in server.addresses() {
            say(format_args!("listening on {address}"));
        }
    }
    let signals = tokio::spawn(obey(server.handle()));
    let result = server.run().await.map_err(CliError::Failed);
    signals.abort();
    result
}

/// Does what signals say.
async fn obey(handle: Handle) {
    let streams = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = streams else {
        say("signals cannot be heard; the server ends only when it is killed");
        return;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => return handle.stop(),
            _ = interrupt.recv() => return handle.stop(),
            _ = hangup.recv() => {
                // It has logged how that went.
                let _ = handle.reload().await;
            }
        }
    }
}

/// Models as all commands find them.
struct Models {
    global: Global,
    device: Option<DeviceChoice>,
}

impl Models {
    fn find(&self, source: &str) -> std::result::Result<Found, String> {
        model::find(source, Global { quiet: true, ..self.global }).map_err(|error| error.to_string())
    }

    /// How a model of the configuration, or of a cascade, is loaded.
    fn options(&self, config: &ModelConfig) -> (LoadOptions, Global) {
        let mut options = LoadOptions::new();
        options = match config.precision.as_str() {
            "f32" => options.precision(jointly::Precision::F32),
            "bf16" => options.precision(jointly::Precision::Bf16),
            "f16" => options.precision(jointly::Precision::F16),
            "int8" => options.precision(jointly::Precision::Int8),
            _ => options.auto_precision(),
        };
        if config.max_length > 0 {
            options = options.max_length(config.max_length);
        }
        if !config.calibration.is_empty() {
            options = options.calibration(&config.calibration);
        }
        if let Some(device) = &self.device {
            options = options.device(device.clone());
        }
        let threads = if config.threads > 0 { Some(config.threads) } else { self.global.threads };
        (options, Global { threads, quiet: true, ..self.global })
    }
}

impl Loader for Models {
    fn load(&self, _: &str, config: &ModelConfig) -> std::result::Result<Arc<dyn Engine>, String> {
        let (options, global) = self.options(config);
        let encoder = self.find(&config.source)?.load(options, global).map_err(|error| error.to_string())?;
        if self.device.is_some() && !self.global.quiet {
            say(format_args!("device {}", encoder.info().device));
        }
        Ok(Arc::new(Model::new(encoder).map_err(|error| error.to_string())?))
    }

    fn bi_encoder(&self, config: &ModelConfig) -> std::result::Result<Arc<BiEncoder>, String> {
        let (options, global) = self.options(config);
        model::bi_encoder(&config.source, options, global).map(Arc::new).map_err(|error| error.to_string())
    }

    fn one_pass(&self, config: &ModelConfig) -> std::result::Result<Arc<OnePass>, String> {
        let (options, global) = self.options(config);
        model::one_pass(&config.source, options, global).map(Arc::new).map_err(|error| error.to_string())
    }

    fn bytes(&self, config: &ModelConfig) -> Option<u64> {
        let (Found::At(path) | Found::Snapshot(path)) = self.find(&config.source).ok()? else { return None };
        let metadata = std::fs::metadata(&path).ok()?;
        if metadata.is_file() {
            return Some(metadata.len());
        }
        let files = std::fs::read_dir(&path).ok()?.flatten();
        let weights = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "safetensors"));
        // Links of the hub's cache count as what they lead to.
        Some(
            weights
                .filter_map(|file| std::fs::metadata(file.path()).ok())
                .map(|metadata| metadata.len())
                .sum(),
        )
    }
}

fn show_hash() -> Result<()> {
    let mut stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        say("type the key, then Enter; it is shown here, but kept nowhere");
    }
    let mut key = String::new();
    stdin.read_line(&mut key).map_err(|error| CliError::Failed(format!("standard input: {error}")))?;
    let key = key.trim_end_matches(['\r', '\n']);
    if key.len() < 16 {
        return Err(CliError::Input("a key has at least 16 bytes: shorter ones can be guessed".into()));
    }
    let mut output = Output::new();
    output.line(format_args!("{}", hash_key(key)))?;
    output.flush()
}
