//! Round trip, determinism, and one test per rule of the format that a hostile file can break.

// Helpers outside `#[test]` functions are tests too.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use jointly_bundle::{Error, Index, Meta, NameFault, write};
use sha2::{Digest, Sha256};

fn meta() -> Meta {
    Meta::new("org/name", "jointly 0.1.0").revision("c".repeat(40))
}

fn model_folder(root: &Path) -> PathBuf {
    let folder = root.join("model");
    fs::create_dir_all(folder.join("1_Pooling")).unwrap();
    fs::create_dir_all(folder.join("onnx")).unwrap();
    fs::write(folder.join("config.json"), b"{}").unwrap();
    fs::write(folder.join("model.safetensors"), (0..3000_u32).map(|i| (i * 7) as u8).collect::<Vec<_>>())
        .unwrap();
    fs::write(folder.join("empty.txt"), b"").unwrap();
    fs::write(folder.join("block.txt"), [b'x'; 512]).unwrap();
    fs::write(folder.join("1_Pooling/config.json"), b"{\"a\":1}").unwrap();
    fs::write(folder.join("pytorch_model.bin"), b"not this").unwrap();
    fs::write(folder.join("onnx/config.json"), b"nor this").unwrap();
    fs::write(folder.join(".hidden.json"), b"nor this").unwrap();
    folder
}

#[test]
fn round_trip() {
    let root = tempfile::tempdir().unwrap();
    let folder = model_folder(root.path());
    let out = root.path().join("m.bundle");
    let summary = write(&folder, &out, &meta()).unwrap();
    assert_eq!(summary.files, 5);
    assert_eq!(summary.bytes, fs::metadata(&out).unwrap().len());

    let index = Index::open(&out).unwrap();
    assert_eq!(index.model(), "org/name");
    assert_eq!(index.revision(), Some("c".repeat(40).as_str()));
    assert_eq!(index.created_with(), "jointly 0.1.0");
    let names: Vec<_> = index.members().iter().map(|member| member.name.as_str()).collect();
    assert_eq!(
        names,
        ["1_Pooling/config.json", "block.txt", "config.json", "empty.txt", "model.safetensors"]
    );
    index.verify().unwrap();

    let mut file = fs::File::open(&out).unwrap();
    for member in index.members() {
        assert_eq!(member.offset % 512, 0);
        let mut bytes = vec![0; member.size as usize];
        file.seek(SeekFrom::Start(member.offset)).unwrap();
        file.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, fs::read(folder.join(&member.name)).unwrap(), "{}", member.name);
        assert_eq!(index.member(&member.name), Some(member));
    }
    assert_eq!(index.member("nothing"), None);
    let left: Vec<_> = fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "a temporary file is left: {left:?}");
}

#[test]
fn same_files_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    let (a, b) = (root.path().join("a"), root.path().join("b"));
    let first = model_folder(&a);
    let second = model_folder(&b);
    // Another order of creation, other times, other permissions.
    fs::rename(second.join("config.json"), b.join("x")).unwrap();
    fs::write(second.join("config.json"), b"{}").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(second.join("empty.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let (one, two) = (root.path().join("1"), root.path().join("2"));
    write(&first, &one, &meta()).unwrap();
    write(&second, &two, &meta()).unwrap();
    assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
}

#[test]
fn a_bundle_is_replaced_only_by_a_whole_one() {
    let root = tempfile::tempdir().unwrap();
    let folder = model_folder(root.path());
    let out = root.path().join("m.bundle");
    write(&folder, &out, &meta()).unwrap();
    let before = fs::read(&out).unwrap();
    let none = root.path().join("none");
    fs::create_dir(&none).unwrap();
    assert!(matches!(write(&none, &out, &meta()), Err(Error::NotAModel { .. })));
    assert_eq!(fs::read(&out).unwrap(), before);
}

#[cfg(unix)]
#[test]
fn links_to_files_are_followed_and_to_folders_not() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("model");
    fs::create_dir(&folder).unwrap();
    fs::write(root.path().join("blob"), b"{}").unwrap();
    std::os::unix::fs::symlink("../blob", folder.join("config.json")).unwrap();
    std::os::unix::fs::symlink("..", folder.join("up.json")).unwrap();
    std::os::unix::fs::symlink(".", folder.join("loop")).unwrap();
    let out = root.path().join("m.bundle");
    assert_eq!(write(&folder, &out, &meta()).unwrap().files, 1);
    assert_eq!(Index::open(&out).unwrap().members()[0].size, 2);
    std::os::unix::fs::symlink("nowhere", folder.join("a.json")).unwrap();
    assert!(matches!(write(&folder, &out, &meta()), Err(Error::Io { path, .. }) if path.ends_with("a.json")));
}

#[test]
fn ordinary_tar_reads_it() {
    let root = tempfile::tempdir().unwrap();
    let folder = model_folder(root.path());
    let out = root.path().join("m.bundle");
    write(&folder, &out, &meta()).unwrap();
    let mut archive = tar::Archive::new(fs::File::open(&out).unwrap());
    let names: Vec<_> =
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    assert_eq!(names[0], "jointly-bundle.json");
    assert_eq!(names.len(), 6);

    // Every system in our CI has a `tar`; one that lacks it fails here rather than passing silently.
    let listing = Command::new("tar").arg("-tf").arg(&out).output().unwrap();
    assert!(listing.status.success());
    let listed: Vec<_> = String::from_utf8(listing.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(listed, names);
}

#[test]
fn large_sizes_are_written_for_ordinary_tar() {
    // 9 GiB does not fit ustar's eleven octal digits; tar's binary form is used, and read back.
    let mut header = tar::Header::new_ustar();
    header.set_size(9 << 30);
    assert_eq!(header.entry_size().unwrap(), 9 << 30);
}

/// A bundle built by hand, so that each rule can be broken.
struct Forge {
    manifest: serde_json::Value,
    members: Vec<(Vec<u8>, tar::EntryType, Vec<u8>)>,
    tail: Vec<u8>,
}

impl Forge {
    /// Two files, `a.json` and `b.json`, and a valid manifest.
    fn new() -> Self {
        let files = [("a.json", &b"{}"[..]), ("b.json", &b"[1]"[..])];
        Self {
            manifest: serde_json::json!({
                "format": 1, "model": "m", "created_with": "t",
                "files": files.iter().map(|(name, data)| serde_json::json!({
                    "name": name, "size": data.len(), "sha256": sha256(data),
                })).collect::<Vec<_>>(),
            }),
            members: files
                .iter()
                .map(|(name, data)| (name.as_bytes().to_vec(), tar::EntryType::Regular, data.to_vec()))
                .collect(),
            tail: vec![0; 1024],
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        member(
            &mut out,
            b"jointly-bundle.json",
            tar::EntryType::Regular,
            self.manifest.to_string().as_bytes(),
        );
        for (name, kind, data) in &self.members {
            member(&mut out, name, *kind, data);
        }
        out.extend(&self.tail);
        out
    }

    fn error(&self) -> Error {
        open(&self.bytes()).unwrap_err()
    }
}

fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn member(out: &mut Vec<u8>, name: &[u8], kind: tar::EntryType, data: &[u8]) {
    header(out, name, kind, data.len() as u64);
    out.extend(data);
    out.resize(out.len().next_multiple_of(512), 0);
}

fn header(out: &mut Vec<u8>, name: &[u8], kind: tar::EntryType, size: u64) {
    let mut header = tar::Header::new_ustar();
    header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    out.extend(header.as_bytes());
}

fn open(bytes: &[u8]) -> jointly_bundle::Result<Index> {
    Index::read(&mut Cursor::new(bytes), Path::new("forged"))
}

#[test]
fn the_forge_makes_valid_bundles() {
    let bytes = Forge::new().bytes();
    let index = open(&bytes).unwrap();
    index.verify_in(&mut Cursor::new(&bytes)).unwrap();
    assert_eq!(index.revision(), None);
}

#[test]
fn other_files_are_not_bundles() {
    for bytes in [&b""[..], b"GGUF", &[0; 2048], &[b'x'; 2048]] {
        assert!(matches!(open(bytes), Err(Error::NotABundle)), "{bytes:?}");
    }
    let mut tar = Vec::new();
    member(&mut tar, b"config.json", tar::EntryType::Regular, b"{}");
    tar.extend([0; 1024]);
    assert!(matches!(open(&tar), Err(Error::NotABundle)));
}

#[test]
fn a_missing_file_is_named() {
    let error = Index::open(Path::new("/nonexistent/m.bundle")).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("m.bundle")));
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = Forge::new().bytes();
    for length in 0..bytes.len() {
        assert!(
            matches!(open(&bytes[..length]), Err(Error::NotABundle | Error::Truncated { .. })),
            "cut at {length}"
        );
    }
}

#[test]
fn every_flipped_byte_is_an_error_or_harmless() {
    let bytes = Forge::new().bytes();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x11;
        // What opens and verifies still has the right contents.
        if let Ok(index) = open(&damaged)
            && index.verify_in(&mut Cursor::new(&damaged)).is_ok()
        {
            let a = index.members().first().unwrap();
            assert_eq!(&damaged[a.offset as usize..][..a.size as usize], b"{}", "flipped at {at}");
        }
    }
}

#[test]
fn damaged_content_fails_its_hash() {
    let mut bytes = Forge::new().bytes();
    let index = open(&bytes).unwrap();
    bytes[index.member("b.json").unwrap().offset as usize] = b'x';
    let error = index.verify_in(&mut Cursor::new(&bytes)).unwrap_err();
    assert!(matches!(error, Error::Hash { name, .. } if name == "b.json"));
}

#[test]
fn bad_manifests() {
    let mut forge = Forge::new();
    forge.manifest = serde_json::json!([1]);
    assert!(matches!(forge.error(), Error::Manifest { .. }));

    let mut forge = Forge::new();
    forge.manifest["format"] = 2.into();
    assert!(matches!(forge.error(), Error::Format { found: 2 }));

    let mut forge = Forge::new();
    forge.manifest["files"][0]["sha256"] = "é".repeat(32).into();
    assert!(matches!(forge.error(), Error::BadHash { .. }));

    let mut forge = Forge::new();
    forge.manifest["files"][0]["size"] = 3.into();
    assert!(matches!(forge.error(), Error::Size { expected: 3, found: 2, .. }));

    let mut forge = Forge::new();
    forge.manifest["files"][0]["size"] = (-1).into();
    assert!(matches!(forge.error(), Error::Manifest { .. }));

    let mut forge = Forge::new();
    let file = forge.manifest["files"][0].clone();
    forge.manifest["files"] = vec![file; 4097].into();
    assert!(matches!(forge.error(), Error::TooManyFiles { count: 4097, .. }));

    let mut forge = Forge::new();
    forge.manifest["more"] = "ignored".into();
    assert!(open(&forge.bytes()).is_ok());
}

#[test]
fn a_huge_manifest_is_refused_before_it_is_read() {
    let mut bytes = Vec::new();
    header(&mut bytes, b"jointly-bundle.json", tar::EntryType::Regular, 1 << 40);
    bytes.extend([0; 4096]);
    assert!(matches!(open(&bytes), Err(Error::ManifestTooLarge { .. })));
}

#[test]
fn deep_json_is_an_error() {
    let mut bytes = Vec::new();
    let mut json = b"{\"format\":".to_vec();
    json.extend([b'['; 100_000]);
    member(&mut bytes, b"jointly-bundle.json", tar::EntryType::Regular, &json);
    assert!(matches!(open(&bytes), Err(Error::Manifest { .. })));
}

#[test]
fn names_that_leave_the_folder() {
    for (name, expected) in [
        ("../a.json", NameFault::Dots),
        ("/etc/passwd", NameFault::Absolute),
        ("a\\..\\b", NameFault::Character),
        ("", NameFault::Empty),
    ] {
        let mut forge = Forge::new();
        forge.manifest["files"][0]["name"] = name.into();
        forge.members[0].0 = name.as_bytes().to_vec();
        assert!(matches!(forge.error(), Error::BadName { fault, .. } if fault == expected), "{name}");
    }
}

#[test]
fn duplicates_and_disorder() {
    let mut forge = Forge::new();
    forge.manifest["files"][1]["name"] = "a.json".into();
    forge.members[1].0 = b"a.json".to_vec();
    assert!(matches!(forge.error(), Error::Order { .. }));

    let mut forge = Forge::new();
    forge.members.swap(0, 1);
    assert!(matches!(forge.error(), Error::Unexpected { .. }));

    let mut forge = Forge::new();
    forge.manifest["files"][1]["name"] = "jointly-bundle.json".into();
    assert!(matches!(forge.error(), Error::Order { .. }));
}

#[test]
fn members_outside_the_manifest() {
    let mut forge = Forge::new();
    forge.members.push((b"c.json".to_vec(), tar::EntryType::Regular, b"{}".to_vec()));
    assert!(matches!(forge.error(), Error::TrailingData { .. }));

    let mut forge = Forge::new();
    forge.members.insert(0, (b"0.json".to_vec(), tar::EntryType::Regular, b"{}".to_vec()));
    assert!(matches!(forge.error(), Error::Unexpected { .. }));

    let mut forge = Forge::new();
    forge.members.pop();
    assert!(matches!(forge.error(), Error::Truncated { .. }));
}

#[test]
fn links_folders_and_extensions() {
    use tar::EntryType;
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Directory,
        EntryType::Fifo,
        EntryType::GNULongName,
        EntryType::GNUSparse,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
    ] {
        let mut forge = Forge::new();
        forge.members[0].1 = kind;
        assert!(matches!(forge.error(), Error::NotAFile { .. }), "{kind:?}");
    }
}

#[test]
fn absurd_sizes() {
    for size in [1 << 33, u64::MAX / 2, u64::MAX - 100, u64::MAX] {
        let mut forge = Forge::new();
        forge.manifest["files"][1]["size"] = size.into();
        forge.members.pop();
        forge.tail.clear();
        let mut bytes = forge.bytes();
        header(&mut bytes, b"b.json", tar::EntryType::Regular, size);
        bytes.extend([0; 1024]);
        assert!(
            matches!(open(&bytes), Err(Error::Truncated { .. } | Error::Header { .. } | Error::Size { .. })),
            "{size}"
        );
    }
}

#[test]
fn trailing_data() {
    let mut forge = Forge::new();
    forge.tail.push(1);
    assert!(matches!(forge.error(), Error::TrailingData { .. }));
    forge.tail = vec![0; 1 << 20];
    assert!(matches!(forge.error(), Error::TrailingData { .. }));
    forge.tail = vec![0; 10_240];
    assert!(open(&forge.bytes()).is_ok());
}

#[test]
fn messages_follow_the_house_rules() {
    let mut forge = Forge::new();
    forge.manifest["files"][0]["name"] = "../a.json".into();
    assert_eq!(forge.error().to_string(), "file name \"../a.json\" has a part that is . or ..");
    assert_eq!(Error::NotABundle.to_string(), "not a bundle: it does not begin with jointly-bundle.json");
}
