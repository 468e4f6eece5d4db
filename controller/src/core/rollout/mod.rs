//! How a release widens, waits, or is taken back.
//!
//! | module | what it holds |
//! |---|---|
//! | [`evidence`] | the arithmetic: how strongly do counts speak against a release, or for it |

pub mod evidence;
