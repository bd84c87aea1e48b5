//! What the whole-system tests and the demo share: hosts as network namespaces with a real `weftd` on each, and packets for the
//! kernel's own test run of the programs.

pub mod differential;
pub mod docker;
pub mod expect;
pub mod interrupt;
pub mod load;
pub mod misuse;
pub mod model;
pub mod namespace;
pub mod packet;
pub mod policies;
pub mod programs;
pub mod rig;
pub mod story;
pub mod table;
pub mod traffic;
pub mod verifier;
pub mod wired;
