//! When this node's certificate is renewed (`spec/swarm-agent.md` 8.12).

use crate::time::Duration;

/// A manager marks the certificate for rotation again and again until it has seen the report of a new one; a report that was not
/// seen for this long was of an issuer that the managers gave up meanwhile.
const REPORT_UNSEEN: Duration = Duration::from_secs(60);

/// From when to when a certificate is valid, seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From.
    pub not_before: i64,
    /// To.
    pub not_after: i64,
}

impl Validity {
    /// Between a half and four fifths of its life, so that the nodes of a swarm do not renew all at once. `random` is any number.
    pub fn renewal_time(self, random: u64) -> i64 {
        let life = self.not_after.saturating_sub(self.not_before).max(0);
        let spread = u64::try_from(life / 10 * 3).unwrap_or(0);
        let offset = i64::try_from(random.checked_rem(spread).unwrap_or(0)).unwrap_or(0);
        self.not_before.saturating_add(life / 2).saturating_add(offset)
    }

    /// Whether it is over.
    pub fn has_ended(self, now: i64) -> bool {
        now > self.not_after
    }

    /// Whether four fifths of it are over: then something is wrong with its renewal.
    pub fn is_late(self, now: i64) -> bool {
        now > self
            .not_before
            .saturating_add(self.not_after.saturating_sub(self.not_before) / 5 * 4)
    }
}

/// What the decision hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Seconds since 1970.
    pub now: i64,
    /// When it is to be renewed in any case.
    pub renewal_time: i64,
    /// The managers asked for it: the root is being rotated.
    pub rotate: bool,
    /// The certificate was issued by a trusted root; otherwise by one that will be.
    pub issuer_is_trusted: bool,
    /// Since the managers were told of the present certificate.
    pub since_report: Option<Duration>,
    /// An operator made this node a manager: a renewal would bring a manager's certificate.
    pub promoted: bool,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Nothing.
    Keep,
    /// Ask for a new certificate.
    Renew,
    /// It would be renewed, were this node not to become a manager by that.
    Withhold,
}

/// Whether the certificate is renewed now.
pub fn renewal(at: &Standing) -> Renewal {
    // A certificate of the coming root is there already; it was only not seen yet.
    let reported = !at.issuer_is_trusted && at.since_report.is_none_or(|since| since < REPORT_UNSEEN);
    let due = at.now >= at.renewal_time || (at.rotate && !reported);
    match (due, at.promoted) {
        (false, _) => Renewal::Keep,
        (true, false) => Renewal::Renew,
        (true, true) => Renewal::Withhold,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Validity = Validity {
        not_before: 1_000_000,
        not_after: 1_000_000 + 90 * 86_400,
    };

    #[test]
    fn renewal_is_between_half_and_four_fifths() {
        let (half, late) = (1_000_000 + 45 * 86_400, 1_000_000 + 72 * 86_400);
        assert_eq!(LIFE.renewal_time(0), half);
        for random in [1, 12_345_678, u64::MAX, u64::MAX / 3] {
            let at = LIFE.renewal_time(random);
            assert!((half..late).contains(&at), "{random}: {at}");
            assert!(!LIFE.is_late(at) && !LIFE.has_ended(at));
        }
        assert!(LIFE.is_late(late + 1) && !LIFE.has_ended(late + 1));
        assert!(LIFE.has_ended(LIFE.not_after + 1));
    }

    #[test]
    fn times_that_cannot_be_do_no_harm() {
        let upside_down = Validity {
            not_before: 5,
            not_after: 1,
        };
        assert_eq!(upside_down.renewal_time(u64::MAX), 5);
        let endless = Validity {
            not_before: 0,
            not_after: i64::MAX,
        };
        assert!(endless.renewal_time(u64::MAX) > 0);
    }

    #[test]
    fn a_rotation_renews_once_for_each_new_root() {
        let quiet = Standing {
            now: 10,
            renewal_time: 20,
            rotate: false,
            issuer_is_trusted: true,
            since_report: Some(Duration::from_secs(5)),
            promoted: false,
        };
        assert_eq!(renewal(&quiet), Renewal::Keep);
        let asked = Standing { rotate: true, ..quiet };
        assert_eq!(renewal(&asked), Renewal::Renew);
        // Renewed under the coming root: the mark stays until the report is seen.
        let reported = Standing {
            issuer_is_trusted: false,
            ..asked
        };
        assert_eq!(renewal(&reported), Renewal::Keep);
        assert_eq!(
            renewal(&Standing {
                since_report: None,
                ..reported
            }),
            Renewal::Keep
        );
        // It stays on: the managers want yet another root.
        let unseen = Standing {
            since_report: Some(REPORT_UNSEEN),
            ..reported
        };
        assert_eq!(renewal(&unseen), Renewal::Renew);
    }

    #[test]
    fn time_renews_and_a_promotion_does_not() {
        let due = Standing {
            now: 20,
            renewal_time: 20,
            rotate: false,
            issuer_is_trusted: true,
            since_report: None,
            promoted: false,
        };
        assert_eq!(renewal(&due), Renewal::Renew);
        assert_eq!(renewal(&Standing { promoted: true, ..due }), Renewal::Withhold);
        assert_eq!(
            renewal(&Standing {
                promoted: true,
                now: 19,
                ..due
            }),
            Renewal::Keep
        );
    }
}
