//! The page at `/`, from the binary.

/// A file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// Its media type.
    pub content_type: &'static str,
    /// Its content.
    pub body: &'static [u8],
}

/// The file at `path` (`/` is the page itself), if there is one. Asked for GET and HEAD, after all other routes.
#[must_use]
pub fn asset(path: &str) -> Option<Asset> {
    let _ = path;
    None
}
