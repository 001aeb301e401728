//! An output file that grows beside its final name, so that an interrupted job goes on where it stopped.
//!
//! `OUT.partial` holds whole lines and at most one half; `OUT.partial.json` says which [`Job`] it belongs to. The
//! partial output is locked while a process writes it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jointly::{CrossEncoder, Pair, ScoreOptions};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{CliError, Result};

/// What a partial output belongs to: going on with anything else would mix two outputs in one file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    input: PathBuf,
    input_bytes: u64,
    input_modified_ns: Option<u64>,
    /// A hash of files and trial scores.
    model: String,
    /// Instruction set and device: another one rounds otherwise.
    processor: String,
    options: String,
}

impl Job {
    /// None if the input is no file: what a pipe gave once it does not give again.
    pub fn new(input: &Path, model: &CrossEncoder, options: &ScoreOptions) -> Result<Option<Self>> {
        let Some(metadata) = fs::metadata(input).ok().filter(fs::Metadata::is_file) else { return Ok(None) };
        let modified = metadata.modified().ok();
        let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(Some(Self {
            input: fs::canonicalize(input).map_err(|error| CliError::file(input, &error))?,
            input_bytes: metadata.len(),
            input_modified_ns: since.map(|time| time.as_nanos() as u64),
            model: fingerprint(model, options)?,
            processor: format!("{}, {}", model.info().isa, model.info().device),
            options: format!(
                "{options:?}, max_length {}, {}, {:?}",
                model.info().max_length,
                model.info().precision,
                model.calibration().map(|calibration| &calibration.map)
            ),
        }))
    }

    /// What differs, for the message.
    fn difference(&self, earlier: &Self) -> &'static str {
        if self.input != earlier.input {
            "another input file"
        } else if (self.input_bytes, self.input_modified_ns)
            != (earlier.input_bytes, earlier.input_modified_ns)
        {
            "an input file that has been changed since"
        } else if self.processor != earlier.processor {
            "another instruction set (JOINTLY_ISA chooses one) or device"
        } else if self.options != earlier.options {
            "other options"
        } else {
            "another model"
        }
    }
}

/// What distinguishes one model from another: its small files, the length, beginning and end of its weights, and the
/// bits of trial scores, which all of its weights take part in.
fn fingerprint(model: &CrossEncoder, options: &ScoreOptions) -> Result<String> {
    const END: usize = 1 << 20;
    let mut hash = Sha256::new();
    for name in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "modules.json",
        "model.safetensors.index.json",
        "model.safetensors",
    ] {
        if !model.files().exists(name) {
            continue;
        }
        let bytes = model.files().map(name)?;
        hash.update(name);
        hash.update((bytes.len() as u64).to_le_bytes());
        if name == "model.safetensors" {
            hash.update(&bytes[..bytes.len().min(END)]);
            hash.update(&bytes[bytes.len().saturating_sub(END)..]);
        } else {
            hash.update(&bytes[..]);
        }
    }
    let trials = [
        Pair {
            query: "how many moons has Jupiter",
            document: "Ninety-five moons of Jupiter are known (2023).",
        },
        Pair { query: "Wo beginnt die Elbe?", document: "The café opens at 7:30." },
    ];
    let scores = model.score_pairs_with(&trials, options).map_err(|error| match error {
        jointly::Error::Pair { source, .. } => CliError::from(*source), // nobody gave these pairs
        error => error.into(),
    })?;
    for score in scores {
        hash.update(score.logit.to_bits().to_le_bytes());
        hash.update(score.score.to_bits().to_le_bytes());
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// How far an earlier run came.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Line of the input that the last row is of; 0 if there is none.
    pub line: u64,
    pub rows: u64,
}

/// An output file that is being written.
pub struct Partial {
    writer: BufWriter<File>,
    partial: PathBuf,
    state: PathBuf,
    output: PathBuf,
}

impl Partial {
    /// Opens the partial output of `output`, and goes on with it if it is of the same job. Without a job, or with
    /// `force`, begins anew.
    pub fn open(output: &Path, job: Option<&Job>, force: bool) -> Result<(Self, Done)> {
        let (partial, state) = (with_ending(output, "partial"), with_ending(output, "partial.json"));
        refuse_existing(output, force)?;
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |error: io::Error| CliError::file(&path, &error)
        };
        let mut options = OpenOptions::new();
        options.create(true).read(true).write(true).truncate(false);
        let mut file = options.open(&partial).map_err(at(&partial))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let problem = "another process is writing it";
                return Err(CliError::Failed(format!("{}: {problem}", partial.display())));
            }
            // Not every file system has locks; on such a one the user takes care.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(CliError::file(&partial, &error)),
        }
        // Another process may have finished since the first look.
        refuse_existing(output, force)?;

        let earlier = match fs::read(&state) {
            Ok(text) => Some(serde_json::from_slice::<Job>(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(CliError::file(&state, &error)),
        };
        let done = match (job, earlier) {
            (Some(job), Some(earlier)) if !force => {
                if let Some(difference) = match &earlier {
                    None => Some("something else, or its state is damaged"),
                    Some(earlier) if earlier != job => Some(job.difference(earlier)),
                    Some(_) => None,
                } {
                    return Err(CliError::Input(format!(
                        "{}: begun with {difference}; give the same again, or --force to begin anew",
                        partial.display()
                    )));
                }
                cut_to_whole_rows(&mut file).map_err(at(&partial))?
            }
            _ => {
                // In this order: at no time does the state speak of an output that is not its own.
                match fs::remove_file(&state) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&state)(error)),
                    _ => {}
                }
                file.set_len(0).map_err(at(&partial))?;
                if let Some(job) = job {
                    let text = serde_json::to_vec_pretty(job)
                        .map_err(|error| CliError::Failed(error.to_string()))?;
                    let temporary = with_ending(output, "partial.json.new");
                    fs::write(&temporary, text).map_err(at(&temporary))?;
                    fs::rename(&temporary, &state).map_err(at(&state))?;
                }
                Done::default()
            }
        };
        let writer = BufWriter::new(file);
        Ok((Self { writer, partial, state, output: output.to_path_buf() }, done))
    }

    /// One row, without a line end.
    pub fn line(&mut self, row: &str) -> Result<()> {
        writeln!(self.writer, "{row}").map_err(|error| CliError::file(&self.partial, &error))
    }

    /// Hands what is buffered to the system: a process that is killed after this has lost nothing.
    pub fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(|error| CliError::file(&self.partial, &error))
    }

    /// Gives the file its name, once all of it is on the disk.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        self.writer.get_ref().sync_all().map_err(|error| CliError::file(&self.partial, &error))?;
        fs::rename(&self.partial, &self.output).map_err(|error| CliError::file(&self.output, &error))?;
        match fs::remove_file(&self.state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CliError::file(&self.state, &error)),
            _ => Ok(()),
        }
    }
}

fn refuse_existing(output: &Path, force: bool) -> Result<()> {
    if output.exists() && !force {
        return Err(CliError::Input(format!("{} exists; --force replaces it", output.display())));
    }
    Ok(())
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// Cuts the file behind its last whole row, and says how far that reaches.
fn cut_to_whole_rows(file: &mut File) -> io::Result<Done> {
    #[derive(Deserialize)]
    struct Row {
        line: u64,
    }
    file.seek(SeekFrom::Start(0))?;
    let (mut whole, mut done) = (0, Done::default());
    let mut row = Vec::new();
    let mut reader = BufReader::new(&mut *file);
    loop {
        row.clear();
        let read = reader.read_until(b'\n', &mut row)?;
        match serde_json::from_slice::<Row>(&row) {
            // After a power cut there may be anything behind the last row.
            Ok(Row { line }) if row.ends_with(b"\n") && line > done.line => {
                done = Done { line, rows: done.rows + 1 };
            }
            _ => break,
        }
        whole += read as u64;
    }
    file.set_len(whole)?;
    file.seek(SeekFrom::Start(whole))?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_whole_row_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.partial");
        let cut = |text: &[u8]| {
            fs::write(&path, text).unwrap();
            let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let done = cut_to_whole_rows(&mut file).unwrap();
            // The file goes on behind what was kept.
            file.write_all(b"+").unwrap();
            (String::from_utf8(fs::read(&path).unwrap()).unwrap(), done.line, done.rows)
        };
        let rows = "{\"line\":2}\n{\"line\":5}\n";
        let kept = |text: &str, line, rows| (format!("{text}+"), line, rows);
        assert_eq!(cut(b""), kept("", 0, 0));
        assert_eq!(cut(rows.as_bytes()), kept(rows, 5, 2));
        for half in [
            "{\"line\":6,\"lo",
            "{\"line\":6}",
            "\0\0\0\0\n",
            "{\"line\":5}\n",
            "{\"line\":1}\n{\"line\":6}\n",
        ] {
            assert_eq!(cut(format!("{rows}{half}").as_bytes()), kept(rows, 5, 2), "{half:?}");
        }
        assert_eq!(cut(b"{\"line\":6,"), kept("", 0, 0));
    }
}
