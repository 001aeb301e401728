//! Scores on disk: a file for each model, precision, maximum length and instruction set, a line for each pair. A run that
//! is killed has lost the query it was at.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use jointly::{CrossEncoder, Error, ErrorKind, Pair, Score, ScoreOptions, ScoreScale};
use sha2::{Digest, Sha256};

use crate::error::{CliError, Result};

/// What a model gave for one pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// What the order follows.
    pub logit: f32,
    /// The model's calibrated probability, else its score if that is one. In the cache: the score.
    pub probability: Option<f32>,
    /// This pair's share of the time that its query took.
    pub ms: f32,
    /// The threads that it took it with.
    pub threads: usize,
}

impl Scored {
    /// What `model` gives the pairs of one query. `at` says where a pair is, for messages.
    pub fn all(
        model: &CrossEncoder,
        pairs: &[Pair<'_>],
        options: &ScoreOptions,
        at: impl Fn(usize) -> String,
    ) -> Result<Vec<Self>> {
        let started = Instant::now();
        let scores = model.score_pairs_with(pairs, options).map_err(|error| match error {
            Error::Pair { index, source } if source.kind() == ErrorKind::Input => {
                CliError::Input(format!("{}: {source}", at(index)))
            }
            Error::Pair { index, source } => CliError::Failed(format!("{}: {source}", at(index))),
            Error::NotFinite { index, logit } => {
                CliError::Failed(format!("{}: the model gave {logit}, which is not a score", at(index)))
            }
            error => error.into(),
        })?;
        Ok(Self::of(model, &scores, started))
    }

    /// Scores that were asked for at `started` and are there now.
    pub fn of(model: &CrossEncoder, scores: &[Score], started: Instant) -> Vec<Self> {
        let ms = started.elapsed().as_secs_f64() * 1e3;
        // By tokens, because that is what time goes by.
        let tokens = scores.iter().map(|score| score.tokens).sum::<usize>().max(1) as f64;
        let info = model.info();
        let is_probability = info.score_scale == ScoreScale::Probability;
        let scored = scores.iter().map(|score| Self {
            logit: score.logit,
            probability: is_probability.then_some(score.score),
            ms: (ms * score.tokens as f64 / tokens) as f32,
            threads: info.threads,
        });
        scored.collect()
    }

    /// The mean time of the pairs that took it with so many threads; none if there are none.
    pub fn mean_ms<'a>(of: impl IntoIterator<Item = &'a Self>, threads: usize) -> Option<f64> {
        let timed = of.into_iter().filter(|scored| scored.threads == threads);
        let (sum, count) =
            timed.fold((0.0, 0_usize), |(sum, count), scored| (sum + f64::from(scored.ms), count + 1));
        (count > 0).then(|| sum / count as f64)
    }
}

/// A pair of texts: the first half of its SHA-256.
pub type Key = [u8; 16];

pub fn key(query: &str, document: &str) -> Key {
    let mut hash = Sha256::new();
    hash.update((query.len() as u64).to_le_bytes());
    hash.update(query);
    hash.update(document);
    let mut key = Key::default();
    key.copy_from_slice(&hash.finalize()[..16]);
    key
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The folder for scores if none is named: `jointly/eval` in the user's folder for caches.
pub fn default_folder() -> Result<PathBuf> {
    jointly::cache_folder("eval")
        .ok_or_else(|| CliError::Input("there is no home folder to keep scores in; --cache names one".into()))
}

/// The scores of one model.
pub struct Cache {
    path: PathBuf,
    scores: HashMap<Key, Scored>,
    writer: BufWriter<File>,
}

impl Cache {
    /// Opens the file of what `made` describes, and takes all whole lines of it. What is behind them is cut off.
    pub fn open(folder: &Path, made: &str) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| CliError::file(folder, &error))?;
        let path = folder.join(format!("{}.scores", &hex(&Sha256::digest(made))[..32]));
        let failed = |error: io::Error| CliError::file(&path, &error);
        let mut options = OpenOptions::new();
        let mut file =
            options.create(true).read(true).write(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CliError::Failed(format!(
                    "{}: another process is writing it; wait for it, or name another folder with --cache",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let scores = read(&mut file, made).map_err(failed)?;
        let mut cache = Self { path: path.clone(), scores, writer: BufWriter::new(file) };
        if cache.writer.get_ref().metadata().map_err(failed)?.len() == 0 {
            cache.line(&header(made))?;
        }
        Ok(cache)
    }

    pub fn get(&self, key: &Key) -> Option<Scored> {
        self.scores.get(key).copied()
    }

    /// The places of the keys that are not there; of the same text twice the first.
    pub fn missing(&self, keys: &[Key]) -> Vec<usize> {
        let mut seen = HashSet::new();
        (0..keys.len())
            .filter(|&place| self.get(&keys[place]).is_none() && seen.insert(keys[place]))
            .collect()
    }

    /// Keeps what a query gave in some `places` of its keys. When this returns, the system has it.
    pub fn add(&mut self, keys: &[Key], places: &[usize], scored: &[Scored]) -> Result<()> {
        for (key, scored) in places.iter().map(|&place| &keys[place]).zip(scored) {
            let probability = scored.probability.map_or("-".into(), |value| value.to_string());
            let Scored { logit, ms, threads, .. } = scored;
            self.line(&format!("{}\t{logit}\t{probability}\t{ms}\t{threads}", hex(key)))?;
            self.scores.insert(*key, *scored);
        }
        self.writer.flush().map_err(|error| CliError::file(&self.path, &error))
    }

    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.writer, "{line}").map_err(|error| CliError::file(&self.path, &error))
    }
}

/// The first line. It is for people too: what the scores in the file are of.
fn header(made: &str) -> String {
    format!("jointly scores 1\t{made}")
}

fn read(file: &mut File, made: &str) -> io::Result<HashMap<Key, Scored>> {
    let (mut scores, mut whole, mut line) = (HashMap::new(), 0, Vec::new());
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(&mut *file);
    let mut first = true;
    loop {
        line.clear();
        let count = reader.read_until(b'\n', &mut line)?;
        let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
        match text {
            Some(text) if first && text == header(made) => {}
            Some(text) if !first => match parse(text) {
                Some((key, scored)) => drop(scores.insert(key, scored)),
                None => break,
            },
            _ => break,
        }
        first = false;
        whole += count as u64;
    }
    file.set_len(whole)?;
    file.seek(SeekFrom::Start(whole))?;
    Ok(scores)
}

fn parse(line: &str) -> Option<(Key, Scored)> {
    let columns: Vec<&str> = line.split('\t').collect();
    let [key, logit, probability, ms, threads] = columns[..] else { return None };
    let mut bytes = Key::default();
    if key.len() != 2 * bytes.len() || !key.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&key[2 * place..2 * place + 2], 16).ok()?;
    }
    let finite = |text: &str| text.parse().ok().filter(|value: &f32| value.is_finite());
    let probability = if probability == "-" { None } else { Some(finite(probability)?) };
    let scored =
        Scored { logit: finite(logit)?, probability, ms: finite(ms)?, threads: threads.parse().ok()? };
    Some((bytes, scored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_there_again_and_a_half_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, scored): (Vec<Key>, Vec<Scored>) = (0..3)
            .map(|i| {
                let logit = 0.1 * i as f32 - 1e-7;
                let probability = (i == 1).then_some(0.25);
                (key("q", &i.to_string()), Scored { logit, probability, ms: 1.5, threads: 2 })
            })
            .unzip();
        Cache::open(folder.path(), "a").unwrap().add(&keys, &[0, 1, 2], &scored).unwrap();
        let path = Cache::open(folder.path(), "a").unwrap().path;
        let whole = fs::read(&path).unwrap();
        for (end, left) in [(&b""[..], 3), (b"00ff", 3), (b"\0\0\0\n", 3), (b"x\t1\t-\t1\t1\n", 3)] {
            fs::write(&path, [&whole[..], end].concat()).unwrap();
            let cache = Cache::open(folder.path(), "a").unwrap();
            assert_eq!(cache.scores.len(), left);
            assert!(keys.iter().zip(&scored).all(|(key, scored)| cache.get(key) == Some(*scored)));
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
        let cache = Cache::open(folder.path(), "a").unwrap();
        assert_eq!(cache.missing(&[keys[1], key("x", ""), keys[0], key("x", ""), key("y", "")]), [1, 4]);
        drop(cache);
        // Of another model, or cut in its first line: nothing of it is used.
        assert!(Cache::open(folder.path(), "b").unwrap().scores.is_empty());
        fs::write(&path, &whole[..10]).unwrap();
        assert!(Cache::open(folder.path(), "a").unwrap().scores.is_empty());
        assert_ne!(key("ab", "c"), key("a", "bc"));
    }
}
