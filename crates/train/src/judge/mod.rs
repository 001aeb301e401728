//! Judges: who says which of two documents is more relevant.
