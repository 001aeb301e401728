//! Rules about the repository itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--filter-platform",
            "host-tuple",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All files of the repository that match, without build outputs and hidden folders.
fn files(matches: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "corpus", "artifacts"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if matches(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("jointly-kernels", &[][..]),
        ("jointly-cuda", &[][..]),
        ("jointly-cuda-emulator", &["jointly-cuda"][..]),
        ("jointly-bundle", &[][..]),
        ("jointly-eval", &[][..]),
        ("jointly-hub", &["jointly-bundle"][..]),
        ("jointly", &["jointly-bundle", "jointly-cuda", "jointly-kernels"][..]),
        ("jointly-retrieve", &["jointly", "jointly-kernels"][..]),
        ("jointly-cascade", &["jointly"][..]),
        ("jointly-chat", &["jointly"][..]),
        ("jointly-server", &["jointly", "jointly-cascade", "jointly-chat"][..]),
        ("jointly-train", &["jointly", "jointly-chat", "jointly-eval", "jointly-kernels"][..]),
        (
            "jointly-cli",
            &[
                "jointly",
                "jointly-bundle",
                "jointly-cascade",
                "jointly-chat",
                "jointly-eval",
                "jointly-hub",
                "jointly-kernels",
                "jointly-retrieve",
                "jointly-server",
                "jointly-train",
            ][..],
        ),
    ]);
    let mut seen = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if !package["source"].is_null() {
            continue; // from the registry
        }
        let allowed =
            allowed.get(name).unwrap_or_else(|| panic!("{name}: say in tests/tidy.rs what it may use"));
        seen += 1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let dependency_name = dependency["name"].as_str().unwrap();
            if dependency["kind"].is_null() && dependency_name.starts_with("jointly") {
                assert!(allowed.contains(&dependency_name), "{name} may not depend on {dependency_name}");
            }
        }
    }
    assert_eq!(seen, allowed.len());
}

#[test]
fn the_library_opens_no_socket_and_starts_no_runtime() {
    let metadata = metadata();
    let names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
        .collect();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let start = names.iter().find(|(_, name)| **name == "jointly").unwrap().0;
    let mut below = vec![*start];
    let mut visited = Vec::new();
    while let Some(id) = below.pop() {
        if visited.contains(&id) {
            continue;
        }
        visited.push(id);
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let normal =
                dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
            if normal {
                below.push(dependency["pkg"].as_str().unwrap());
            }
        }
    }
    assert!(visited.len() > 20, "the walk reached {} packages", visited.len());
    for id in visited {
        let name = names[id];
        for banned in ["tokio", "async-std", "hyper", "reqwest", "ureq", "rustls", "openssl", "hf-hub", "mio"]
        {
            assert_ne!(name, banned, "under the library");
        }
    }
}

#[test]
fn unsafe_stays_in_its_places() {
    for path in files(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let inside = path.strip_prefix(root()).unwrap();
        let places = ["crates/kernels", "crates/cuda", "crates/cuda-emulator"];
        if places.iter().any(|place| inside.starts_with(place)) || inside == Path::new("src/weights/mmap.rs")
        {
            continue;
        }
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let opens = ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe"]
                .iter()
                .any(|word| code.contains(word));
            assert!(!opens || inside == Path::new("tests/tidy.rs"), "{}:{}", inside.display(), number + 1);
        }
    }
}

#[test]
fn links_in_the_docs_lead_somewhere() {
    let mut checked = 0;
    for path in files(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or("");
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            assert!(path.parent().unwrap().join(target).exists(), "{}: {link}", path.display());
            checked += 1;
        }
    }
    assert!(checked > 0);
}
