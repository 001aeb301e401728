use std::path::PathBuf;

use jointly_bundle::check_name;

use crate::cache::{Found, RepoCache};
use crate::http::Client;
use crate::{Error, HubId, HubOptions, Progress, Result, api, download};

const DEFAULT_REVISION: &str = "main";

/// Fetches what a reranker needs of a model and gives the snapshot's folder. Files that the cache has with the right
/// size are not fetched again; an interrupted file goes on where it was cut; every file that comes is checked against
/// its size and hash. `revision` is a branch, tag or commit; `None` is `main`. Offline, it is [`cached`] with an error
/// for what is missing.
///
/// # Errors
/// Each variant of [`Error`] says what and where; [`Error::kind`] says who can act.
pub fn pull(
    id: &HubId,
    revision: Option<&str>,
    options: &HubOptions,
    progress: &mut dyn Progress,
) -> Result<PathBuf> {
    let revision = checked(revision)?;
    let cache = RepoCache::new(&options.cache_dir, id);
    if options.offline {
        return match cache.find(revision)? {
            Found::Whole(folder) => Ok(folder),
            Found::Missing(missing) => {
                Err(Error::OfflineMissing { id: id.to_string(), revision: revision.to_owned(), missing })
            }
        };
    }
    let client = Client::new(options)?;
    let snapshot = api::snapshot(&client, id, revision, progress)?;
    let bytes = snapshot.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size));
    progress.plan(snapshot.files.len(), bytes);
    cache.make_blobs()?;
    for file in &snapshot.files {
        let commit = &snapshot.commit;
        let digits = file.checksum.digits();
        if cache.has_file(commit, &file.name, file.size) {
            progress.file(&file.name, file.size, file.size);
            progress.done(&file.name);
            continue;
        }
        {
            let _lock = cache.lock(digits, &file.name, progress)?;
            if cache.has_blob(digits, file.size) {
                progress.file(&file.name, file.size, file.size);
            } else {
                let url = api::file_url(&client, id, commit, &file.name);
                let paths = (&*cache.incomplete(digits), &*cache.blob(digits));
                download::download(&client, id, file, &url, paths, progress)?;
            }
        }
        cache.link(commit, &file.name, digits)?;
        progress.done(&file.name);
    }
    // Last, so that a branch in the cache always leads to a whole snapshot.
    cache.write_reference(revision, &snapshot.commit)?;
    Ok(cache.snapshot(&snapshot.commit))
}

/// The snapshot's folder if the cache has everything that loading the model needs. Opens no connection.
///
/// # Errors
/// [`Error::BadRevision`], [`Error::Io`].
pub fn cached(id: &HubId, revision: Option<&str>, options: &HubOptions) -> Result<Option<PathBuf>> {
    let revision = checked(revision)?;
    match RepoCache::new(&options.cache_dir, id).find(revision)? {
        Found::Whole(folder) => Ok(Some(folder)),
        Found::Missing(_) => Ok(None),
    }
}

/// The snapshot's folder: the cache's, if that has everything, whatever the server has by now; else as [`pull`].
///
/// # Errors
/// As [`pull`].
pub fn cached_or_pulled(
    id: &HubId,
    revision: Option<&str>,
    options: &HubOptions,
    progress: &mut dyn Progress,
) -> Result<PathBuf> {
    match cached(id, revision, options)? {
        Some(folder) => Ok(folder),
        None => pull(id, revision, options, progress),
    }
}

fn checked(revision: Option<&str>) -> Result<&str> {
    let revision = revision.unwrap_or(DEFAULT_REVISION);
    check_name(revision)
        .map_err(|fault| Error::BadRevision { revision: revision.chars().take(80).collect(), fault })?;
    Ok(revision)
}
