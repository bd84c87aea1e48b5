//! Maps that are full: told when it begins and when it ends, whatever the number of packets and entries meanwhile.

use super::{Daemon, MapUse};
use std::collections::BTreeMap;
use weft_core::wanted::Overflow;
use weft_dataplane::abi::{Counter, Sizes, flow};
use weft_diag::MapSummary;

/// What is full.
#[derive(Debug, Default)]
pub(super) struct Capacity {
    overflow: BTreeMap<&'static str, Overflow>,
    /// Connections that the flow table refused so far, as of the last look.
    refused: Option<u64>,
    /// Looks to go until the flow table counts as not full any more; zero: it does not.
    refusing: u32,
}

/// So many looks without a refusal, a minute, end it: whoever is refused tries again after ever longer pauses.
const QUIET_LOOKS: u32 = 12;

fn setting(map: &str) -> &'static str {
    Sizes::setting(map).unwrap_or("nothing")
}

impl Capacity {
    /// More is wanted than the maps hold.
    pub(super) fn overflow(&mut self, overflow: Vec<Overflow>) {
        let now: BTreeMap<_, _> = overflow.into_iter().map(|o| (o.map, o)).collect();
        for (map, o) in now.iter().filter(|(map, _)| !self.overflow.contains_key(*map)) {
            let (limit, wanted, setting) = (o.limit, o.wanted, setting(map));
            tracing::error!(
                map,
                limit,
                wanted,
                "map is full, what does not fit is left out: set {setting} to more"
            );
        }
        for (map, o) in self.overflow.iter().filter(|(map, _)| !now.contains_key(*map)) {
            tracing::info!(map, limit = o.limit, "map has room again for all that is wanted");
        }
        self.overflow = now;
    }

    /// Connections that the flow tables refused since the daemons began to count.
    fn refused(&mut self, refused: u64, sizes: &Sizes) {
        let more = self.refused.replace(refused).is_some_and(|before| before < refused);
        if more && self.refusing == 0 {
            tracing::error!(
                flows = sizes.flows,
                flows6 = sizes.flows6,
                "flow table is full, new connections are refused ({}): set {} or {} to more",
                Counter::DropFlowTableFull.name(),
                setting(flow::NAME),
                setting(flow::NAME6)
            );
        } else if !more && self.refusing == 1 {
            tracing::info!(refused, "flow table refuses no connection any more");
        }
        self.refusing = if more {
            QUIET_LOOKS
        } else {
            self.refusing.saturating_sub(1)
        };
    }

    fn left_out(&self, map: &str, entries: u64) -> u64 {
        let wanted = self.overflow.get(map).map_or(0, |o| o.wanted as u64);
        wanted.saturating_sub(entries)
    }
}

impl Daemon {
    /// Whether the flow tables refused connections of late.
    pub(super) fn look_at_flow_tables(&mut self) {
        match self.dataplane.counter(Counter::DropFlowTableFull) {
            Ok(refused) => self.capacity.refused(refused, &self.config.sizes),
            Err(error) => tracing::warn!(%error, "counters not read"),
        }
    }

    /// Name, content and limit of each map, and what did not fit.
    pub(super) fn map_summaries(&self) -> Result<Vec<MapSummary>, String> {
        let mut summaries = self.dataplane.summaries().map_err(|error| error.to_string())?;
        for map in &mut summaries {
            map.left_out = self.capacity.left_out(&map.name, map.entries);
        }
        Ok(summaries)
    }

    /// The same, of the maps whose size can be set.
    pub(super) fn map_uses(&self) -> Vec<MapUse> {
        let summaries = self.map_summaries().unwrap_or_else(|error| {
            tracing::warn!(%error, "maps not counted");
            Vec::new()
        });
        let settable = summaries.into_iter().filter_map(|map| {
            Some(MapUse {
                setting: Sizes::setting(&map.name)?,
                name: map.name,
                entries: map.entries,
                limit: map.max_entries,
                left_out: map.left_out,
            })
        });
        settable.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_what_is_wanted_and_not_there() {
        let mut capacity = Capacity::default();
        capacity.overflow(vec![Overflow {
            map: "peers",
            wanted: 12,
            limit: 10,
        }]);
        assert_eq!(capacity.left_out("peers", 10), 2);
        assert_eq!(capacity.left_out("nodes", 10), 0);
        capacity.overflow(Vec::new());
        assert_eq!(capacity.left_out("peers", 10), 0);
    }

    #[test]
    fn refusals_before_the_first_look_are_no_news() {
        let mut capacity = Capacity::default();
        let sizes = Sizes::DEFAULT;
        for (refused, refusing) in [(5, 0), (5, 0), (6, QUIET_LOOKS), (6, QUIET_LOOKS - 1), (7, QUIET_LOOKS)] {
            capacity.refused(refused, &sizes);
            assert_eq!(capacity.refusing, refusing, "{refused}");
        }
        for _ in 0..QUIET_LOOKS {
            capacity.refused(7, &sizes);
        }
        assert_eq!(capacity.refusing, 0);
    }
}
