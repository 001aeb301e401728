//! Compares our tokens with those of the `tokenizers` library, ids and offsets, over all text of a folder.
//!
//! ```text
//! cargo run --release --example tokenizer_differential -- FOLDER_OF_TEXT MODEL_FOLDER
//! ```
//!
//! Every file below the folder is read, `.gz` unpacked: of JSON, all strings (each document of a file, or of each
//! line); of the rest, each line. Bytes that are no UTF-8 are replaced. A difference, an unreadable file or a folder
//! without text ends it with an error.

use std::error::Error;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use jointly::text::Tokenizer;
use serde_json::Value;

type Failure = Box<dyn Error + Send + Sync>;

/// What was compared.
#[derive(Debug, Default)]
struct Count {
    texts: usize,
    bytes: usize,
    tokens: usize,
    /// Texts that the library reads for us.
    given_back: usize,
}

struct Pair {
    ours: Tokenizer,
    library: tokenizers::Tokenizer,
}

impl Pair {
    fn load(model: &Path) -> Result<Self, Failure> {
        let file = model.join("tokenizer.json");
        let name = file.display().to_string();
        let bytes = fs::read(&file).map_err(|error| format!("{name}: {error}"))?;
        let ours = Tokenizer::from_bytes(&bytes, &name, &[])?;
        if !ours.reads_itself("text") {
            return Err(format!("{name}: not a kind that we read without the library").into());
        }
        let mut library = tokenizers::Tokenizer::from_bytes(&bytes)?;
        library.with_truncation(None)?.with_padding(None).set_encode_special_tokens(true);
        Ok(Self { ours, library })
    }

    fn compare(&self, text: &str, count: &mut Count) -> Result<(), Failure> {
        let expected = self.library.encode_char_offsets(text, false)?;
        let found = self.ours.encode_with_offsets(text, "text")?;
        let ids = self.ours.encode(text, "text")?;
        let limit = ids.len() / 2;
        let start = self.ours.encode_start(text, limit, "text")?;
        let same = found.ids == expected.get_ids()
            && found.offsets == expected.get_offsets()
            && ids == found.ids
            && ids.starts_with(&start)
            && (start.len() > limit || start.len() == ids.len());
        if !same {
            return Err(format!(
                "the tokens differ\ntext: {text:?}\nlibrary: {:?}\nours: {found:?}\nids alone: {ids:?}\nto {limit}: \
                 {start:?}",
                (expected.get_ids(), expected.get_offsets())
            )
            .into());
        }
        count.texts += 1;
        count.bytes += text.len();
        count.tokens += ids.len();
        count.given_back += usize::from(!self.ours.reads_itself(text));
        Ok(())
    }

    fn compare_strings(&self, json: &Value, count: &mut Count) -> Result<(), Failure> {
        match json {
            Value::String(text) => self.compare(text, count),
            Value::Array(items) => items.iter().try_for_each(|item| self.compare_strings(item, count)),
            Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
                self.compare(name, count)?;
                self.compare_strings(value, count)
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }

    fn compare_file(&self, path: &Path) -> Result<Count, Failure> {
        let mut bytes = fs::read(path)?;
        if path.extension().is_some_and(|extension| extension == "gz") {
            let packed = std::mem::take(&mut bytes);
            flate2::read::MultiGzDecoder::new(packed.as_slice()).read_to_end(&mut bytes)?;
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut count = Count::default();
        if let Ok(json) = serde_json::from_str::<Value>(&text) {
            self.compare_strings(&json, &mut count)?;
            return Ok(count);
        }
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(json @ (Value::Object(_) | Value::Array(_))) => self.compare_strings(&json, &mut count)?,
                _ => self.compare(line, &mut count)?,
            }
        }
        Ok(count)
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let problem = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(problem)? {
        let path = entry.map_err(problem)?.path();
        if path.is_dir() {
            files(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [folder, model] = arguments.as_slice() else {
        return Err("usage: tokenizer_differential FOLDER_OF_TEXT MODEL_FOLDER".into());
    };
    let pair = Pair::load(model)?;
    let mut paths = Vec::new();
    files(folder, &mut paths)?;
    // The long ones first, so that no thread is left alone with one.
    paths.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).map_or(0, |data| data.len())));

    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    let total = Mutex::new((Count::default(), Vec::<String>::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = pair.compare_file(path);
                    let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    match result {
                        Ok(count) => {
                            total.0.texts += count.texts;
                            total.0.bytes += count.bytes;
                            total.0.tokens += count.tokens;
                            total.0.given_back += count.given_back;
                        }
                        Err(error) => total.1.push(format!("{}: {error}", path.display())),
                    }
                }
            });
        }
    });
    let (count, failures) = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(first) = failures.first() {
        return Err(format!("{} of {} files: {first}", failures.len(), paths.len()).into());
    }
    if count.tokens == 0 {
        return Err(format!("{}: no text", folder.display()).into());
    }
    println!(
        "{} files, {} texts, {} bytes, {} tokens: ids and offsets are the library's; {} texts were read by the library \
         itself; {:.0} s",
        paths.len(),
        count.texts,
        count.bytes,
        count.tokens,
        count.given_back,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}
