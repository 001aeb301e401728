//! Receipts: pinned pairs with pinned logits. A model that does not reproduce them is not the model it claims to be.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::calibration;
use crate::cross_encoder::{CrossEncoder, LoadOptions, Pair};
use crate::error::{Error, Result};
use crate::files::ModelFiles;
use jointly_kernels::{Isa, Precision};

/// The name of the receipt in a model folder.
pub const FILE: &str = "receipt.json";

const FORMAT: u32 = 1;
/// How far a logit may lie from its pin, in absolute terms and relative to the pin. Two correct implementations in
/// f32 differ by about 1e-5; every mistake that the receipt is there for (template, head, weights) is far larger.
const TOLERANCE: f32 = 1e-3;

/// The same for what is computed in fewer bits than the pins were: wide enough for rounding, too narrow for a mistake.
fn tolerance(precision: Precision) -> f32 {
    match precision {
        Precision::F32 => TOLERANCE,
        Precision::Bf16 | Precision::F16 => 0.05,
        Precision::Int8 => 0.5,
    }
}

/// How far fewer bits may move a pinned logit, as a part of the distance between the highest and the lowest, to be certified.
const CERTIFIED: f32 = 0.02;

/// Logits of unlike pairs that lie closer than this are one constant.
const SAME: f32 = 1e-6;

/// Whether a model has a receipt, and whether it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiptState {
    /// The folder has none.
    Absent,
    /// It has one, which was not checked.
    NotChecked,
    /// It has one, and the model reproduces it.
    Holds,
}

/// What a model must reproduce.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The version of this form.
    pub format: u32,
    /// The program that wrote it.
    pub created_with: String,
    /// The precision that the logits were computed in.
    pub precision: String,
    /// The files of the model that scores depend on.
    pub files: Vec<PinnedFile>,
    /// The pinned pairs.
    pub pairs: Vec<PinnedPair>,
    /// The other precisions that were tried, and what they did to the pinned logits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Trial>,
}

/// What a precision does to the pinned logits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Its name.
    pub precision: String,
    /// The largest difference of a logit from its pin, as a part of the distance between the highest and the lowest pin.
    pub max_shift: f32,
    /// Whether `auto` may choose it.
    pub certified: bool,
}

/// A file and its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedFile {
    /// Its name in the model folder.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// A pair and its logit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PinnedPair {
    /// The query.
    pub query: String,
    /// The document.
    pub document: String,
    /// The logit.
    pub logit: f32,
}

/// What [`Receipt::verify`] found out.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The number of pairs reproduced.
    pub pairs: usize,
    /// The largest distance of a logit from its pin.
    pub max_difference: f32,
    /// The number of files whose hash is right.
    pub files: usize,
}

/// The pairs that a new receipt pins: a direct answer, a near miss, a negation, another topic, another script, an
/// empty document and a long one.
pub(crate) fn pairs_to_pin() -> Vec<(String, String)> {
    let query = "How long does the battery of the hearing aid last?";
    let long = "The manual describes how the device is cleaned, dried and stored for the night. ".repeat(4);
    [
        (query, "With daily use, a hearing aid's battery lasts between three and ten days."),
        (query, "The hearing about the battery factory lasted three days."),
        (query, "Hearing aids without a battery do not exist."),
        (query, "Plane trees line the avenue from the station to the harbour."),
        ("Wie viele Monde hat Jupiter?", "木星已知的卫星超过九十颗。"),
        (query, ""),
        (query, long.as_str()),
    ]
    .map(|(query, document)| (query.to_string(), document.to_string()))
    .to_vec()
}

impl Receipt {
    /// Reads the receipt of a model, if it has one.
    ///
    /// # Errors
    /// [`Error::Json`] or [`Error::Receipt`] for one that cannot be read.
    pub fn read(files: &ModelFiles) -> Result<Option<Self>> {
        let receipt: Option<Self> = files.optional_json(FILE)?;
        let problem = match &receipt {
            Some(receipt) if receipt.format != FORMAT => {
                format!("format {}; this program reads {FORMAT}", receipt.format)
            }
            Some(receipt) if receipt.pairs.is_empty() => "pins no pair".to_string(),
            _ => return Ok(receipt),
        };
        Err(Error::Receipt { file: files.name_of(FILE), problem })
    }

    /// Makes a receipt for a model as it is now. It is loaded again in each other precision, to see which of them keep
    /// the pinned logits within 2% of the distance between the highest and the lowest: those are certified.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a model that was not loaded in f32;
    /// [`Error::NotFinite`] for a model that gives NaN; [`Error::Receipt`] for one that gives every pair the same
    /// score; those of reading its files.
    pub fn make(model: &CrossEncoder) -> Result<Self> {
        if model.info().precision != Precision::F32 {
            let problem = format!("{}; a receipt pins logits of f32", model.info().precision);
            return Err(Error::InvalidOption { option: "precision", problem });
        }
        let pairs = pairs_to_pin();
        let logits = score(model, pairs.iter().map(|(query, document)| (query.as_str(), document.as_str())))?;
        refuse_constant(model, &logits)?;
        let pairs: Vec<PinnedPair> = pairs
            .into_iter()
            .zip(logits)
            .map(|((query, document), logit)| PinnedPair { query, document, logit })
            .collect();
        let tried = [Precision::Bf16, Precision::Int8]
            .into_iter()
            .map(|precision| try_precision(model, precision, &pairs))
            .collect::<Result<_>>()?;
        Ok(Self {
            format: FORMAT,
            created_with: format!("jointly {}", env!("CARGO_PKG_VERSION")),
            precision: "f32".to_string(),
            files: pin_all(model.files())?,
            pairs,
            tried,
        })
    }

    /// The fastest precision that this receipt certifies and that the instruction set multiplies by itself; f32 if there
    /// is none.
    #[must_use]
    pub fn fastest(&self, isa: Isa) -> Precision {
        [Precision::Int8, Precision::Bf16]
            .into_iter()
            .find(|precision| isa.is_fast_at(*precision) && self.certifies(*precision))
            .unwrap_or(Precision::F32)
    }

    /// The same of a device: bf16, or f32.
    #[must_use]
    pub fn fastest_on_device(&self) -> Precision {
        if self.certifies(Precision::Bf16) { Precision::Bf16 } else { Precision::F32 }
    }

    fn certifies(&self, precision: Precision) -> bool {
        self.tried.iter().any(|trial| trial.certified && trial.precision == precision.name())
    }

    /// Writes the receipt into a model folder, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        let io = |source| Error::Io { path: folder.join(FILE), source };
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| Error::Json { file: FILE.to_string(), source })?;
        let temporary = folder.join(format!("{FILE}.new"));
        fs::write(&temporary, text + "\n").map_err(io)?;
        fs::rename(&temporary, folder.join(FILE)).map_err(io)
    }

    /// Checks that the model reproduces the pinned logits, and that they are not all the same. Gives the largest
    /// difference.
    ///
    /// # Errors
    /// [`Error::Receipt`] with the first pair that differs; [`Error::NotFinite`].
    pub fn check_scores(&self, model: &CrossEncoder) -> Result<f32> {
        let logits =
            score(model, self.pairs.iter().map(|pair| (pair.query.as_str(), pair.document.as_str())))?;
        refuse_constant(model, &logits)?;
        let tolerance = tolerance(model.info().precision);
        let mut largest = 0.0_f32;
        for (index, (pair, logit)) in self.pairs.iter().zip(&logits).enumerate() {
            let difference = (pair.logit - logit).abs();
            let within = difference <= tolerance + tolerance * pair.logit.abs();
            if !within {
                let problem = format!(
                    "pair {index} ({:?}, {:?}) has logit {logit}; the receipt pins {}: this is not the model that it was \
                     made for",
                    shortened(&pair.query),
                    shortened(&pair.document),
                    pair.logit
                );
                return Err(Error::Receipt { file: model.files().name_of(FILE), problem });
            }
            largest = largest.max(difference);
        }
        Ok(largest)
    }

    /// Checks the hashes of the files, then the scores.
    ///
    /// # Errors
    /// [`Error::Receipt`] with the first thing that does not hold; those of reading the files.
    pub fn verify(&self, model: &CrossEncoder) -> Result<Report> {
        for file in &self.files {
            let found = pin(model.files(), &file.name)?;
            if found != *file {
                let problem = format!(
                    "{} has {} bytes and SHA-256 {}; the receipt pins {} bytes and {}",
                    file.name, found.size, found.sha256, file.size, file.sha256
                );
                return Err(Error::Receipt { file: model.files().name_of(FILE), problem });
            }
        }
        let max_difference = self.check_scores(model)?;
        Ok(Report { pairs: self.pairs.len(), max_difference, files: self.files.len() })
    }
}

/// Checks a model that has no receipt as far as that can be done: its scores are finite and not all the same. Gives
/// the number of pairs scored.
///
/// # Errors
/// [`Error::NotFinite`], [`Error::Receipt`].
pub fn check_without_receipt(model: &CrossEncoder) -> Result<usize> {
    let pairs = pairs_to_pin();
    let logits = score(model, pairs.iter().map(|(query, document)| (query.as_str(), document.as_str())))?;
    refuse_constant(model, &logits)?;
    Ok(logits.len())
}

fn try_precision(model: &CrossEncoder, precision: Precision, pairs: &[PinnedPair]) -> Result<Trial> {
    let options = LoadOptions::new()
        .threads(model.info().threads)
        .precision(precision)
        .check_receipt(false)
        .without_calibration();
    let other = CrossEncoder::from_files(model.files().clone(), options)?;
    let logits = score(&other, pairs.iter().map(|pair| (pair.query.as_str(), pair.document.as_str())))?;
    let pins = pairs.iter().map(|pair| pair.logit);
    let range = pins.clone().fold(f32::NEG_INFINITY, f32::max) - pins.clone().fold(f32::INFINITY, f32::min);
    let moved = pins.zip(&logits).map(|(pin, logit)| (pin - logit).abs()).fold(0.0, f32::max);
    let max_shift = moved / range;
    Ok(Trial { precision: precision.to_string(), max_shift, certified: max_shift <= CERTIFIED })
}

fn score<'a>(model: &CrossEncoder, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Vec<f32>> {
    let pairs: Vec<Pair<'_>> = pairs.map(|(query, document)| Pair { query, document }).collect();
    Ok(model.score_pinned(&pairs)?.into_iter().map(|score| score.logit).collect())
}

fn refuse_constant(model: &CrossEncoder, logits: &[f32]) -> Result<()> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let smallest = logits.iter().copied().fold(f32::INFINITY, f32::min);
    if logits.len() > 1 && largest - smallest <= SAME * largest.abs().max(1.0) {
        let problem = format!("every pair has the logit {largest}: the head is not trained, or not read");
        return Err(Error::Receipt { file: model.files().name_of(FILE), problem });
    }
    Ok(())
}

/// The files that a model's answers depend on, each with its hash, sorted by name.
///
/// # Errors
/// Those of reading the files.
pub fn pin_all(files: &ModelFiles) -> Result<Vec<PinnedFile>> {
    names(files)?.iter().map(|name| pin(files, name)).collect()
}

/// One hash of all files that a model's scores depend on.
///
/// # Errors
/// Those of reading the files.
pub fn identity(files: &ModelFiles) -> Result<String> {
    let lines =
        pin_all(files)?.into_iter().map(|file| format!("{} {} {}\n", file.name, file.size, file.sha256));
    Ok(hexadecimal(&Sha256::digest(lines.collect::<String>())))
}

/// The files that scores depend on: weights, configurations, tokenizer, template.
pub(crate) fn names(files: &ModelFiles) -> Result<Vec<String>> {
    let all = match files {
        ModelFiles::Folder(folder) => list(folder)?,
        ModelFiles::Bundle(bundle) => bundle.names().map(str::to_string).collect(),
        ModelFiles::Memory { files, .. } => files.keys().cloned().collect(),
    };
    let counts = |name: &String| {
        let file = name.rsplit('/').next().unwrap_or(name);
        ![FILE, calibration::FILE].contains(&file)
            && [".safetensors", ".json", ".jinja"].iter().any(|ending| file.ends_with(ending))
    };
    let mut names: Vec<String> = all.into_iter().filter(counts).collect();
    names.sort_unstable();
    Ok(names)
}

/// The files of a model folder and of the folders in it, one level deep as in sentence-transformers' layout.
fn list(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(below) = folders.pop() {
        let path = folder.join(&below);
        let io = |source| Error::Io { path: path.clone(), source };
        for entry in fs::read_dir(&path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = fs::metadata(entry.path()).map_err(io)?;
            if kind.is_file() {
                names.push(crate::weights::join(&below, &name));
            } else if kind.is_dir() && below.is_empty() && !name.starts_with('.') {
                folders.push(name);
            }
        }
    }
    Ok(names)
}

fn pin(files: &ModelFiles, name: &str) -> Result<PinnedFile> {
    let bytes = files.map(name)?;
    let sha256 = hexadecimal(&Sha256::digest(&bytes[..]));
    Ok(PinnedFile { name: name.to_string(), size: bytes.len() as u64, sha256 })
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_what_is_certified_and_fast_here() {
        let receipt = |certified: &[Precision]| Receipt {
            format: FORMAT,
            created_with: String::new(),
            precision: "f32".to_string(),
            files: Vec::new(),
            pairs: Vec::new(),
            tried: [Precision::Bf16, Precision::Int8]
                .map(|precision| Trial {
                    precision: precision.to_string(),
                    max_shift: 0.0,
                    certified: certified.contains(&precision),
                })
                .to_vec(),
        };
        let all = receipt(&Precision::ALL);
        let fastest = [
            (Isa::Amx, Precision::Int8),
            (Isa::Avx512Bf16, Precision::Int8),
            (Isa::Avx512Vnni, Precision::Int8),
            (Isa::Avx512, Precision::F32),
            (Isa::Scalar, Precision::F32),
        ];
        for (isa, precision) in fastest {
            assert_eq!(all.fastest(isa), precision, "{isa}");
            assert_eq!(receipt(&[]).fastest(isa), Precision::F32, "{isa}");
        }
        assert_eq!(receipt(&[Precision::Bf16]).fastest(Isa::Avx512Bf16), Precision::Bf16);
        assert_eq!(receipt(&[Precision::Bf16]).fastest(Isa::Avx512Vnni), Precision::F32);
        assert_eq!(all.fastest_on_device(), Precision::Bf16);
        assert_eq!(receipt(&[Precision::Int8]).fastest_on_device(), Precision::F32);
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Receipt>(&text).unwrap(), all);
    }
}
