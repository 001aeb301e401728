//! What scores: one model in a process, one batch at a time, on all threads.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use datafusion::arrow::array::{Array, StringViewArray};
use datafusion::common::config::{ConfigEntry, ConfigExtension, ExtensionOptions};
use datafusion::common::{config_datafusion_err, config_err};
use jointly::calibration::Calibration;
use jointly::{CrossEncoder, Long, Pair, Score, ScoreOptions, WindowOptions};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Fault, Result};

/// Rows of a record batch: as many pairs as the model sorts by length and packs together.
pub const BATCH_ROWS: usize = 2048;
/// Scores remembered at least, and half as many as at most: some 30 MB.
const REMEMBERED: usize = 1 << 17;

/// How a query scores. It is part of the session's configuration, which travels with a query to whoever runs a piece of it;
/// functions travel by name only.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Scoring {
    /// The model that it is for; none on one machine, where there is one model.
    pub model: Option<Identity>,
    /// The longest pair in tokens, if not the model's own.
    pub max_length: Option<usize>,
    /// Whether documents that are too long are read in windows.
    pub windows: bool,
    /// Tokens from one window to the next, if not half the room.
    pub stride: Option<usize>,
    /// Windows read at most, if not as many as the library reads.
    pub max_windows: Option<usize>,
    /// What to look for, for models whose template takes an instruction.
    pub instruction: Option<String>,
}

/// What a score depends on beside the pair and the options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// One hash of all files that scores depend on.
    pub model: String,
    /// What the layers multiply in.
    pub precision: String,
    /// What tells the calibration from another.
    pub calibration: String,
}

impl ConfigExtension for Scoring {
    const PREFIX: &'static str = "jointly";
}

/// One setting, `jointly.scoring`: the macro that would make one of each field lets them travel without the prefix, by which the
/// other side tells whose they are.
impl ExtensionOptions for Scoring {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> datafusion::error::Result<()> {
        if key != "scoring" {
            return config_err!("jointly.{key}: there is no such setting");
        }
        *self = serde_json::from_str(value)
            .map_err(|error| config_datafusion_err!("jointly.scoring: {error}"))?;
        Ok(())
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        vec![ConfigEntry {
            key: "jointly.scoring".into(),
            value: serde_json::to_string(self).ok(),
            description: "how pairs are scored",
        }]
    }
}

impl Scoring {
    /// The options of the library; with `windows` in any case in windows.
    pub fn options(&self, windows: bool) -> ScoreOptions {
        let mut options = ScoreOptions::new();
        if self.windows || windows {
            let mut windows = WindowOptions::new();
            if let Some(max_windows) = self.max_windows {
                windows = windows.max_windows(max_windows);
            }
            if let Some(stride) = self.stride {
                windows = windows.stride(stride);
            }
            options = options.long(Long::Windows(windows));
        }
        if let Some(max_length) = self.max_length {
            options = options.max_length(max_length);
        }
        if let Some(instruction) = &self.instruction {
            options = options.instruction(instruction);
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
    identity: Identity,
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
        let identity = Identity {
            model: jointly::receipt::identity(model.files())?,
            precision: model.info().precision.name().to_string(),
            calibration: calibration_fingerprint(model.calibration()),
        };
        Ok(Self { model, identity, executor, memo: Mutex::default(), scored: AtomicU64::new(0) })
    }

    /// The model.
    pub fn model(&self) -> &CrossEncoder {
        &self.model
    }

    /// What its scores depend on.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Pairs scored so far.
    pub fn scored(&self) -> u64 {
        self.scored.load(Ordering::Relaxed)
    }

    /// Whether this is the model that a query was made for.
    pub fn check(&self, scoring: &Scoring) -> std::result::Result<(), Fault> {
        let Some(executor) = &self.executor else { return Ok(()) };
        let here = &self.identity;
        let Some(there) = &scoring.model else {
            let message =
                format!("executor {executor}: the query does not say its model; jointly-sql says it");
            return Err(Fault::input(message));
        };
        let differs = [
            ("model", &here.model, &there.model),
            ("precision", &here.precision, &there.precision),
            ("calibration", &here.calibration, &there.calibration),
        ];
        let Some((what, here, there)) = differs.into_iter().find(|(_, here, there)| here != there) else {
            return Ok(());
        };
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
