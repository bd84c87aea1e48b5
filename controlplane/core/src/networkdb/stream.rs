//! How much of a TCP stream makes a message, for the shell that reads it.

pub use crate::wire::stream::{Completeness, MAX_MESSAGE_BYTES, completeness};
