//! The client against a server with the hub's layout: what is asked, what lands in the cache, and every way to fail.

// Helpers outside `#[test]` functions are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use jointly_hub::{Error, ErrorKind, HubId, HubOptions, NoProgress, cached, parse_id, pull};
use support::{Notes, Reply, Repo, Seen, Server, file, git_sha1, options, sha256};

const FETCHED: [&str; 6] =
    ["1_Pooling/config.json", "README.md", "config.json", "tokenizer.json", "vocab.txt", "model.safetensors"];
const WEIGHTS: &str = "model.safetensors";

fn id() -> HubId {
    parse_id("org/name").unwrap()
}

fn cache() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// The model, with some answers replaced.
fn hub(replace: impl Fn(&Repo, &Seen) -> Option<Reply> + Send + Sync + 'static) -> Server {
    let repo = Repo::model();
    Server::start(move |seen| replace(&repo, seen).unwrap_or_else(|| repo.answer(seen)))
}

fn plain() -> Server {
    hub(|_, _| None)
}

/// The model, with another list of files.
fn listing(change: impl Fn(&mut serde_json::Value) + Send + Sync + 'static) -> Server {
    hub(move |repo, seen| {
        seen.path.starts_with("/api/").then(|| {
            let mut info = repo.info();
            change(&mut info);
            Reply::new(200, info.to_string())
        })
    })
}

fn pull_error(options: &HubOptions) -> Error {
    pull(&id(), None, options, &mut NoProgress).unwrap_err()
}

fn assert_whole(folder: &Path) {
    for (name, data) in &Repo::model().files {
        if FETCHED.contains(&name.as_str()) {
            assert_eq!(&fs::read(folder.join(name)).unwrap(), data, "{name}");
        } else {
            assert!(!folder.join(name).exists(), "{name}");
        }
    }
}

fn blobs(cache: &tempfile::TempDir) -> Vec<String> {
    let Ok(entries) = fs::read_dir(cache.path().join("models--org--name/blobs")) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn happy_path() {
    let (server, cache) = (plain(), cache());
    let mut notes = Notes::default();
    let folder = pull(&id(), None, &options(&server, &cache), &mut notes).unwrap();
    assert_whole(&folder);

    let repo = Repo::model();
    let total: u64 = FETCHED.iter().map(|name| repo.files[*name].len() as u64).sum();
    assert_eq!(notes.plan, (6, total));
    assert_eq!(notes.advanced, total);
    assert_eq!(notes.done, FETCHED);
    assert_eq!(
        server.paths()[0],
        "/api/models/org/name/revision/main?blobs=true",
        "the list comes first, and says which commit the files are of"
    );
    assert_eq!(server.paths().len(), 7);
    assert!(server.seen().iter().all(|seen| seen.header("authorization").is_none()));

    // The layout of `huggingface_hub`.
    let root = cache.path().join("models--org--name");
    assert_eq!(folder, root.join("snapshots").join(&repo.commit));
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), repo.commit);
    let digits = sha256(repo.weights());
    assert_eq!(fs::read(root.join("blobs").join(&digits)).unwrap(), repo.weights());
    assert!(root.join("blobs").join(git_sha1(&repo.files["config.json"])).is_file());
    #[cfg(unix)]
    {
        let link = |name: &str| fs::read_link(folder.join(name)).unwrap();
        assert_eq!(link(WEIGHTS), Path::new("../../blobs").join(&digits));
        assert_eq!(link("1_Pooling/config.json"), Path::new("../../../blobs").join(git_sha1(b"{\"a\":1}")));
    }
    let in_folder = fs::read_dir(&folder).unwrap().count();
    assert_eq!(in_folder, 6, "no temporary files are left");
    assert_eq!(cached(&id(), None, &options(&server, &cache)).unwrap(), Some(folder));
}

#[test]
fn the_second_pull_asks_for_the_revision_only() {
    let (server, cache) = (plain(), cache());
    let first = pull(&id(), None, &options(&server, &cache), &mut NoProgress).unwrap();
    server.forget();
    let mut notes = Notes::default();
    let second = pull(&id(), None, &options(&server, &cache), &mut notes).unwrap();
    assert_eq!(first, second);
    assert_eq!(server.paths(), ["/api/models/org/name/revision/main?blobs=true"]);
    assert_eq!((notes.advanced, notes.done.len()), (0, 6));
}

#[test]
fn a_private_model_needs_the_token() {
    let server = hub(|_, seen| {
        (seen.header("authorization") != Some("Bearer hf_secret"))
            .then(|| Reply::new(401, "{}").header("X-Error-Code", "RepoNotFound"))
    });
    let cache = cache();
    let without = options(&server, &cache);
    let error = pull_error(&without);
    assert!(matches!(&error, Error::Unauthorised { status: 401, token_sent: false, .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Access);
    assert!(error.to_string().contains("HF_TOKEN"), "{error}");
    assert_eq!(server.paths().len(), 1, "a refusal is not tried again");
    assert_whole(&pull(&id(), None, &without.token("hf_secret"), &mut NoProgress).unwrap());
}

#[test]
fn a_gated_model_says_what_the_server_says() {
    let server = hub(|_, seen| {
        seen.path.contains("/resolve/").then(|| {
            Reply::new(403, "").header("X-Error-Code", "GatedRepo").header(
                "X-Error-Message",
                "Access to model org/name is restricted. Visit its page to ask for access.",
            )
        })
    });
    let error = pull_error(&options(&server, &cache()).token("hf_x"));
    assert_eq!(
        error.to_string(),
        "org/name: access refused (status 403): the token in HF_TOKEN may not read it, or its terms are not \
         accepted yet (Access to model org/name is restricted. Visit its page to ask for access)"
    );
}

#[test]
fn the_token_stays_with_the_endpoint() {
    let cdn = Server::start(|seen| file(seen, WEIGHTS, Repo::model().weights()));
    let to = cdn.url();
    let server = hub(move |_, seen| {
        seen.path
            .ends_with(WEIGHTS)
            .then(|| Reply::new(302, "").header("location", format!("{to}/signed?X-Signature=abc")))
    });
    let cache = cache();
    let folder = pull(&id(), None, &options(&server, &cache).token("hf_secret"), &mut NoProgress).unwrap();
    assert_whole(&folder);
    assert!(server.seen().iter().all(|seen| seen.header("authorization") == Some("Bearer hf_secret")));
    assert_eq!(cdn.paths(), ["/signed?X-Signature=abc"]);
    assert!(cdn.seen()[0].header("authorization").is_none(), "the token went to another host");
}

#[test]
fn a_redirect_within_the_endpoint_keeps_the_token() {
    let server = hub(|repo, seen| {
        if seen.path.starts_with("/org/") && seen.path.ends_with("config.json") {
            return Some(Reply::new(307, "").header("location", format!("/moved{}", seen.path)));
        }
        let path = seen.path.strip_prefix("/moved")?.to_owned();
        Some(repo.answer(&Seen { path, ..seen.clone() }))
    });
    let cache = cache();
    assert_whole(&pull(&id(), None, &options(&server, &cache).token("t"), &mut NoProgress).unwrap());
    assert!(server.seen().iter().all(|seen| seen.header("authorization") == Some("Bearer t")));
}

#[test]
fn endless_redirects_end() {
    let server = hub(|_, seen| Some(Reply::new(302, "").header("location", seen.path.clone())));
    assert!(matches!(pull_error(&options(&server, &cache())), Error::Redirect { .. }));
    assert_eq!(server.paths().len(), 11);
}

#[test]
fn an_expired_link_is_asked_for_again() {
    let expired = AtomicUsize::new(0);
    let cdn = Server::start(move |seen| {
        if expired.fetch_add(1, Ordering::SeqCst) == 0 {
            return Reply::new(403, "expired");
        }
        file(seen, WEIGHTS, Repo::model().weights())
    });
    let to = cdn.url();
    let server = hub(move |_, seen| {
        seen.path.ends_with(WEIGHTS).then(|| Reply::new(302, "").header("location", to.clone() + "/x"))
    });
    let cache = cache();
    assert_whole(&pull(&id(), None, &options(&server, &cache), &mut NoProgress).unwrap());
    assert_eq!((server.seen_for(WEIGHTS).len(), cdn.paths().len()), (2, 2));
}

#[test]
fn what_the_server_does_not_have() {
    let server = plain();
    let cache = cache();
    let options = options(&server, &cache);
    let other = parse_id("org/other").unwrap();
    let error = pull(&other, None, &options, &mut NoProgress).unwrap_err();
    assert!(matches!(&error, Error::NotFound { id, .. } if id == "org/other"), "{error}");
    let error = pull(&id(), Some("nope"), &options, &mut NoProgress).unwrap_err();
    assert_eq!(error.to_string(), "org/name: no revision \"nope\"");

    // A server that sends no error code is asked whether it has the model at all.
    let plain404 = hub(|_, seen| seen.path.contains("/revision/").then(|| Reply::new(404, "")));
    let error = pull_error(&support::options(&plain404, &cache));
    assert!(matches!(error, Error::RevisionNotFound { .. }), "{error}");
    let nothing = hub(|_, _| Some(Reply::new(404, "")));
    assert!(matches!(pull_error(&support::options(&nothing, &cache)), Error::NotFound { .. }));
}

#[test]
fn a_listed_file_that_is_gone() {
    let server = hub(|_, seen| seen.path.ends_with("vocab.txt").then(|| Reply::new(404, "")));
    let error = pull_error(&options(&server, &cache()));
    assert!(matches!(&error, Error::Status { status: 404, url } if url.ends_with("vocab.txt")), "{error}");
}

#[test]
fn a_wrong_hash_deletes_the_file() {
    for name in [WEIGHTS, "config.json"] {
        let server = hub(move |repo, seen| {
            seen.path.ends_with(&format!("{}/{name}", repo.commit)).then(|| {
                let mut data = repo.files[name].clone();
                data[0] ^= 1;
                file(seen, name, &data)
            })
        });
        let cache = cache();
        let error = pull_error(&options(&server, &cache));
        assert!(matches!(&error, Error::HashMismatch { file, .. } if file.ends_with(name)), "{error}");
        let repo = Repo::model();
        let digits =
            if support::is_lfs(name) { sha256(&repo.files[name]) } else { git_sha1(&repo.files[name]) };
        assert!(!blobs(&cache).iter().any(|blob| blob.starts_with(&digits)), "{:?}", blobs(&cache));
        assert_eq!(cached(&id(), None, &options(&server, &cache)).unwrap(), None);
    }
}

#[test]
fn a_wrong_size_is_an_error() {
    // Longer and shorter, with a stated length and without one.
    for (change, stated) in [(1_isize, true), (-1, true), (1, false)] {
        let server = hub(move |repo, seen| {
            seen.path.ends_with(WEIGHTS).then(|| {
                let mut data = repo.weights().to_vec();
                data.resize(data.len().checked_add_signed(change).unwrap(), 0);
                let reply = file(seen, WEIGHTS, &data);
                if stated {
                    return reply;
                }
                let mut chunked = format!("{:x}\r\n", data.len()).into_bytes();
                chunked.extend(&data);
                chunked.extend(b"\r\n0\r\n\r\n");
                Reply::new(200, chunked).header("transfer-encoding", "chunked")
            })
        });
        let cache = cache();
        let error = pull_error(&options(&server, &cache));
        assert!(
            matches!(&error, Error::SizeMismatch { file, expected: 200_000, .. } if file == WEIGHTS),
            "{error}"
        );
        assert!(!blobs(&cache).iter().any(|blob| blob.ends_with(".incomplete")), "deleted");
    }
}

#[test]
fn a_cut_connection_goes_on_where_it_was() {
    let tries = AtomicUsize::new(0);
    let server = hub(move |repo, seen| {
        (seen.path.ends_with(WEIGHTS) && tries.fetch_add(1, Ordering::SeqCst) < 2)
            .then(|| file(seen, WEIGHTS, repo.weights()).cut(60_000))
    });
    let cache = cache();
    let mut notes = Notes::default();
    assert_whole(&pull(&id(), None, &options(&server, &cache), &mut notes).unwrap());
    let seen = server.seen_for(WEIGHTS);
    let ranges: Vec<_> = seen.iter().map(|seen| seen.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=60000-"), Some("bytes=120000-")]);
    let tag = format!("\"{}\"", sha256(Repo::model().weights()));
    assert_eq!(seen[1].header("if-range"), Some(tag.as_str()));
    assert_eq!(notes.advanced, notes.plan.1, "no byte came twice");
    assert_eq!(notes.retries.len(), 2);
}

#[test]
fn an_interrupted_pull_goes_on_in_the_next() {
    let server = hub(|repo, seen| {
        seen.path
            .ends_with(WEIGHTS)
            .then(|| file(seen, WEIGHTS, repo.weights()).cut(if seen.from().is_none() { 50_000 } else { 0 }))
    });
    let cache = cache();
    let error = pull_error(&options(&server, &cache));
    assert!(matches!(&error, Error::Network { attempts: 4, .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Network);
    assert_eq!(cached(&id(), None, &options(&server, &cache)).unwrap(), None);

    let server = plain();
    let mut notes = Notes::default();
    assert_whole(&pull(&id(), None, &options(&server, &cache), &mut notes).unwrap());
    assert_eq!(notes.files.last().unwrap(), &(WEIGHTS.to_owned(), 200_000, 50_000));
    assert_eq!(notes.advanced, 150_000);
    assert_eq!(server.seen_for(WEIGHTS)[0].header("range"), Some("bytes=50000-"));
    assert_eq!(server.paths().len(), 2, "the small files are there already");
}

#[test]
fn a_whole_file_that_was_not_moved_is_only_checked() {
    let (server, cache) = (plain(), cache());
    let repo = Repo::model();
    let folder = cache.path().join("models--org--name/blobs");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(sha256(repo.weights()) + ".incomplete"), repo.weights()).unwrap();
    assert_whole(&pull(&id(), None, &options(&server, &cache), &mut NoProgress).unwrap());
    assert!(server.seen_for(WEIGHTS).is_empty());
}

#[test]
fn wrong_bytes_from_before_are_replaced() {
    for length in [1000, 200_000, 300_000] {
        let (server, cache) = (plain(), cache());
        let folder = cache.path().join("models--org--name/blobs");
        fs::create_dir_all(&folder).unwrap();
        let digits = sha256(Repo::model().weights());
        fs::write(folder.join(digits + ".incomplete"), vec![7; length]).unwrap();
        assert_whole(&pull(&id(), None, &options(&server, &cache), &mut NoProgress).unwrap());
    }
}

#[test]
fn a_server_that_ignores_ranges() {
    let tries = AtomicUsize::new(0);
    let server = hub(move |repo, seen| {
        let whole = Seen { headers: Default::default(), ..seen.clone() };
        seen.path.ends_with(WEIGHTS).then(|| {
            let reply = file(&whole, WEIGHTS, repo.weights());
            if tries.fetch_add(1, Ordering::SeqCst) == 0 { reply.cut(60_000) } else { reply }
        })
    });
    let cache = cache();
    let mut notes = Notes::default();
    assert_whole(&pull(&id(), None, &options(&server, &cache), &mut notes).unwrap());
    assert_eq!(notes.files.last().unwrap(), &(WEIGHTS.to_owned(), 200_000, 0), "told that it began anew");
}

#[test]
fn a_server_that_refuses_or_confuses_ranges() {
    for status in [416, 206] {
        let server = hub(move |repo, seen| {
            (seen.path.ends_with(WEIGHTS) && seen.from().is_some())
                .then(|| Reply::new(status, repo.weights()).header("content-range", "bytes 0-199999/200000"))
        });
        let cache = cache();
        let folder = cache.path().join("models--org--name/blobs");
        fs::create_dir_all(&folder).unwrap();
        let weights = Repo::model().weights().to_vec();
        fs::write(folder.join(sha256(&weights) + ".incomplete"), &weights[..100]).unwrap();
        let pulled = pull(&id(), None, &options(&server, &cache), &mut NoProgress);
        match status {
            416 => assert_whole(&pulled.unwrap()),
            _ => assert!(matches!(pulled.unwrap_err(), Error::BadAnswer { .. })),
        }
    }
}

#[test]
fn passing_failures_are_tried_again() {
    for status in [500, 502, 503, 429, 408] {
        let tries = AtomicUsize::new(0);
        // Every other request fails.
        let server = hub(move |_, _| {
            tries
                .fetch_add(1, Ordering::SeqCst)
                .is_multiple_of(2)
                .then(|| Reply::new(status, "").header("retry-after", "3600"))
        });
        let cache = cache();
        let mut notes = Notes::default();
        assert_whole(&pull(&id(), None, &options(&server, &cache), &mut notes).unwrap());
        assert_eq!(notes.retries, vec![format!("status {status}"); 7]);
    }
}

#[test]
fn lasting_failures_end() {
    let server = hub(|_, _| Some(Reply::new(500, "")));
    let error = pull_error(&options(&server, &cache()));
    let url = format!("{}/api/models/org/name/revision/main", server.url());
    assert_eq!(error.to_string(), format!("{url}: status 500, after 4 attempts"));
    assert_eq!(server.paths().len(), 4);
}

#[test]
fn nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let server = plain();
    let error = pull_error(&options(&server, &cache()).endpoint(endpoint));
    assert!(matches!(error, Error::Network { attempts: 4, .. }), "{error}");
}

#[test]
fn silence_counts_as_a_cut() {
    let tries = AtomicUsize::new(0);
    let server = hub(move |repo, seen| {
        (seen.path.ends_with(WEIGHTS) && tries.fetch_add(1, Ordering::SeqCst) == 0).then(|| {
            let mut reply = file(seen, WEIGHTS, repo.weights());
            reply.stall = Duration::from_millis(400);
            reply
        })
    });
    let cache = cache();
    let mut notes = Notes::default();
    let options = options(&server, &cache).idle_timeout(Duration::from_millis(100));
    assert_whole(&pull(&id(), None, &options, &mut notes).unwrap());
    assert!(!notes.retries.is_empty());
}

#[test]
fn branches_tags_and_commits() {
    let (server, cache) = (plain(), cache());
    let options = options(&server, &cache);
    let commit = "c".repeat(40);
    for revision in ["v1.0", "refs/pr/1", &commit] {
        let folder = pull(&id(), Some(revision), &options, &mut NoProgress).unwrap();
        assert!(folder.ends_with(Path::new("snapshots").join(&commit)), "{revision}");
        assert_eq!(cached(&id(), Some(revision), &options).unwrap(), Some(folder));
    }
    let refs = cache.path().join("models--org--name/refs");
    assert_eq!(fs::read_to_string(refs.join("v1.0")).unwrap(), commit);
    assert_eq!(fs::read_to_string(refs.join("refs/pr/1")).unwrap(), commit);
    assert!(!refs.join(&commit).exists(), "a commit needs no reference");
    assert!(server.paths().iter().any(|path| path.contains("/revision/refs%2Fpr%2F1?")));
    for revision in ["../main", "", "/etc", "a\\b"] {
        let error = pull(&id(), Some(revision), &options, &mut NoProgress).unwrap_err();
        assert!(matches!(error, Error::BadRevision { .. }), "{revision}");
        assert!(cached(&id(), Some(revision), &options).is_err());
    }
}

#[test]
fn offline_uses_the_cache_and_no_connection() {
    let (server, cache) = (plain(), cache());
    let online = options(&server, &cache);
    let offline = online.clone().offline(true);
    let error = pull_error(&offline);
    assert_eq!(error.to_string(), "org/name: offline, and the cache has no snapshot of revision \"main\"");
    assert!(server.paths().is_empty());

    let folder = pull(&id(), None, &online, &mut NoProgress).unwrap();
    server.forget();
    assert_eq!(pull(&id(), None, &offline, &mut NoProgress).unwrap(), folder);
    assert_eq!(pull(&id(), Some(&"c".repeat(40)), &offline, &mut NoProgress).unwrap(), folder);

    for name in [WEIGHTS, "config.json"] {
        fs::remove_file(folder.join(name)).unwrap();
        let error = pull_error(&offline);
        assert!(matches!(&error, Error::OfflineMissing { missing, .. } if missing == name), "{error}");
    }
    assert!(server.paths().is_empty());
}

#[test]
fn offline_names_the_missing_shard() {
    let repo = {
        let mut repo = Repo::model();
        let weights = repo.files.remove(WEIGHTS).unwrap();
        repo.files.insert("model-00001-of-00002.safetensors".into(), weights[..100].to_vec());
        repo.files.insert("model-00002-of-00002.safetensors".into(), weights[100..].to_vec());
        repo.files.insert(
            "model.safetensors.index.json".into(),
            serde_json::json!({"weight_map": {
                "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors",
            }})
            .to_string()
            .into_bytes(),
        );
        repo
    };
    let server = Server::start(move |seen| repo.answer(seen));
    let cache = cache();
    let options = options(&server, &cache);
    let folder = pull(&id(), None, &options, &mut NoProgress).unwrap();
    let offline = options.offline(true);
    assert_eq!(pull(&id(), None, &offline, &mut NoProgress).unwrap(), folder);
    fs::remove_file(folder.join("model-00002-of-00002.safetensors")).unwrap();
    let error = pull_error(&offline);
    assert!(
        matches!(&error, Error::OfflineMissing { missing, .. } if missing == "model-00002-of-00002.safetensors"),
        "{error}"
    );
}

#[test]
fn a_model_without_safetensors() {
    let server = listing(|info| {
        let siblings = info["siblings"].as_array_mut().unwrap();
        siblings.retain(|sibling| sibling["rfilename"] != WEIGHTS);
    });
    assert_eq!(
        pull_error(&options(&server, &cache())).to_string(),
        "org/name: no model.safetensors and no model.safetensors.index.json; the repository has onnx/model.onnx, \
         pytorch_model.bin"
    );
    assert_eq!(server.paths().len(), 1, "nothing is fetched");
}

#[test]
fn a_list_without_hashes_asks_for_each_file() {
    let server = hub(|repo, seen| {
        if seen.path.starts_with("/api/") {
            let mut info = repo.info();
            for sibling in info["siblings"].as_array_mut().unwrap() {
                *sibling = serde_json::json!({"rfilename": sibling["rfilename"]});
            }
            return Some(Reply::new(200, info.to_string()));
        }
        // As the hub answers for a large file.
        (seen.method == "HEAD" && seen.path.ends_with(WEIGHTS)).then(|| {
            Reply::new(302, "")
                .header("location", "http://127.0.0.1:1/never-asked")
                .header("x-linked-etag", format!("\"{}\"", sha256(repo.weights())))
                .header("x-linked-size", repo.weights().len().to_string())
        })
    });
    let cache = cache();
    assert_whole(&pull(&id(), None, &options(&server, &cache), &mut NoProgress).unwrap());

    let server = hub(|repo, seen| {
        if seen.method == "HEAD" {
            return Some(Reply::new(200, "x").header("etag", "W/\"no-hash\""));
        }
        seen.path.starts_with("/api/").then(|| {
            let names = repo.files.keys().map(|name| serde_json::json!({"rfilename": name}));
            let info = serde_json::json!({"sha": repo.commit, "siblings": names.collect::<Vec<_>>()});
            Reply::new(200, info.to_string())
        })
    });
    assert!(matches!(pull_error(&options(&server, &self::cache())), Error::NoHash { .. }));
}

#[test]
fn files_with_the_same_content_are_fetched_once() {
    let mut repo = Repo::model();
    repo.files.insert("tokenizer.json".into(), repo.files["config.json"].clone());
    let expected = repo.files["config.json"].clone();
    let server = Server::start(move |seen| repo.answer(seen));
    let cache = cache();
    let folder = pull(&id(), None, &options(&server, &cache), &mut NoProgress).unwrap();
    assert_eq!(fs::read(folder.join("tokenizer.json")).unwrap(), expected);
    assert_eq!(server.paths().len(), 6);
}

#[test]
fn hostile_names() {
    for name in
        ["../../evil.json", "/etc/evil.json", "a/../../evil.bin", "a\\evil.json", "", "x\u{1b}[2J.json"]
    {
        let server = listing(move |info| info["siblings"][0]["rfilename"] = name.into());
        let cache = cache();
        let error = pull_error(&options(&server, &cache));
        assert!(matches!(&error, Error::BadFileName { .. }), "{name:?}: {error}");
        assert!(!error.to_string().contains('\u{1b}'));
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0, "nothing is written");
    }
    let server = listing(|info| info["siblings"][0]["rfilename"] = ("x".repeat(1 << 20) + ".json").into());
    let error = pull_error(&options(&server, &cache()));
    assert!(error.to_string().len() < 300, "{}", error.to_string().len());
    let server = listing(|info| info["siblings"][0]["rfilename"] = "config.json".into());
    assert!(matches!(pull_error(&options(&server, &cache())), Error::BadAnswer { .. }));
}

#[test]
fn hostile_lists() {
    let many = listing(|info| {
        let extra = (0..2001).map(|i| serde_json::json!({"rfilename": format!("{i}.json"), "size": 1}));
        info["siblings"].as_array_mut().unwrap().extend(extra);
    });
    assert!(matches!(pull_error(&options(&many, &cache())), Error::TooManyFiles { limit: 2000, .. }));

    let huge = hub(|_, _| Some(Reply::new(200, vec![b' '; (16 << 20) + 1])));
    assert!(matches!(pull_error(&options(&huge, &cache())), Error::AnswerTooLarge { .. }));

    for body in
        ["", "<html>", "[]", "{\"siblings\":[]}", "{\"sha\":\"../..\",\"siblings\":[]}", "{\"sha\":1}"]
    {
        let server = hub(move |_, _| Some(Reply::new(200, body)));
        let error = pull_error(&options(&server, &cache()));
        assert!(matches!(&error, Error::BadAnswer { .. }), "{body}: {error}");
    }
    let deep = hub(|_, _| Some(Reply::new(200, "[".repeat(1 << 20))));
    assert!(matches!(pull_error(&options(&deep, &cache())), Error::BadAnswer { .. }));
}

#[test]
fn a_hash_that_is_a_path_is_never_one() {
    let server = listing(|info| {
        for sibling in info["siblings"].as_array_mut().unwrap() {
            sibling["blobId"] = "../../../evil".into();
            sibling["lfs"] = serde_json::json!({"sha256": "/etc/passwd", "size": 1});
        }
    });
    let cache = cache();
    // The server's headers give the right hash.
    assert_whole(&pull(&id(), None, &options(&server, &cache), &mut NoProgress).unwrap());
}

#[test]
fn two_pulls_at_once_fetch_each_file_once() {
    let (server, cache) = (plain(), cache());
    let options = options(&server, &cache);
    let folders: Vec<_> = thread::scope(|scope| {
        let pulls: Vec<_> =
            (0..4).map(|_| scope.spawn(|| pull(&id(), None, &options, &mut NoProgress).unwrap())).collect();
        pulls.into_iter().map(|pull| pull.join().unwrap()).collect()
    });
    for folder in folders {
        assert_whole(&folder);
    }
    assert_eq!(server.seen_for(WEIGHTS).len(), 1);
    assert!(!blobs(&cache).iter().any(|blob| blob.ends_with(".incomplete")));
}

#[test]
fn a_damaged_cache_is_mended() {
    let (server, cache) = (plain(), cache());
    let options = options(&server, &cache);
    let folder = pull(&id(), None, &options, &mut NoProgress).unwrap();
    let blob = cache.path().join("models--org--name/blobs").join(sha256(Repo::model().weights()));
    fs::write(&blob, b"short").unwrap();
    pull(&id(), None, &options, &mut NoProgress).unwrap();
    assert_whole(&folder);
    fs::remove_file(&blob).unwrap();
    assert_eq!(cached(&id(), None, &options).unwrap(), None, "a link to nothing is nothing");
    pull(&id(), None, &options, &mut NoProgress).unwrap();
    assert_whole(&folder);
}

#[test]
fn a_cache_that_cannot_be_written() {
    let server = plain();
    let cache = cache();
    let path = cache.path().join("file");
    fs::write(&path, b"").unwrap();
    let error = pull_error(&options(&server, &cache).cache_dir(&path));
    assert!(matches!(&error, Error::Io { path: at, .. } if at.starts_with(&path)), "{error}");
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn unusable_options() {
    let server = plain();
    let cache = cache();
    for endpoint in
        ["", "localhost", "ftp://a", "http://", "http://a b", "http://u:p@127.0.0.1:1", "http://a/?q"]
    {
        let error = pull_error(&options(&server, &cache).endpoint(endpoint));
        assert!(matches!(&error, Error::BadEndpoint { .. }), "{endpoint}: {error}");
        assert!(!error.to_string().contains("u:p"));
    }
    for token in ["a b", "a\r\nHost: x", "é"] {
        assert!(matches!(pull_error(&options(&server, &cache).token(token)), Error::BadToken));
    }
    let pem = cache.path().join("ca.pem");
    fs::write(&pem, "nothing").unwrap();
    let error = pull_error(&options(&server, &cache).certificates(&pem));
    assert!(matches!(error, Error::BadCertificates { .. }));
    assert!(server.paths().is_empty());
}

#[test]
fn an_endpoint_below_a_path() {
    let repo = Repo::model();
    let server = Server::start(move |seen| match seen.path.strip_prefix("/artifacts/hub") {
        Some(path) => repo.answer(&Seen { path: path.to_owned(), ..seen.clone() }),
        None => Reply::new(404, ""),
    });
    let cache = cache();
    let options = options(&server, &cache).endpoint(format!("{}/artifacts/hub/", server.url()));
    assert_whole(&pull(&id(), None, &options, &mut NoProgress).unwrap());
}
