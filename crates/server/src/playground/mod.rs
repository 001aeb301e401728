//! The page at `/`: a query, documents, and how the order moves. Everything it needs is in the binary.

use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

/// What the page's answer says in `content-security-policy`. The page has no inline code and no inline style, and asks
/// nobody but this server.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// All files of the page; `/` is the page itself.
static ASSETS: &[Asset] = &[
    Asset { path: "/", content_type: "text/html; charset=utf-8", body: include_bytes!("page.html") },
    Asset {
        path: "/playground.css",
        content_type: "text/css; charset=utf-8",
        body: include_bytes!("playground.css"),
    },
    Asset {
        path: "/playground.js",
        content_type: "text/javascript; charset=utf-8",
        body: include_bytes!("playground.js"),
    },
    Asset { path: "/playground.svg", content_type: "image/svg+xml", body: include_bytes!("playground.svg") },
];

/// A file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// Where it is served.
    pub path: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// Its bytes.
    pub body: &'static [u8],
}

impl Asset {
    /// A strong entity tag, quotes included: the same bytes have the same tag, in every replica.
    #[must_use]
    pub fn etag(&self) -> &'static str {
        static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
            ASSETS
                .iter()
                .map(|asset| {
                    let digest = Sha256::digest(asset.body);
                    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
                    format!("\"{hex}\"")
                })
                .collect()
        });
        ASSETS.iter().position(|asset| asset.path == self.path).map_or("\"\"", |at| TAGS[at].as_str())
    }
}

/// The file served at a path, if it is one of the page's.
#[must_use]
pub fn asset(path: &str) -> Option<Asset> {
    ASSETS.iter().find(|asset| asset.path == path).copied()
}

/// All files of the page.
#[must_use]
pub fn assets() -> &'static [Asset] {
    ASSETS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> &'static str {
        std::str::from_utf8(asset(path).unwrap().body).unwrap()
    }

    /// What stands between `before` and the next `after`, wherever `before` is found.
    fn between<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
        text.split(before).skip(1).filter_map(|rest| rest.split(after).next()).collect()
    }

    #[test]
    fn the_page_is_small_and_whole() {
        let bytes: usize = assets().iter().map(|asset| asset.body.len()).sum();
        assert!(bytes < 40_000, "{bytes} bytes");
        let page = text("/");
        for name in between(page, "href=\"", "\"").into_iter().chain(between(page, "src=\"", "\"")) {
            let served = asset(&format!("/{name}")).is_some();
            assert!(served || name.starts_with('#') || ["openapi.json", "metrics"].contains(&name), "{name}");
        }
    }

    #[test]
    fn the_page_keeps_its_own_policy() {
        let page = text("/");
        assert!(!page.contains("<style") && !page.contains("style="), "inline style");
        assert!(page.matches("<script").count() == 1 && page.contains("></script>"), "inline script");
        for attribute in page.split_whitespace().filter(|word| word.contains('=')) {
            assert!(!attribute.starts_with("on"), "inline handler {attribute}");
        }
        for path in ["/", "/playground.css", "/playground.js"] {
            let outside = text(path).replace("http://www.w3.org/2000/svg", "");
            assert!(
                !outside.contains("http://") && !outside.contains("https://"),
                "{path} names another host"
            );
        }
        for storage in
            ["localStorage", "sessionStorage", "document.cookie", "indexedDB", "innerHTML", "eval("]
        {
            assert!(!text("/playground.js").contains(storage), "{storage}");
        }
    }

    #[test]
    fn what_the_script_looks_for_is_in_the_page() {
        let ids = between(text("/playground.js"), "$(\"", "\")");
        assert!(ids.len() > 10);
        for id in ids {
            assert!(text("/").contains(&format!("id=\"{id}\"")), "{id}");
        }
    }

    #[test]
    fn tags_differ_and_stay() {
        let tags: std::collections::HashSet<_> = assets().iter().map(Asset::etag).collect();
        assert_eq!(tags.len(), assets().len());
        assert_eq!(asset("/").unwrap().etag(), asset("/").unwrap().etag());
        assert!(asset("/other").is_none());
    }
}
