use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use jointly::rank::listwise::OnePass;
use jointly::text::EncodedPair;
use jointly::{BiEncoder, CrossEncoder, Encoded, LoadOptions, Pair, Result, Score, ScoreOptions};
use jointly_server::config::ModelConfig;
use jointly_server::engine::{Engine, Model};
use jointly_server::{LoadedCard, Loader};

/// What a test does to the model.
#[derive(Debug, Default)]
pub struct Control {
    held: Mutex<bool>,
    changed: Condvar,
    /// Batches wait for this.
    pub began: AtomicUsize,
    /// Pairs that were computed.
    pub pairs: AtomicUsize,
    /// It gives NaN.
    pub gives_nan: AtomicBool,
    /// Its device is lost.
    pub loses_device: AtomicBool,
    /// Its self-check fails.
    pub fails_check: AtomicBool,
    /// It panics.
    pub panics: AtomicBool,
    /// It cannot be loaded.
    pub fails_load: AtomicBool,
    /// How often it was loaded.
    pub loads: AtomicUsize,
    /// How often models were loaded that have no queue.
    pub loads_beside: AtomicUsize,
}

impl Control {
    /// Batches, and loading, wait from now on.
    pub fn hold(&self) {
        *self.held.lock().unwrap() = true;
    }

    /// They go on.
    pub fn release(&self) {
        *self.held.lock().unwrap() = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let held = self.held.lock().unwrap();
        drop(self.changed.wait_while(held, |held| *held).unwrap());
    }
}

pub fn tiny_bert() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny-bert")
}

pub struct Controlled {
    model: Model,
    control: Arc<Control>,
}

impl Engine for Controlled {
    fn card(&self) -> &LoadedCard {
        self.model.card()
    }

    fn encode(&self, pairs: &[Pair<'_>], options: &ScoreOptions) -> Result<Vec<Encoded>> {
        self.model.encode(pairs, options)
    }

    fn logits(&self, sequences: &[&EncodedPair]) -> Result<Vec<f32>> {
        self.control.began.fetch_add(1, Ordering::SeqCst);
        self.control.pass();
        assert!(!self.control.panics.load(Ordering::SeqCst), "a test asks for it");
        self.control.pairs.fetch_add(sequences.len(), Ordering::SeqCst);
        match self.control.gives_nan.load(Ordering::SeqCst) {
            _ if self.control.loses_device.load(Ordering::SeqCst) => Err(jointly::Error::DeviceLost {
                device: "cuda:0".into(),
                problem: "a test asks for it".into(),
            }),
            true => Ok(vec![f32::NAN; sequences.len()]),
            false => self.model.logits(sequences),
        }
    }

    fn score(&self, encoded: &Encoded, logits: &[f32]) -> Result<Score> {
        self.model.score(encoded, logits)
    }

    fn score_window(&self, encoded: &Encoded, window: usize, logit: f32) -> Result<Score> {
        self.model.score_window(encoded, window, logit)
    }

    fn check(&self) -> Result<()> {
        match self.control.fails_check.load(Ordering::SeqCst) {
            true => Err(jointly::Error::EmptyQuery),
            false if self.control.loses_device.load(Ordering::SeqCst) => self.logits(&[]).map(drop),
            false => self.model.check(),
        }
    }
}

pub struct TinyLoader(pub Arc<Control>);

impl Loader for TinyLoader {
    fn load(&self, _: &str, config: &ModelConfig) -> std::result::Result<Arc<dyn Engine>, String> {
        self.0.pass();
        if self.0.fails_load.load(Ordering::SeqCst) {
            return Err("a test asks for it".into());
        }
        let folder = if config.source == "default" { tiny_bert() } else { config.source.clone().into() };
        let encoder =
            CrossEncoder::load(folder, LoadOptions::new().threads(1)).map_err(|error| error.to_string())?;
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        let model = Model::new(encoder).map_err(|error| error.to_string())?;
        Ok(Arc::new(Controlled { model, control: Arc::clone(&self.0) }))
    }

    fn bi_encoder(&self, config: &ModelConfig) -> std::result::Result<Arc<BiEncoder>, String> {
        self.0.loads_beside.fetch_add(1, Ordering::SeqCst);
        let model = BiEncoder::load(&config.source, LoadOptions::new().threads(1));
        model.map(Arc::new).map_err(|error| error.to_string())
    }

    fn one_pass(&self, config: &ModelConfig) -> std::result::Result<Arc<OnePass>, String> {
        self.0.loads_beside.fetch_add(1, Ordering::SeqCst);
        let model = OnePass::load(&config.source, LoadOptions::new().threads(1));
        model.map(Arc::new).map_err(|error| error.to_string())
    }
}
