//! The dev set: a reranking pool with judgements, measured as users would.

use std::path::Path;

use jointly::{CrossEncoder, LoadOptions, Pair, Precision};
use jointly_eval::format::Lines;
use jointly_eval::format::groups::{self, Group, Groups};
use jointly_eval::{JudgeOptions, JudgedRun, Qrels, Retrieved, Run};
use sha2::{Digest, Sha256};

use crate::error::Result;

/// Queries with candidates and judgements.
pub struct Dev {
    groups: Vec<Group>,
    qrels: Qrels,
    max_length: usize,
    /// Of the groups.
    pub(super) sha256: String,
}

impl Dev {
    /// Reads a `*.groups.jsonl`. Pairs are cut at `max_length` tokens when they are scored.
    ///
    /// # Errors
    /// What `jointly-eval` says of the file.
    pub fn read(path: &Path, max_length: usize) -> Result<Self> {
        let groups = Groups::new(Lines::open(path)?).collect::<jointly_eval::Result<Vec<_>>>()?;
        let qrels = groups::qrels(&groups);
        let sha256 = format!("{:x}", Sha256::digest(format!("{groups:?}")));
        Ok(Self { groups, qrels, max_length, sha256 })
    }

    /// NDCG@10 of a model folder, the mean over queries.
    ///
    /// # Errors
    /// What `jointly` says of the folder.
    pub fn ndcg(&self, folder: &Path, threads: usize, precision: Precision) -> Result<f64> {
        let options = LoadOptions::new()
            .threads(threads)
            .precision(precision)
            .max_length(self.max_length)
            .check_receipt(false)
            .without_calibration();
        let model = CrossEncoder::load(folder, options)?;
        let mut run = Run::new();
        for group in &self.groups {
            let pairs: Vec<Pair<'_>> =
                group.documents.iter().map(|d| Pair { query: &group.query, document: &d.text }).collect();
            let scores = model.score_pairs(&pairs)?;
            let scored = group.documents.iter().zip(&scores);
            run.insert(
                &group.query_id,
                scored.map(|(d, score)| Retrieved::new(&d.id, f64::from(score.logit))).collect(),
            )?;
        }
        let judged = JudgedRun::new(&self.qrels, &run, JudgeOptions::new())?;
        Ok(judged.evaluate("ndcg@10".parse()?)?.mean())
    }
}
