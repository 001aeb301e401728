//! What scores: a model, seen from the queue.

use jointly::receipt::{self, Receipt};
use jointly::text::EncodedPair;
use jointly::{CrossEncoder, Encoded, Pair, Result, Score, ScoreOptions, ScoreScale};

use crate::LoadedCard;

/// What scores pairs: a [`Model`]; tests have others, that are slow or wrong.
pub trait Engine: Send + Sync + 'static {
    /// What it is.
    fn card(&self) -> &LoadedCard;

    /// Tokenises pairs on the calling thread.
    ///
    /// # Errors
    /// As [`CrossEncoder::encode`].
    fn encode(&self, pairs: &[Pair<'_>], options: &ScoreOptions) -> Result<Vec<Encoded>>;

    /// The logit of each sequence, on all threads or on the device.
    ///
    /// # Errors
    /// As [`CrossEncoder::logits`].
    fn logits(&self, sequences: &[&EncodedPair]) -> Result<Vec<f32>>;

    /// How many threads may compute side by side, each with [`Engine::logits_here`]; 1 if that gains nothing.
    fn lanes(&self) -> usize {
        1
    }

    /// As [`Engine::logits`], on the calling thread.
    ///
    /// # Errors
    /// As [`CrossEncoder::logits`].
    fn logits_here(&self, sequences: &[&EncodedPair]) -> Result<Vec<f32>> {
        self.logits(sequences)
    }

    /// The score of a pair from the logits of its windows.
    ///
    /// # Errors
    /// [`jointly::Error::NotFinite`].
    fn score(&self, encoded: &Encoded, logits: &[f32]) -> Result<Score>;

    /// The score of one window of a pair by itself.
    ///
    /// # Errors
    /// [`jointly::Error::NotFinite`].
    fn score_window(&self, encoded: &Encoded, window: usize, logit: f32) -> Result<Score>;

    /// Whether it still gives what it should.
    ///
    /// # Errors
    /// The first thing that does not hold.
    fn check(&self) -> Result<()>;
}

/// A cross-encoder that was loaded, and what it is checked against. The receipt is kept: its file may be that of the next model.
#[derive(Debug)]
pub struct Model {
    encoder: CrossEncoder,
    receipt: Option<Receipt>,
    card: LoadedCard,
}

impl Model {
    /// Of a cross-encoder that was loaded with its receipt checked.
    ///
    /// # Errors
    /// Those of reading its files.
    pub fn new(encoder: CrossEncoder) -> Result<Self> {
        let info = encoder.info();
        let card = LoadedCard {
            architecture: info.architecture.to_string(),
            max_length: info.max_length,
            precision: info.precision.to_string(),
            scale: info.score_scale,
            is_calibrated: encoder.calibration().is_some(),
            is_healthy: true,
            identity: receipt::identity(encoder.files())?,
            threads: info.threads,
            parameters: info.parameters,
        };
        let receipt = Receipt::read(encoder.files())?;
        Ok(Self { encoder, receipt, card })
    }
}

impl Engine for Model {
    fn card(&self) -> &LoadedCard {
        &self.card
    }

    fn encode(&self, pairs: &[Pair<'_>], options: &ScoreOptions) -> Result<Vec<Encoded>> {
        self.encoder.encode(pairs, options)
    }

    fn logits(&self, sequences: &[&EncodedPair]) -> Result<Vec<f32>> {
        self.encoder.logits(sequences)
    }

    fn lanes(&self) -> usize {
        self.encoder.lanes()
    }

    fn logits_here(&self, sequences: &[&EncodedPair]) -> Result<Vec<f32>> {
        self.encoder.logits_here(sequences)
    }

    fn score(&self, encoded: &Encoded, logits: &[f32]) -> Result<Score> {
        self.encoder.score(encoded, logits)
    }

    fn score_window(&self, encoded: &Encoded, window: usize, logit: f32) -> Result<Score> {
        self.encoder.score_window(encoded, window, logit)
    }

    fn check(&self) -> Result<()> {
        match &self.receipt {
            Some(receipt) => receipt.check_scores(&self.encoder).map(drop),
            None => receipt::check_without_receipt(&self.encoder).map(drop),
        }
    }
}

/// The scale, by its name in answers.
#[must_use]
pub fn scale_name(scale: ScoreScale) -> &'static str {
    match scale {
        ScoreScale::Logit => "logit",
        ScoreScale::Probability => "probability",
        _ => "ordinal",
    }
}
