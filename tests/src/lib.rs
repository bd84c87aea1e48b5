//! What the whole-system tests share.

pub mod namespace;
pub mod packet;
pub mod programs;
//! What the whole-system tests and the demo share: hosts as network namespaces, with a real `weftd` on each.

pub mod interrupt;
pub mod rig;
