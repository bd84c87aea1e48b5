//! Packet rate and cost: weft against Docker's arrangement and against no overlay at all, in interleaved rounds of one run.
//!
//! - [`arrangement`]: two hosts and their containers, joined in one way or another
//! - [`load`]: the generators that run inside the containers
//! - [`measure`]: the list of measures and what each yields
//! - [`rounds`]: who is measured when, and which samples are compared
//! - [`program_cost`], [`warm`]: nanoseconds of each program
//! - [`forged`]: what forged VXLAN costs
//! - [`growth`], [`memory`]: the packet rate with full maps, what these take, and what a read at random costs
//! - [`report`], [`targets`], [`plot`]: the table and the JSON, what was to be reached, the picture
#![forbid(unsafe_code)]

pub mod arrangement;
pub mod awake;
pub mod command;
pub mod dataplane;
pub mod error;
pub mod forged;
pub mod gossip;
pub mod growth;
pub mod interrupt;
pub mod load;
pub mod measure;
pub mod memory;
pub mod netns;
pub mod object;
pub mod options;
pub mod plot;
pub mod program_cost;
pub mod report;
pub mod rounds;
pub mod schedules;
pub mod statistics;
pub mod targets;
pub mod warm;
pub mod workers;
