//! The tiny models of `testdata`, read once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// The files of one folder of `testdata`, by name, with `/` between the parts.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Every tiny model, by the name of its folder.
pub fn all() -> &'static BTreeMap<String, Files> {
    static ALL: OnceLock<BTreeMap<String, Files>> = OnceLock::new();
    ALL.get_or_init(|| {
        let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata");
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(&testdata).expect("testdata can be listed") {
            let path = entry.expect("testdata can be listed").path();
            if path.join("config.json").is_file() {
                let mut files = Files::new();
                read(&path, "", &mut files);
                all.insert(path.file_name().expect("a folder").to_string_lossy().into_owned(), files);
            }
        }
        assert!(all.len() >= 10, "{} tiny models in {}", all.len(), testdata.display());
        all
    })
}

/// The model of this name; for any other name, one that depends on it, so that no case is wasted.
pub fn named(name: &[u8]) -> &'static Files {
    let name = String::from_utf8_lossy(name);
    all().get(name.trim()).unwrap_or_else(|| {
        let sum: usize = name.bytes().map(usize::from).sum();
        all().values().nth(sum % all().len()).expect("below the length")
    })
}

fn read(folder: &Path, prefix: &str, files: &mut Files) {
    for entry in fs::read_dir(folder).expect("a fixture can be listed") {
        let path = entry.expect("a fixture can be listed").path();
        let name = format!("{prefix}{}", path.file_name().expect("an entry has a name").to_string_lossy());
        if path.is_dir() {
            read(&path, &format!("{name}/"), files);
        } else if !name.starts_with("expected.") {
            files.insert(name, fs::read(&path).expect("a fixture can be read"));
        }
    }
}
