//! What the whole-system tests share.

pub mod expect;
pub mod namespace;
pub mod packet;
pub mod programs;
pub mod traffic;
