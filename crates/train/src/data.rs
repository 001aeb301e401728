//! Training data: queries with documents, and what is wanted of each.
//!
//! ```json
//! {"query_id": "1", "query": "…", "documents": [{"id": "d1", "text": "…", "label": 1.7, "target": 0.83}]}
//! ```
//!
//! `label` is on an open scale, `target` a probability; a document with neither is not trained on. Other fields are ignored.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use jointly_eval::format::Lines;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::loss::{Loss, Reads};
use crate::random::Random;

/// A training file, and how often its groups come in an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// JSON lines, plain or compressed.
    pub path: PathBuf,
    /// 1 is once each; 0.5 is half of them, others in each epoch.
    pub times: f64,
}

/// A query's documents. Texts are places in [`Groups`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    query: usize,
    documents: Vec<Document>,
    times: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Document {
    text: usize,
    label: f32,
    probability: f32,
}

/// All training data.
#[derive(Debug, Default)]
pub struct Groups {
    texts: Vec<String>,
    groups: Vec<Group>,
    scale: f32,
}

#[derive(Deserialize)]
struct GroupLine {
    query: String,
    documents: Vec<DocumentLine>,
}

#[derive(Deserialize)]
struct DocumentLine {
    text: String,
    label: Option<f32>,
    target: Option<f32>,
}

/// Texts of a group that a step trains on.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Chosen<'a> {
    /// The query.
    pub query: &'a str,
    /// Its documents.
    pub documents: Vec<&'a str>,
    /// What is wanted of them.
    pub wanted: crate::loss::Wanted,
}

impl Groups {
    /// Reads all files. Each text is kept once. Labels are multiplied by `scale`.
    ///
    /// # Errors
    /// [`Error::Line`] for a line that is no group, or lacks what the loss reads; [`Error::NoGroups`] for a file without any
    /// query that has two documents to train on.
    pub fn read(sources: &[Source], loss: &Loss, scale: f32) -> Result<Self> {
        let mut groups = Self { scale, ..Self::default() };
        let mut places = HashMap::new();
        for source in sources {
            let before = groups.groups.len();
            let mut lines = Lines::open(&source.path)?;
            while let Some((number, line)) = lines.next_line()? {
                if line.trim().is_empty() {
                    continue;
                }
                let wrong =
                    |problem: String| Error::Line { path: source.path.clone(), line: number, problem };
                let group: GroupLine =
                    serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
                groups.add(group, source, loss, &mut places).map_err(wrong)?;
            }
            if groups.groups.len() == before {
                return Err(Error::NoGroups {
                    path: source.path.clone(),
                    problem: "two documents with a label",
                });
            }
        }
        Ok(groups)
    }

    fn add(
        &mut self,
        group: GroupLine,
        source: &Source,
        loss: &Loss,
        places: &mut HashMap<String, usize>,
    ) -> Result<(), String> {
        let mut documents = Vec::new();
        let mut intern = |texts: &mut Vec<String>, text: String| {
            *places.entry(text).or_insert_with_key(|text| {
                texts.push(text.clone());
                texts.len() - 1
            })
        };
        for (index, document) in group.documents.into_iter().enumerate() {
            let DocumentLine { text, label, target } = document;
            if label.is_none() && target.is_none() {
                continue;
            }
            let wrong = |problem: &str| format!("document {index} (counted from 0): {problem}");
            let probability = match target.or(label) {
                Some(p) if (0.0..=1.0).contains(&p) => p,
                _ if loss.reads(Reads::Probabilities) => {
                    return Err(wrong("the loss needs a target from 0 to 1 (or a label in that range)"));
                }
                _ => 0.0,
            };
            let label = match label {
                Some(label) if label.is_finite() => self.scale * label,
                None if !loss.reads(Reads::Labels) => 0.0,
                _ => return Err(wrong("the loss needs a label that is a finite number")),
            };
            documents.push(Document { text: intern(&mut self.texts, text), label, probability });
        }
        if documents.len() >= 2 {
            let query = intern(&mut self.texts, group.query);
            self.groups.push(Group { query, documents, times: source.times });
        }
        Ok(())
    }

    /// What labels were multiplied by.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// A hash of all that is read: texts, what is wanted of them, and how often they come.
    #[must_use]
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for text in &self.texts {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        for Group { query, documents, times } in &self.groups {
            hash.update(
                [*query as u64, documents.len() as u64, times.to_bits()].map(u64::to_le_bytes).concat(),
            );
            for Document { text, label, probability } in documents {
                hash.update((*text as u64).to_le_bytes());
                hash.update([label.to_bits(), probability.to_bits()].map(u32::to_le_bytes).concat());
            }
        }
        format!("{:x}", hash.finalize())
    }

    /// The number of queries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// About how many groups an epoch has.
    #[must_use]
    pub fn epoch_len(&self) -> f64 {
        self.groups.iter().map(|group| group.times).sum()
    }

    /// The order of an epoch.
    #[must_use]
    pub fn epoch(&self, seed: u64, epoch: usize) -> Vec<usize> {
        let mut random = Random::keyed(seed, ["epoch", &epoch.to_string()]);
        let mut order = Vec::new();
        for (index, group) in self.groups.iter().enumerate() {
            let times = group.times.floor() as usize + usize::from(random.uniform() < group.times.fract());
            order.extend(std::iter::repeat_n(index, times));
        }
        random.shuffle(&mut order);
        order
    }

    /// At most `size` documents of a group: the one with the highest label, and others at random.
    pub fn choose(&self, group: usize, size: usize, random: &mut Random) -> Chosen<'_> {
        let Group { query, documents, .. } = &self.groups[group];
        let mut order: Vec<usize> = (0..documents.len()).collect();
        random.shuffle(&mut order);
        if documents.len() > size {
            let key = |i: usize| (documents[i].label, documents[i].probability);
            let best = (0..order.len()).max_by(|&a, &b| {
                let (a, b) = (key(order[a]), key(order[b]));
                a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
            });
            order.swap(0, best.unwrap_or(0));
            order.truncate(size.max(1));
        }
        let mut chosen = Chosen { query: &self.texts[*query], ..Chosen::default() };
        for document in order.into_iter().map(|i| documents[i]) {
            chosen.documents.push(&self.texts[document.text]);
            chosen.wanted.labels.push(document.label);
            chosen.wanted.probabilities.push(document.probability);
        }
        chosen
    }
}

/// `FILE` or `FILE=TIMES`.
impl std::str::FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.rsplit_once('=') {
            None => Ok(Self { path: text.into(), times: 1.0 }),
            Some((path, times)) => match times.parse::<f64>() {
                Ok(times) if times.is_finite() && times > 0.0 => {
                    Ok(Self { path: Path::new(path).into(), times })
                }
                _ => Err(format!("{times:?} is not a number of times; write FILE or FILE=TIMES")),
            },
        }
    }
}
