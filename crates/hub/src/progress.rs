/// What is told while a model is pulled. Files come one after the other.
pub trait Progress {
    /// All that this model needs: how many files, and their sizes in bytes together.
    fn plan(&mut self, files: usize, bytes: u64) {
        let _ = (files, bytes);
    }

    /// A file begins. It has `total` bytes, of which `resumed` are already here. Told again, with another `resumed`,
    /// when a file has to begin anew.
    fn file(&mut self, name: &str, total: u64, resumed: u64);

    /// So many more bytes of the file have come.
    fn advance(&mut self, bytes: u64);

    /// The file is whole, checked and in its place.
    fn done(&mut self, name: &str);

    /// Another process is fetching the same file; this one waits for it.
    fn waiting(&mut self, name: &str) {
        let _ = name;
    }

    /// A request failed and will be made again; `attempt` counts from 1.
    fn retrying(&mut self, attempt: u32, reason: &str) {
        let _ = (attempt, reason);
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn file(&mut self, _: &str, _: u64, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn done(&mut self, _: &str) {}
}
