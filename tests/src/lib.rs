//! What the whole-system tests and the demo share: hosts as network namespaces, with a real `weftd` on each.

pub mod interrupt;
pub mod rig;
