//! When somebody is told: one incident of one monitor, scope, partition, segment and feature, as one channel sees it.
//!
//! ```text
//!              bad                 `consecutive` bad in a row                   good
//!  (nothing) ------> Pending ------------------------------> Open -----------------------> Cooling --cooldown ends--> (nothing)
//!      ^                |                              opened ^ | worse than told: escalated  | ^       recovered
//!      \------good------/                                     | \----> Open                bad | | good
//!                                                             |                               v |
//!                                                             \---cooldown ends, or worse---- Held
//! ```
//!
//! A check is bad when its severity is at least the channel's. Time is that of the events: when they were written. So a backlog that is read in a
//! second is judged as it would have been while it came. Only the end of a cooldown in which no further check comes needs a clock, see [`tick`].
//!
//! Invariants, for each incident:
//! - Told are opened, then at most one escalated, then recovered; never two of a kind in a row.
//! - From recovered to the next opened it is at least a cooldown, unless what opens is worse than what was told before.
//! - Nothing is lost: what is bad for `consecutive` checks and past its cooldown is open and told.
//!
//! Pure. Not here: whose incident it is, which is the caller's; what a message says, which is [`super::message`]'s.

use leeway_topology::drift::Status;
use leeway_topology::quality::QualityStatus;
use serde::{Deserialize, Serialize};

/// How bad a check is. A violated quality threshold is somebody's decision and not a matter of degree: it counts as [`Self::Drift`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// PSI at or above the first threshold.
    PossibleDrift,
    /// PSI at or above the second threshold, or a violated quality threshold.
    Drift,
}

impl Severity {
    /// Of a drift event.
    #[must_use]
    pub fn of_status(status: Status) -> Option<Self> {
        match status {
            Status::NoDrift => None,
            Status::PossibleDrift => Some(Self::PossibleDrift),
            Status::Drift => Some(Self::Drift),
        }
    }

    /// Of a quality event.
    #[must_use]
    pub fn of_quality(status: QualityStatus) -> Option<Self> {
        (status == QualityStatus::Violated).then_some(Self::Drift)
    }

    /// As configured and stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PossibleDrift => "possible_drift",
            Self::Drift => "drift",
        }
    }
}

/// When a channel is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What is less is good.
    pub min_severity: Severity,
    /// So many bad checks in a row open an incident.
    pub consecutive: u32,
    /// How long after a recovery a new opening is held back, milliseconds.
    pub cooldown_ms: i64,
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// `None`: nothing is wrong.
    pub severity: Option<Severity>,
    /// When its event was written, milliseconds.
    pub at_ms: i64,
    /// It is older than anybody wants to be told of: an opening is held back until a later check, or the end of the backlog, confirms it.
    pub stale: bool,
}

/// An incident that is not over. What is over, cooldown included, has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Incident {
    /// Bad, and not for long enough.
    Pending {
        /// Bad checks in a row.
        streak: u32,
        /// The first of them.
        since_ms: i64,
    },
    /// Told.
    Open {
        /// The first bad check.
        since_ms: i64,
        /// The worst that was told.
        severity: Severity,
    },
    /// Over, and a new opening is not told yet.
    Cooling {
        /// The cooldown's end.
        until_ms: i64,
        /// What the incident that is over was at its worst.
        worst: Severity,
    },
    /// Bad again, and not told: within the cooldown, or stale.
    Held {
        /// When it may be told.
        until_ms: i64,
        /// What the incident before was at its worst; `None`: there was none, this one is stale.
        worst: Option<Severity>,
        /// The first bad check.
        since_ms: i64,
        /// Bad checks in a row.
        streak: u32,
        /// The last check's.
        severity: Severity,
    },
}

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transition {
    /// It began.
    Opened,
    /// It got worse.
    Escalated,
    /// It is over.
    Recovered,
    /// Nothing has been heard of it for too long: it is closed without knowing.
    Expired,
}

impl Transition {
    /// Its word in messages and keys.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Escalated => "escalated",
            Self::Recovered => "recovered",
            Self::Expired => "expired",
        }
    }

    /// Whether the incident is over with it.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Recovered | Self::Expired)
    }
}

/// What is to be told of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// What happened.
    pub transition: Transition,
    /// The worst that was told before, of this incident.
    pub before: Option<Severity>,
    /// The first bad check.
    pub since_ms: i64,
}

/// What follows from a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The incident from now on.
    pub incident: Option<Incident>,
    /// What is to be told.
    pub told: Option<Told>,
}

impl Step {
    fn silent(incident: Option<Incident>) -> Self {
        Self { incident, told: None }
    }

    fn open(since_ms: i64, severity: Severity) -> Self {
        Self {
            incident: Some(Incident::Open { since_ms, severity }),
            told: Some(Told {
                transition: Transition::Opened,
                before: None,
                since_ms,
            }),
        }
    }
}

/// Takes a check.
#[must_use]
pub fn observe(incident: Option<Incident>, check: &Check, rule: &Rule) -> Step {
    let bad = check.severity.filter(|severity| *severity >= rule.min_severity);
    let at_ms = check.at_ms;
    match (incident, bad) {
        (Some(Incident::Cooling { until_ms, .. }), _) if until_ms <= at_ms => observe(None, check, rule),
        (None | Some(Incident::Pending { .. }), None) => Step::silent(None),
        (None, Some(severity)) => begin(1, at_ms, severity, check, rule),
        (Some(Incident::Pending { streak, since_ms }), Some(severity)) => begin(streak.saturating_add(1), since_ms, severity, check, rule),
        (Some(Incident::Open { since_ms, severity: told }), Some(severity)) if severity > told => Step {
            incident: Some(Incident::Open { since_ms, severity }),
            told: Some(Told {
                transition: Transition::Escalated,
                before: Some(told),
                since_ms,
            }),
        },
        (Some(open @ Incident::Open { .. }), Some(_)) => Step::silent(Some(open)),
        (Some(Incident::Open { since_ms, severity }), None) => Step {
            incident: cooling(at_ms.saturating_add(rule.cooldown_ms), Some(severity), at_ms),
            told: Some(Told {
                transition: Transition::Recovered,
                before: Some(severity),
                since_ms,
            }),
        },
        (Some(cooling @ Incident::Cooling { .. }), None) => Step::silent(Some(cooling)),
        (Some(Incident::Cooling { until_ms, worst }), Some(severity)) => hold(
            Incident::Held {
                until_ms,
                worst: Some(worst),
                since_ms: at_ms,
                streak: 1,
                severity,
            },
            check,
            rule,
        ),
        (Some(Incident::Held { until_ms, worst, .. }), None) => Step::silent(cooling(until_ms, worst, at_ms)),
        (
            Some(Incident::Held {
                until_ms,
                worst,
                since_ms,
                streak,
                ..
            }),
            Some(severity),
        ) => hold(
            Incident::Held {
                until_ms,
                worst,
                since_ms,
                streak: streak.saturating_add(1),
                severity,
            },
            check,
            rule,
        ),
    }
}

/// A streak of bad checks, with no cooldown before it.
fn begin(streak: u32, since_ms: i64, severity: Severity, check: &Check, rule: &Rule) -> Step {
    if streak < rule.consecutive {
        Step::silent(Some(Incident::Pending { streak, since_ms }))
    } else if check.stale {
        Step::silent(Some(Incident::Held {
            until_ms: check.at_ms,
            worst: None,
            since_ms,
            streak,
            severity,
        }))
    } else {
        Step::open(since_ms, severity)
    }
}

/// A held incident, told if it may be.
fn hold(held: Incident, check: &Check, rule: &Rule) -> Step {
    match held {
        Incident::Held {
            until_ms,
            worst,
            since_ms,
            streak,
            severity,
        } if !check.stale && streak >= rule.consecutive && (until_ms <= check.at_ms || worst.is_some_and(|worst| severity > worst)) => {
            Step::open(since_ms, severity)
        }
        held => Step::silent(Some(held)),
    }
}

fn cooling(until_ms: i64, worst: Option<Severity>, now_ms: i64) -> Option<Incident> {
    let worst = worst.filter(|_| until_ms > now_ms)?;
    Some(Incident::Cooling { until_ms, worst })
}

/// Looks at the clock: whether a cooldown has ended. To be asked only when every check that is written has been seen, since the clock is ahead of those
/// that were not.
#[must_use]
pub fn tick(incident: Incident, now_ms: i64, rule: &Rule) -> Step {
    match incident {
        Incident::Cooling { until_ms, .. } if until_ms <= now_ms => Step::silent(None),
        Incident::Held {
            until_ms,
            since_ms,
            streak,
            severity,
            ..
        } if until_ms <= now_ms && streak >= rule.consecutive => Step::open(since_ms, severity),
        other => Step::silent(Some(other)),
    }
}

/// Closes an incident of which nothing has been heard for too long.
#[must_use]
pub fn expire(incident: Incident) -> Step {
    match incident {
        Incident::Open { since_ms, severity } => Step {
            incident: None,
            told: Some(Told {
                transition: Transition::Expired,
                before: Some(severity),
                since_ms,
            }),
        },
        _ => Step::silent(None),
    }
}

#[cfg(test)]
mod tests;
