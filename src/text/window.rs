//! Windows over a document that is longer than the room for it.

use std::ops::Range;

use crate::error::{Error, Result};

/// How a long document is read in windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowOptions {
    /// Document tokens from the start of one window to the start of the next. Default: half the room, so that every
    /// passage of up to half a window lies whole in some window. At most the room, so that nothing goes unread.
    pub stride: Option<usize>,
    /// The largest number of windows of one document; what lies beyond is not read and the result says `truncated`.
    pub max_windows: usize,
    /// The longest window, in document tokens; as long as there is room for, if none.
    pub tokens: Option<usize>,
}

impl Default for WindowOptions {
    fn default() -> Self {
        Self { stride: None, max_windows: Self::DEFAULT_MAX_WINDOWS, tokens: None }
    }
}

impl WindowOptions {
    /// With 512 tokens and the default stride, 64 windows read about 16,000 tokens.
    pub const DEFAULT_MAX_WINDOWS: usize = 64;

    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the step between windows, in document tokens.
    #[must_use]
    pub fn stride(mut self, tokens: usize) -> Self {
        self.stride = Some(tokens);
        self
    }

    /// Sets the largest number of windows of one document.
    #[must_use]
    pub fn max_windows(mut self, windows: usize) -> Self {
        self.max_windows = windows;
        self
    }

    /// Sets the longest window, in document tokens.
    #[must_use]
    pub fn tokens(mut self, tokens: usize) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// # Errors
    /// [`Error::InvalidOption`] for a stride, a length or a number of windows of 0.
    pub(crate) fn check(&self) -> Result<()> {
        let zero = |option| Error::InvalidOption { option, problem: "0; it must be at least 1".into() };
        match self {
            Self { stride: Some(0), .. } => Err(zero("stride")),
            Self { tokens: Some(0), .. } => Err(zero("tokens")),
            Self { max_windows: 0, .. } => Err(zero("max_windows")),
            _ => Ok(()),
        }
    }

    /// The step between windows of `room` tokens.
    pub(crate) fn step(&self, room: usize) -> usize {
        self.stride.unwrap_or(room / 2).clamp(1, room.max(1))
    }

    /// The token ranges of the windows over `tokens` document tokens, `room` tokens each at most, and whether all
    /// tokens are in some window. The last window is moved back to end where the document ends.
    pub(crate) fn ranges(&self, tokens: usize, room: usize) -> (Vec<Range<usize>>, bool) {
        let step = self.step(room);
        let mut ranges = Vec::new();
        let mut start = 0;
        while ranges.len() < self.max_windows {
            if start + room >= tokens {
                ranges.push(tokens.saturating_sub(room)..tokens);
                return (ranges, true);
            }
            ranges.push(start..start + room);
            start += step;
        }
        (ranges, false)
    }

    /// Document tokens beyond which no window reads.
    pub(crate) fn reach(&self, room: usize) -> usize {
        self.step(room).saturating_mul(self.max_windows - 1).saturating_add(room)
    }
}

#[cfg(test)]
// A list of one range is what is meant.
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_the_document_in_steps() {
        let options = WindowOptions::new();
        assert_eq!(options.ranges(0, 10), (vec![0..0], true));
        assert_eq!(options.ranges(10, 10), (vec![0..10], true));
        assert_eq!(options.ranges(11, 10), (vec![0..10, 1..11], true));
        assert_eq!(options.ranges(23, 10), (vec![0..10, 5..15, 10..20, 13..23], true));
        assert_eq!(options.stride(99).ranges(25, 10), (vec![0..10, 10..20, 15..25], true));
    }

    #[test]
    fn the_number_of_windows_is_bounded() {
        let options = WindowOptions::new().max_windows(2);
        assert_eq!(options.ranges(23, 10), (vec![0..10, 5..15], false));
        assert_eq!(options.reach(10), 15);
        assert_eq!(options.ranges(15, 10), (vec![0..10, 5..15], true));
    }

    #[test]
    fn a_stride_or_number_of_zero_is_refused() {
        assert!(WindowOptions::new().stride(0).check().is_err());
        assert!(WindowOptions::new().tokens(0).check().is_err());
        assert!(WindowOptions::new().max_windows(0).check().is_err());
        assert!(WindowOptions::new().check().is_ok());
    }
}
