//! Texts as Go writes them: peers compare and parse these byte for byte.

mod base64;
mod json;
mod quote;
#[cfg(test)]
mod tests;

pub(crate) use base64::{decode as decode_base64, encode as encode_base64};
pub(crate) use json::Json;
pub(crate) use quote::quote;
