use std::fmt;

/// ustar's limit: 155 bytes of prefix and 100 of name, less where the name has no `/` at the right place.
const MAX_NAME_BYTES: usize = 255;
/// The limit of every common file system for one part of a path.
const MAX_PART_BYTES: usize = 200;
/// Model folders have one or two levels.
const MAX_DEPTH: usize = 16;

/// Folders of a repository that hold the same weights for other engines, or a training run's states.
const FOREIGN_FOLDERS: &[&str] = &["onnx", "openvino", "coreml", "gguf", "runs", "assets"];
/// Endings of the files that a reranker reads.
const EXTENSIONS: &[&str] = &["json", "safetensors", "txt", "jinja", "model"];

/// Why a file name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameFault {
    /// It, or one of its parts, is empty.
    Empty,
    /// It begins with `/`.
    Absolute,
    /// A part is `.` or `..`.
    Dots,
    /// It has a backslash, a colon or a control character.
    Character,
    /// It, or one of its parts, is too long, or it is too deep.
    TooLong,
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty or has an empty part",
            Self::Absolute => "is absolute",
            Self::Dots => "has a part that is . or ..",
            Self::Character => "has a backslash, a colon or a control character",
            Self::TooLong => "is too long or too deep",
        })
    }
}

/// Checks that `name` is a plain relative path, with `/` between its parts, that stays inside its folder on every
/// system.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check_name(name: &str) -> Result<(), NameFault> {
    if name.is_empty() {
        return Err(NameFault::Empty);
    }
    if name.starts_with('/') {
        return Err(NameFault::Absolute);
    }
    // The colon is a drive or a stream on Windows.
    if name.chars().any(|c| c.is_control() || c == '\\' || c == ':') {
        return Err(NameFault::Character);
    }
    if name.len() > MAX_NAME_BYTES || name.split('/').count() > MAX_DEPTH {
        return Err(NameFault::TooLong);
    }
    for part in name.split('/') {
        if part.is_empty() {
            return Err(NameFault::Empty);
        }
        if part == "." || part == ".." {
            return Err(NameFault::Dots);
        }
        if part.len() > MAX_PART_BYTES {
            return Err(NameFault::TooLong);
        }
    }
    Ok(())
}

/// Whether a reranker reads this file of a repository: configuration, tokenizer, templates, safetensors weights, the
/// model card and the licence. Weights in other formats, hidden files and training states are not among them.
#[must_use]
pub fn is_model_file(name: &str) -> bool {
    let mut parts = name.split('/').rev();
    let base = parts.next().unwrap_or_default();
    if base.starts_with('.') || name == crate::MANIFEST_NAME {
        return false;
    }
    if parts.any(|part| {
        part.starts_with('.') || part.starts_with("checkpoint-") || FOREIGN_FOLDERS.contains(&part)
    }) {
        return false;
    }
    let top_level = base == name;
    let documents = base == "README.md" || base.starts_with("LICENSE") || base.starts_with("NOTICE");
    if top_level && documents {
        return true;
    }
    base.rsplit_once('.').is_some_and(|(_, extension)| EXTENSIONS.contains(&extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_pass() {
        for name in ["config.json", "1_Pooling/config.json", "a b.txt", "é.json", "..a", "a..b/c"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn tricks_are_refused() {
        let long = "a".repeat(201);
        let deep = vec!["a"; 17].join("/");
        for (name, fault) in [
            ("", NameFault::Empty),
            ("a//b", NameFault::Empty),
            ("a/", NameFault::Empty),
            ("/etc/passwd", NameFault::Absolute),
            ("..", NameFault::Dots),
            ("a/../../b", NameFault::Dots),
            ("./a", NameFault::Dots),
            ("a\\b", NameFault::Character),
            ("c:a", NameFault::Character),
            ("a\0b", NameFault::Character),
            ("a\nb", NameFault::Character),
            (long.as_str(), NameFault::TooLong),
            (deep.as_str(), NameFault::TooLong),
        ] {
            assert_eq!(check_name(name), Err(fault), "{name:?}");
        }
    }

    #[test]
    fn files_of_a_reranker() {
        for name in [
            "config.json",
            "model.safetensors",
            "model-00001-of-00002.safetensors",
            "vocab.txt",
            "merges.txt",
            "chat_template.jinja",
            "spiece.model",
            "README.md",
            "LICENSE",
            "LICENSE.txt",
            "1_Pooling/config.json",
        ] {
            assert!(is_model_file(name), "{name}");
        }
        for name in [
            "pytorch_model.bin",
            "model.onnx",
            "onnx/config.json",
            "model.gguf",
            "tf_model.h5",
            "flax_model.msgpack",
            "optimizer.pt",
            ".gitattributes",
            ".cache/config.json",
            "checkpoint-500/model.safetensors",
            "jointly-bundle.json",
            "run.py",
            "",
        ] {
            assert!(!is_model_file(name), "{name}");
        }
    }
}
