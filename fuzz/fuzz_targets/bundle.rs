//! The bundle reader. The first byte says how the rest becomes a file: 0, as it is; 1, as it is but for the checksums
//! of tar headers, which are made right; else as a case whose files become the members, with a manifest made for them
//! unless the case has one.
#![no_main]

use std::io::Cursor;
use std::path::Path;

use jointly_bundle::{Index, MANIFEST_NAME, check_name};
use jointly_fuzz::case;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use serde_json::json;
use sha2::{Digest, Sha256};

const BLOCK: usize = 512;

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    case::mutate(data, size, max_size, seed)
});

fuzz_target!(|data: &[u8]| {
    let Some((form, rest)) = data.split_first() else { return };
    let bytes = match form {
        0 => rest.to_vec(),
        1 => with_checksums(rest),
        _ => from_case(rest),
    };
    let mut file = Cursor::new(&bytes);
    let Ok(index) = Index::read(&mut file, Path::new("case")) else { return };
    let mut end = 0;
    for member in index.members() {
        check_name(&member.name).expect("an accepted name is a safe one");
        assert!(member.offset.is_multiple_of(512) && member.offset >= end, "members overlap");
        end = member.offset + member.size;
        assert!(end <= bytes.len() as u64, "a member ends beyond the file");
        assert_eq!(index.member(&member.name), Some(member));
    }
    let whole = index.members().iter().all(|member| {
        let content = &bytes[member.offset as usize..(member.offset + member.size) as usize];
        hash(content) == member.sha256
    });
    assert_eq!(index.verify_in(&mut file).is_ok(), whole);
});

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes the checksum right in every block that has the magic of a tar header.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    bytes
}

/// A bundle of the files of a case, sorted by name, the manifest first.
fn from_case(data: &[u8]) -> Vec<u8> {
    let mut files = case::files(data);
    let manifest = match files.remove(MANIFEST_NAME) {
        Some(manifest) => manifest.to_vec(),
        None => {
            let entry = |(name, content): (&String, &&[u8])| json!({"name": name, "size": content.len(), "sha256": hash(content)});
            let list: Vec<_> = files.iter().map(entry).collect();
            json!({"format": 1, "model": "case", "created_with": "fuzz", "files": list})
                .to_string()
                .into_bytes()
        }
    };
    let mut bytes = Vec::new();
    for (name, content) in std::iter::once((MANIFEST_NAME, &manifest[..]))
        .chain(files.iter().map(|(name, content)| (name.as_str(), *content)))
    {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_entry_type(tar::EntryType::Regular);
        // As the reader must bear it, not as the tar crate would have it.
        let field = &mut header.as_old_mut().name;
        let length = name.len().min(field.len());
        field[..length].copy_from_slice(&name.as_bytes()[..length]);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}
