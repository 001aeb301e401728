//! Reading files as other people publish them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Fault, Result};
use crate::format::Lines;

/// No set that we know has a larger file in one JSON value.
const MAX_JSON_BYTES: u64 = 256 << 20;

/// Every line of a file of JSON records, with its number.
pub(super) fn records<T: DeserializeOwned>(path: &Path) -> Result<Vec<(u64, T)>> {
    let mut lines = Lines::open(path)?;
    let mut found = Vec::new();
    lines.each(|number, line| {
        found.push((number, serde_json::from_str(line).map_err(|source| Fault::Json { source })?));
        Ok(())
    })?;
    if found.is_empty() { Err(lines.empty("record")) } else { Ok(found) }
}

/// A file that is one JSON value.
pub(super) fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_JSON_BYTES {
        return Err(at(path, 1, Fault::TooLong { limit: MAX_JSON_BYTES }));
    }
    serde_json::from_slice(&bytes).map_err(|source| at(path, source.line() as u64, Fault::Json { source }))
}

/// An error about a line of a file.
pub(super) fn at(path: &Path, line: u64, fault: Fault) -> Error {
    Error::Line { path: path.to_path_buf(), line, fault }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A folder with these files.
    pub(in super::super) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn faults_name_the_line() {
        let folder = folder(&[("a.json", "[1,\n2,\nx]"), ("b.jsonl", "1\n\n{\n"), ("c.jsonl", "\n")]);
        let error = json::<Vec<u8>>(&folder.path().join("a.json")).unwrap_err().to_string();
        assert!(error.contains("a.json:3: "), "{error}");
        let error = records::<u8>(&folder.path().join("b.jsonl")).unwrap_err().to_string();
        assert!(error.contains("b.jsonl:3: "), "{error}");
        let error = records::<u8>(&folder.path().join("c.jsonl")).unwrap_err().to_string();
        assert!(error.ends_with("c.jsonl: no record in it"), "{error}");
        assert!(json::<u8>(&folder.path().join("none")).is_err());
    }
}
