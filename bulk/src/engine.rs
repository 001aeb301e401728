//! What scores: one model in a process, one batch at a time, on all threads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use datafusion::arrow::array::{Array, StringViewArray};
use datafusion::common::config::ConfigExtension;
use datafusion::common::extensions_options;
use jointly::calibration::Calibration;
use jointly::{CrossEncoder, Long, Pair, Score, ScoreOptions, WindowOptions};
use sha2::{Digest, Sha256};

use crate::error::{Fault, Result};

/// Rows of a record batch: as many pairs as the model sorts by length and packs together.
pub const BATCH_ROWS: usize = 2048;
/// Scores remembered at least, and half as many as at most: some 30 MB.
const REMEMBERED: usize = 1 << 17;

extensions_options! {
    /// How a query scores. It is part of the session's configuration, which travels with a query to whoever runs a piece of it;
    /// functions travel by name only.
    pub struct Scoring {
        /// The identity of the model's files; empty on one machine, where there is one model.
        pub model: String, default = String::new()
        /// What the layers multiply in.
        pub precision: String, default = String::new()
        /// The fingerprint of the calibration.
        pub calibration: String, default = String::new()
        /// The longest pair in tokens; 0 is the model's own.
        pub max_length: usize, default = 0
        /// Whether documents that are too long are read in windows.
        pub windows: bool, default = false
        /// Tokens from one window to the next; 0 is half the room.
        pub stride: usize, default = 0
        /// Windows read at most.
        pub max_windows: usize, default = WindowOptions::DEFAULT_MAX_WINDOWS
        /// What to look for, for models whose template takes an instruction.
        pub instruction: String, default = String::new()
    }
}

impl ConfigExtension for Scoring {
    const PREFIX: &'static str = "jointly";
}

impl Scoring {
    /// The options of the library; with `windows` in any case in windows.
    pub fn options(&self, windows: bool) -> ScoreOptions {
        let mut options = ScoreOptions::new();
        if self.windows || windows {
            let windows = WindowOptions::new().max_windows(self.max_windows);
            options = options.long(Long::Windows(match self.stride {
                0 => windows,
                stride => windows.stride(stride),
            }));
        }
        if self.max_length > 0 {
            options = options.max_length(self.max_length);
        }
        if !self.instruction.is_empty() {
            options = options.instruction(&self.instruction);
        }
        options
    }
}

/// What tells one calibration from another.
pub fn calibration_fingerprint(calibration: Option<&Calibration>) -> String {
    let map = calibration.and_then(|calibration| serde_json::to_string(&calibration.map).ok());
    map.map_or_else(|| "none".to_string(), |map| hex(&Sha256::digest(map)[..8]))
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why a batch could not be scored.
#[derive(Debug)]
pub enum Problem {
    /// The query in this row of the batch is null.
    NullQuery(usize),
    /// The pair in this row of the batch cannot be scored.
    Row(usize, jointly::Error),
    /// Nothing could be scored.
    All(jointly::Error),
}

/// The model of this process.
pub struct Engine {
    model: CrossEncoder,
    identity: String,
    calibration: String,
    /// The executor, in messages; none where there is only one process.
    executor: Option<String>,
    /// Held while a batch is scored: the model uses all threads for one.
    memo: Mutex<Memo>,
    scored: AtomicU64,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Engine {
    /// The engine of a process; with the name of the executor, if it is one.
    ///
    /// # Errors
    /// If a file of the model cannot be read.
    pub fn new(model: CrossEncoder, executor: Option<String>) -> Result<Self> {
        let identity = jointly::receipt::identity(model.files())?;
        let calibration = calibration_fingerprint(model.calibration());
        Ok(Self { model, identity, calibration, executor, memo: Mutex::default(), scored: AtomicU64::new(0) })
    }

    /// The model.
    pub fn model(&self) -> &CrossEncoder {
        &self.model
    }

    /// One hash of all files that scores depend on.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// What tells its calibration from another.
    pub fn calibration(&self) -> &str {
        &self.calibration
    }

    /// Pairs scored so far.
    pub fn scored(&self) -> u64 {
        self.scored.load(Ordering::Relaxed)
    }

    /// Whether this is the model that a query was made for.
    pub fn check(&self, scoring: &Scoring) -> std::result::Result<(), Fault> {
        let Some(executor) = &self.executor else { return Ok(()) };
        let precision = self.model.info().precision.name();
        let (what, here, there) = if scoring.model != self.identity {
            ("model", self.identity.as_str(), scoring.model.as_str())
        } else if scoring.precision != precision {
            ("precision", precision, scoring.precision.as_str())
        } else if scoring.calibration != self.calibration {
            ("calibration", self.calibration.as_str(), scoring.calibration.as_str())
        } else {
            return Ok(());
        };
        let there = if there.is_empty() { "none (jointly-sql says it)" } else { there };
        Err(Fault::failed(format!(
            "executor {executor} has {what} {here}; the query is for {what} {there}: start executors and query with the same \
             --model, --precision and --calibration"
        )))
    }

    /// A score for each row; none where the document is null. `queries` and `documents` are equally long.
    ///
    /// # Errors
    /// The first row that cannot be scored.
    pub fn scores(
        &self,
        queries: &StringViewArray,
        documents: &StringViewArray,
        options: &ScoreOptions,
    ) -> std::result::Result<Vec<Option<Score>>, Problem> {
        if let Some(row) = (0..queries.len()).find(|&row| queries.is_null(row)) {
            return Err(Problem::NullQuery(row));
        }
        let how = format!("{options:?}");
        let keys: Vec<Option<Key>> = (0..queries.len())
            .map(|row| documents.is_valid(row).then(|| key(&how, queries.value(row), documents.value(row))))
            .collect();
        let mut memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scores: Vec<Option<Score>> =
            keys.iter().map(|key| key.as_ref().and_then(|key| memo.get(key))).collect();
        let missing: Vec<(usize, Key)> = keys
            .iter()
            .enumerate()
            .filter_map(|(row, key)| key.filter(|_| scores[row].is_none()).map(|key| (row, key)))
            .collect();
        let pairs: Vec<Pair<'_>> = missing
            .iter()
            .map(|&(row, _)| Pair { query: queries.value(row), document: documents.value(row) })
            .collect();
        let found = self.model.score_pairs_with(&pairs, options).map_err(|error| match error {
            // Wrong for every pair, not for this one.
            jointly::Error::Pair { source, .. }
                if matches!(
                    *source,
                    jointly::Error::InvalidOption { .. } | jointly::Error::NoRoom { .. }
                ) =>
            {
                Problem::All(*source)
            }
            jointly::Error::Pair { index, source } => Problem::Row(missing[index].0, *source),
            jointly::Error::NotFinite { index, logit } => {
                Problem::Row(missing[index].0, jointly::Error::NotFinite { index: missing[index].0, logit })
            }
            error => Problem::All(error),
        })?;
        self.scored.fetch_add(found.len() as u64, Ordering::Relaxed);
        for ((row, key), score) in missing.into_iter().zip(found) {
            memo.put(key, score.clone());
            scores[row] = Some(score);
        }
        Ok(scores)
    }
}

/// The hash of a pair and of how it is scored: long enough that no two are the same.
type Key = [u8; 16];

fn key(how: &str, query: &str, document: &str) -> Key {
    let mut hash = Sha256::new();
    for text in [how, query, document] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    let mut key = Key::default();
    key.copy_from_slice(&hash.finalize()[..16]);
    key
}

/// Scores of late. A query names a score more than once (in WHERE, in ORDER BY, as score and as probability), and DataFusion
/// moves filters before projections, so the same rows come again, not always in the same batches. A score does not depend on its
/// batch, so remembering it changes no bit.
#[derive(Default)]
struct Memo {
    young: HashMap<Key, Score>,
    old: HashMap<Key, Score>,
}

impl Memo {
    fn get(&self, key: &Key) -> Option<Score> {
        self.young.get(key).or_else(|| self.old.get(key)).cloned()
    }

    fn put(&mut self, key: Key, score: Score) {
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, score);
    }
}
