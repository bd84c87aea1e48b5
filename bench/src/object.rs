//! The bench's own eBPF object: the ceiling's programs and the instruments.

use crate::error::{Context, Error, Result};
use aya::Ebpf;
use aya::programs::tc::SchedClassifierLinkId;
use aya::programs::{SchedClassifier, TcAttachType};
use std::path::Path;

/// Names of its programs.
pub mod program {
    /// TC ingress of a container's host-side veth.
    pub const EGRESS: &str = "ceiling_egress";
    /// TC ingress of the uplink.
    pub const INGRESS: &str = "ceiling_ingress";
    /// TC, does nothing.
    pub const NOOP: &str = "noop";
    /// TC, counts in `arrived` and drops.
    pub const COUNT: &str = "count_and_drop";
    /// TC, runs the two programs in `turns` in turn.
    pub const TAKE_TURNS: &str = "take_turns";
    /// TC, makes a frame what it was before encapsulation.
    pub const MAKE_PLAIN: &str = "make_plain";
    /// TC, makes a frame what it was after encapsulation.
    pub const MAKE_ENCAPSULATED: &str = "make_encapsulated";
    /// TC, adds up in `clocked` what these two cost.
    pub const CLOCK: &str = "clock";
    /// XDP, redirects to the device in `outlet`.
    pub const GENERATE: &str = "generate";
    /// XDP, the same, to the destinations in `spread`.
    pub const GENERATE_SPREAD: &str = "generate_spread";
}

/// Names of its maps.
pub mod map {
    /// Hash: IPv4 address -> [`super::route`].
    pub const ROUTES: &str = "routes";
    /// Program array: slot 0 for plain frames, slot 1 for encapsulated ones.
    pub const TURNS: &str = "turns";
    /// Array, slot 0: the first 64 bytes of a plain frame.
    pub const PLAIN_HEAD: &str = "plain_head";
    /// Array, slot 0: the first 104 bytes of an encapsulated frame.
    pub const ENCAPSULATED_HEAD: &str = "encapsulated_head";
    /// Per-CPU array: nanoseconds for encapsulating, for the way back, for nothing.
    pub const CLOCKED: &str = "clocked";
    /// Device map, slot 0.
    pub const OUTLET: &str = "outlet";
    /// Array, slot 0: where `generate_spread` sends to.
    pub const SPREAD: &str = "spread";
    /// Per-CPU array, slot 0: frames.
    pub const ARRIVED: &str = "arrived";
}

/// An entry of `routes`: device (host order), new destination MAC, new source MAC.
pub fn route(ifindex: u32, destination: [u8; 6], source: [u8; 6]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&ifindex.to_ne_bytes());
    bytes[4..10].copy_from_slice(&destination);
    bytes[10..].copy_from_slice(&source);
    bytes
}

/// Reads an object and creates its maps.
pub fn load(path: &Path) -> Result<Ebpf> {
    Ebpf::load_file(path).context(|| format!("cannot load {} (cargo xtask build-ebpf makes it)", path.display()))
}

/// Loads a TC program of an object.
pub fn classifier<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = object
        .program_mut(name)
        .context(|| format!("program {name:?} is not in the object"))?;
    let program: &mut SchedClassifier = program
        .try_into()
        .context(|| format!("program {name:?} is no TC program"))?;
    if program.fd().is_err() {
        let refused = |error| Error::new(format!("the kernel refused program {name:?}: {}", tail(&error)));
        program.load().map_err(refused)?;
    }
    Ok(program)
}

/// The end of an error's text: a verifier's log can have thousands of lines, and tells the reason in its last ones.
fn tail(error: &impl ToString) -> String {
    const LINES: usize = 8;
    let text = error.to_string();
    let lines: Vec<_> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Loads a TC program and attaches it to the ingress of an interface of the calling thread's namespace.
pub fn attach(object: &mut Ebpf, name: &str, interface: &str) -> Result<SchedClassifierLinkId> {
    classifier(object, name)?
        .attach(interface, TcAttachType::Ingress)
        .context(|| format!("cannot attach {name:?} to {interface}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_cut_to_its_end() {
        let log: Vec<_> = (0..100).map(|line| line.to_string()).collect();
        assert_eq!(tail(&log.join("\n")), "92\n93\n94\n95\n96\n97\n98\n99");
        assert_eq!(tail(&"short"), "short");
    }

    #[test]
    fn a_route_is_laid_out_as_the_program_reads_it() {
        let bytes = route(0x0102_0304, [0xa; 6], [0xb; 6]);
        assert_eq!(
            u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            0x0102_0304
        );
        assert_eq!(bytes[4..], [0xa, 0xa, 0xa, 0xa, 0xa, 0xa, 0xb, 0xb, 0xb, 0xb, 0xb, 0xb]);
    }
}
