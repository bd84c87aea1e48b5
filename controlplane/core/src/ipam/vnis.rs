//! VXLAN network identifiers, unique in the cluster.

use crate::id::Vni;
use std::collections::BTreeSet;

/// The lowest VNI that is handed out unasked (`spec/overlay-driver.md` 4.3).
pub const FIRST_AUTOMATIC_VNI: u32 = 4096;

/// Which VNIs are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vnis {
    taken: BTreeSet<Vni>,
    last: Option<Vni>,
}

impl Vnis {
    /// Takes the VNI; false if somebody has it. Automatic choice goes on after it, unless it is below the automatic range.
    pub fn take(&mut self, vni: Vni) -> bool {
        if vni.get() >= FIRST_AUTOMATIC_VNI {
            self.last = Some(vni);
        }
        self.taken.insert(vni)
    }

    /// Gives the VNI back; whether it was taken.
    pub fn release(&mut self, vni: Vni) -> bool {
        self.taken.remove(&vni)
    }

    /// Whether somebody has it.
    pub fn is_taken(&self, vni: Vni) -> bool {
        self.taken.contains(&vni)
    }

    /// The first free VNI after the last one, wrapping from 16777215 to 4096; `None` when all are taken.
    pub fn next(&self) -> Option<Vni> {
        let start = self.last.map_or(FIRST_AUTOMATIC_VNI, |last| last.get() + 1);
        self.first_free(start, Vni::MAX)
            .or_else(|| self.first_free(FIRST_AUTOMATIC_VNI, start - 1))
    }

    fn first_free(&self, from: u32, to: u32) -> Option<Vni> {
        let mut candidate = from;
        if let Ok(from) = Vni::new(from) {
            for taken in self.taken.range(from..) {
                if taken.get() != candidate {
                    break;
                }
                candidate += 1;
            }
        }
        Vni::new(candidate).ok().filter(|_| candidate <= to)
    }
}
