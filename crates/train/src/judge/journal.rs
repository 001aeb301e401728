//! The votes file: a line for each vote, added as it comes.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Ballot, Error, Pair, Result, Usage, digest};

/// After so many votes or so long a time they are on the disk, and not only with the system.
const SYNC_VOTES: u32 = 256;
const SYNC_TIME: Duration = Duration::from_secs(5);

/// A line of the votes file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VoteLine {
    /// The pair.
    #[serde(flatten)]
    pub pair: Pair,
    /// Who votes.
    pub judge: String,
    /// The share for `b`, from 0 to 1; null is an abstention. It must be there: a line without it is no vote.
    #[serde(deserialize_with = "Option::deserialize")]
    pub vote: Option<f64>,
    /// Whether `b` was shown first.
    #[serde(default)]
    pub swapped: bool,
    /// Why there is no vote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// No answer came: asked again by the next run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unanswered: bool,
    /// Tokens of the prompt, all attempts together.
    #[serde(default, skip_serializing_if = "is_default")]
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    #[serde(default, skip_serializing_if = "is_default")]
    pub completion_tokens: u64,
    /// In the currency of the prices.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cost: f64,
    /// How many of the texts were cut.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cut: u32,
    /// What the judge was set to, as a hash; empty if unknown.
    #[serde(default, skip_serializing_if = "is_default")]
    pub settings: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl VoteLine {
    /// A ballot as a line.
    pub fn new(pair: &Pair, swapped: bool, judge: (&str, &str), ballot: Ballot) -> Self {
        let (judge, settings) = judge;
        Self {
            pair: pair.clone(),
            judge: judge.to_owned(),
            // Eight digits are more than a vote is worth; and 0.30000000000000004 is for nobody.
            vote: ballot.vote.map(|vote| (vote * 1e8).round() / 1e8),
            swapped,
            reason: ballot.reason,
            unanswered: ballot.unanswered,
            prompt_tokens: ballot.usage.prompt_tokens,
            completion_tokens: ballot.usage.completion_tokens,
            cost: ballot.usage.cost,
            cut: ballot.cut,
            settings: settings.to_owned(),
        }
    }

    fn usage(&self) -> Usage {
        let Self { prompt_tokens, completion_tokens, cost, .. } = *self;
        Usage { prompt_tokens, completion_tokens, cost }
    }
}

/// Pair, judge and order: two lines that agree in these are the same vote.
type Key = [u8; 16];

fn key(pair: &Pair, judge: &str, swapped: bool) -> Key {
    let query_b = pair.query_b.as_deref().unwrap_or_default();
    let order = match (swapped, pair.query_b.is_some()) {
        (false, false) => "ab",
        (true, false) => "ba",
        (false, true) => "ab2",
        (true, true) => "ba2",
    };
    digest(&[&pair.query, &pair.a, query_b, &pair.b, judge, order])
}

/// What is known of a vote.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub vote: Option<f64>,
    pub unanswered: bool,
}

/// What a judge did, all runs together.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Tally {
    /// Votes.
    pub votes: u64,
    /// Answers without a vote.
    pub abstentions: u64,
    /// Questions without an answer.
    pub unanswered: u64,
    /// Votes of exactly one half.
    pub ties: u64,
    /// The mean share of the document that was shown first: the position bias is how far it is from 0.5, once orders are
    /// drawn by lot or both are asked. None for judges that read no order.
    pub first_share: Option<f64>,
    /// Pairs asked in both orders with a vote in each.
    pub both_orders: u64,
    /// Of these, pairs with the same winner, or none, both times.
    pub agreeing: u64,
}

/// What a line begins with that we have written.
const BEGINNING: &[u8] = b"{\"query\":\"";

/// The votes file, open for more.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    known: HashMap<Key, Known>,
    /// Of each judge, and the line that says so.
    settings: HashMap<String, (String, u64)>,
    usage: HashMap<String, Usage>,
    lines: u64,
    unsynced: u32,
    synced: Instant,
}

impl Journal {
    /// Opens the file and reads what stands in it; with `anew`, empties it. Half a vote at its end, as a killed process
    /// leaves it, is cut off; nothing else is.
    ///
    /// # Errors
    /// [`Error::Line`], [`Error::Locked`], [`Error::Io`].
    pub fn open(path: &Path, anew: bool) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_path_buf(), source };
        let mut options = OpenOptions::new();
        let file = options.create(true).read(true).append(true).open(path).map_err(io)?;
        if !crate::lock::try_lock(&file).map_err(io)? {
            return Err(Error::Locked { path: path.to_path_buf() });
        }
        if anew {
            file.set_len(0).map_err(io)?;
        }
        let mut journal = Self {
            path: path.to_path_buf(),
            file,
            known: HashMap::new(),
            settings: HashMap::new(),
            usage: HashMap::new(),
            lines: 0,
            unsynced: 0,
            synced: Instant::now(),
        };
        let mut whole = 0;
        let rest = each_line(path, |raw| {
            whole += raw.len() as u64;
            journal.read(raw)
        })?;
        let is_ours = rest.starts_with(BEGINNING) || BEGINNING.starts_with(&rest);
        if is_ours && serde_json::from_slice::<serde::de::IgnoredAny>(&rest).is_err() {
            journal.file.set_len(whole).map_err(io)?;
        } else {
            journal.read(&rest)?;
            journal.file.write_all(b"\n").map_err(io)?;
        }
        Ok(journal)
    }

    fn read(&mut self, raw: &[u8]) -> Result<()> {
        self.lines += 1;
        let line: VoteLine = serde_json::from_slice(raw).map_err(|error| Error::Line {
            path: self.path.clone(),
            line: self.lines,
            problem: format!("not a vote: {error}; take the line out, or name another file"),
        })?;
        self.count(&line);
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What stands in the file for a vote.
    pub(crate) fn known(&self, pair: &Pair, judge: &str, swapped: bool) -> Option<Known> {
        self.known.get(&key(pair, judge, swapped)).copied()
    }

    /// The settings of a judge's earlier votes, and the line of the last of these.
    pub fn settings_of(&self, judge: &str) -> Option<(&str, u64)> {
        self.settings.get(judge).map(|(settings, line)| (settings.as_str(), *line))
    }

    /// What a judge's lines cost.
    pub fn usage_of(&self, judge: &str) -> Usage {
        self.usage.get(judge).copied().unwrap_or_default()
    }

    /// What all lines cost.
    pub fn usage(&self) -> Usage {
        let mut all = Usage::default();
        self.usage.values().for_each(|usage| all.add(*usage));
        all
    }

    /// What a judge did with these pairs.
    pub fn tally<'p>(
        &self,
        judge: &str,
        pairs: impl Iterator<Item = &'p Pair>,
        reads_in_order: bool,
    ) -> Tally {
        let mut tally = Tally::default();
        let mut first = 0.0;
        for pair in pairs {
            let orders = [false, true].map(|swapped| self.known(pair, judge, swapped));
            for (known, swapped) in orders.into_iter().zip([false, true]) {
                match known {
                    Some(Known { vote: Some(vote), .. }) => {
                        tally.votes += 1;
                        tally.ties += u64::from(vote == 0.5);
                        first += if swapped { vote } else { 1.0 - vote };
                    }
                    Some(Known { unanswered: true, .. }) => tally.unanswered += 1,
                    Some(_) => tally.abstentions += 1,
                    None => {}
                }
            }
            if let [Some(Known { vote: Some(a), .. }), Some(Known { vote: Some(b), .. })] = orders {
                tally.both_orders += 1;
                tally.agreeing += u64::from(a.total_cmp(&0.5) == b.total_cmp(&0.5));
            }
        }
        tally.first_share = (reads_in_order && tally.votes > 0).then(|| first / tally.votes as f64);
        tally
    }

    /// Adds a vote. A process that is killed after this has not lost it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&mut self, line: &VoteLine) -> Result<()> {
        let io = |source| Error::Io { path: self.path.clone(), source };
        let mut text = serde_json::to_vec(line).map_err(|error| io(error.into()))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(io)?;
        self.lines += 1;
        self.count(line);
        self.unsynced += 1;
        if self.unsynced >= SYNC_VOTES || self.synced.elapsed() >= SYNC_TIME {
            self.sync()?;
        }
        Ok(())
    }

    /// Waits until all is on the disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|source| Error::Io { path: self.path.clone(), source })?;
        (self.unsynced, self.synced) = (0, Instant::now());
        Ok(())
    }

    /// Sorts the file by pair, judge and order, so that what stands in it does not depend on who was faster. Lines of
    /// other pairs and judges come last, as they were.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sort<'p>(mut self, pairs: impl Iterator<Item = &'p Pair>, judges: &[&str]) -> Result<()> {
        self.sync()?;
        let mut places: HashMap<Key, usize> = HashMap::new();
        for pair in pairs {
            for judge in judges {
                for swapped in [false, true] {
                    let next = places.len();
                    places.entry(key(pair, judge, swapped)).or_insert(next);
                }
            }
        }
        let mut lines: Vec<(usize, Vec<u8>)> = Vec::new();
        each_line(&self.path, |raw| {
            let line: Option<VoteLine> = serde_json::from_slice(raw).ok();
            let place =
                line.and_then(|line| places.get(&key(&line.pair, &line.judge, line.swapped)).copied());
            lines.push((place.unwrap_or(usize::MAX), raw.to_vec()));
            Ok(())
        })?;
        if lines.is_sorted_by_key(|(place, _)| *place) {
            return Ok(());
        }
        lines.sort_by_key(|(place, _)| *place);
        let io = |source| Error::Io { path: self.path.clone(), source };
        let mut name = self.path.as_os_str().to_owned();
        name.push(".sorted");
        let sorted = PathBuf::from(name);
        let mut writer = BufWriter::new(File::create(&sorted).map_err(io)?);
        for (_, raw) in &lines {
            writer.write_all(raw).map_err(io)?;
        }
        let file = writer.into_inner().map_err(|error| io(error.into_error()))?;
        file.sync_all().map_err(io)?;
        fs::rename(&sorted, &self.path).map_err(io)
    }

    fn count(&mut self, line: &VoteLine) {
        self.usage.entry(line.judge.clone()).or_default().add(line.usage());
        if !line.settings.is_empty() {
            self.settings.insert(line.judge.clone(), (line.settings.clone(), self.lines));
        }
        let known = Known { vote: line.vote, unanswered: line.unanswered };
        let key = key(&line.pair, &line.judge, line.swapped);
        // A vote is not lost to a later abstention.
        let before = self.known.get(&key).and_then(|known| known.vote);
        if before.is_none() || known.vote.is_some() {
            self.known.insert(key, known);
        }
    }
}

/// Every whole line with its end; gives what is behind the last one.
fn each_line(path: &Path, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<Vec<u8>> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let mut reader = BufReader::new(File::open(path).map_err(io)?);
    let mut raw = Vec::new();
    loop {
        raw.clear();
        reader.read_until(b'\n', &mut raw).map_err(io)?;
        if !raw.ends_with(b"\n") {
            return Ok(raw);
        }
        each(&raw)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(query: &str, a: &str, b: &str) -> Pair {
        Pair { query: query.into(), a: a.into(), query_b: None, b: b.into() }
    }

    fn line(pair: &Pair, vote: Option<f64>, swapped: bool) -> VoteLine {
        let usage = Usage { prompt_tokens: 10, completion_tokens: 1, cost: 0.5 };
        VoteLine::new(pair, swapped, ("j", "s"), Ballot { vote, usage, ..Ballot::default() })
    }

    #[test]
    fn a_killed_process_loses_half_a_line_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("votes.jsonl");
        let (p, q) = (pair("1", "a", "b"), pair("1", "a", "c"));
        let mut journal = Journal::open(&path, false).unwrap();
        assert!(matches!(Journal::open(&path, false), Err(Error::Locked { .. })));
        journal.add(&line(&p, Some(0.25), false)).unwrap();
        drop(journal);
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}{{\"query\":\"1\",\"a\":\"a\",\"b\":\"c\"")).unwrap();
        let mut journal = Journal::open(&path, false).unwrap();
        assert_eq!(journal.known(&p, "j", false).unwrap().vote, Some(0.25));
        assert!(journal.known(&q, "j", false).is_none());
        assert!(journal.known(&p, "j", true).is_none() && journal.known(&p, "k", false).is_none());
        assert_eq!(journal.usage(), Usage { prompt_tokens: 10, completion_tokens: 1, cost: 0.5 });
        journal.add(&line(&q, None, false)).unwrap();
        drop(journal);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().next(), whole.lines().next());
        drop(Journal::open(&path, true).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_line_that_is_no_vote_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("votes.jsonl");
        fs::write(
            &path,
            "{\"query\":\"1\",\"a\":\"a\",\"b\":\"c\",\"judge\":\"j\",\"vote\":null,\"x\":1}\nx\n",
        )
        .unwrap();
        let error = Journal::open(&path, false).unwrap_err().to_string();
        assert!(error.contains("votes.jsonl:2: not a vote"), "{error}");
    }

    #[test]
    fn what_has_no_end_of_line_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("votes.jsonl");
        let vote = r#"{"query":"1","a":"a","b":"b","judge":"j","vote":0.5}"#;
        fs::write(&path, vote).unwrap();
        let journal = Journal::open(&path, false).unwrap();
        assert_eq!(journal.known(&pair("1", "a", "b"), "j", false).unwrap().vote, Some(0.5));
        drop(journal);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{vote}\n"));
        for foreign in ["{\"hidden_size\": 384}", "{\"query\":\"q\",\"documents\":[]}", "a text"] {
            fs::write(&path, foreign).unwrap();
            let error = Journal::open(&path, false).unwrap_err().to_string();
            assert!(error.contains("votes.jsonl:1: not a vote"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), foreign);
        }
    }

    #[test]
    fn the_file_is_sorted_by_pairs_and_keeps_foreign_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("votes.jsonl");
        let pairs = [pair("1", "a", "b"), pair("1", "b", "c")];
        let mut journal = Journal::open(&path, false).unwrap();
        for (pair, swapped) in
            [(&pair("9", "x", "y"), false), (&pairs[1], true), (&pairs[0], true), (&pairs[0], false)]
        {
            journal.add(&line(pair, Some(0.5), swapped)).unwrap();
        }
        assert_eq!(journal.tally("j", pairs.iter(), true).votes, 3);
        journal.sort(pairs.iter(), &["j"]).unwrap();
        let lines: Vec<VoteLine> = fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let places: Vec<_> =
            lines.iter().map(|line| (line.pair.query.as_str(), line.pair.a.as_str())).collect();
        assert_eq!(places, [("1", "a"), ("1", "a"), ("1", "b"), ("9", "x")]);
        assert_eq!(lines.iter().map(|line| line.swapped).collect::<Vec<_>>(), [false, true, true, false]);
    }

    #[test]
    fn position_bias_and_agreement() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&folder.path().join("v"), false).unwrap();
        let pairs = [pair("1", "a", "b"), pair("1", "b", "c")];
        // A judge that always votes for what it sees first ...
        journal.add(&line(&pairs[0], Some(0.0), false)).unwrap();
        journal.add(&line(&pairs[0], Some(1.0), true)).unwrap();
        // ... and once for the same document.
        journal.add(&line(&pairs[1], Some(1.0), false)).unwrap();
        journal.add(&line(&pairs[1], Some(1.0), true)).unwrap();
        let tally = journal.tally("j", pairs.iter(), true);
        assert_eq!((tally.first_share, tally.both_orders, tally.agreeing), (Some(0.75), 2, 1));
    }
}
