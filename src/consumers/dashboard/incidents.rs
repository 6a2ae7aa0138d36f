//! Incidents: stretches of checks of one series in which something was wrong, from the first such check to the first good one.

use std::collections::VecDeque;

use leeway_topology::drift::Status;

use super::history::Key;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The distribution.
    Drift,
    /// Missing, unknown or out-of-range values.
    Quality,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Drift => "drift",
            Self::Quality => "quality",
        }
    }
}

/// One incident.
#[derive(Clone, Debug)]
pub(super) struct Incident {
    /// Its number, in the order of their beginnings.
    pub(super) number: u64,
    pub(super) key: Key,
    pub(super) kind: Kind,
    /// The worst that was seen in it.
    pub(super) status: Status,
    pub(super) start_ms: i64,
    /// The last check of it.
    pub(super) last_ms: i64,
    /// The first good check after it; none while it goes on.
    pub(super) end_ms: Option<i64>,
    /// The largest PSI of it; 0 for quality.
    pub(super) psi: f64,
    pub(super) checks: u64,
}

/// One check, as incidents see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub(super) kind: Kind,
    pub(super) status: Status,
    pub(super) time_ms: i64,
    pub(super) psi: f64,
}

/// The latest incidents; the oldest leave first.
#[derive(Debug)]
pub(super) struct Incidents {
    kept: VecDeque<Incident>,
    max: usize,
    next: u64,
    /// Rises with each change.
    pub(super) revision: u64,
}

impl Incidents {
    pub(super) fn new(max: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            max: max.max(1),
            next: 0,
            revision: 0,
        }
    }

    /// Takes a check of a series whose open incident is `open`; gives the open incident after it.
    pub(super) fn check(&mut self, open: Option<u64>, key: &Key, check: Check) -> Option<u64> {
        let Check { kind, status, time_ms, psi } = check;
        let is_good = status == Status::NoDrift;
        if let Some(incident) = open.and_then(|number| self.get_mut(number)) {
            if is_good {
                incident.end_ms = Some(time_ms);
            } else {
                incident.status = incident.status.max(status);
                incident.psi = incident.psi.max(psi);
                incident.last_ms = time_ms;
                incident.checks += 1;
            }
            self.revision += 1;
            return open.filter(|_| !is_good);
        }
        if is_good {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.revision += 1;
        self.kept.push_back(Incident {
            number,
            key: key.clone(),
            kind,
            status,
            start_ms: time_ms,
            last_ms: time_ms,
            end_ms: None,
            psi,
            checks: 1,
        });
        if self.kept.len() > self.max {
            self.kept.pop_front();
        }
        Some(number)
    }

    /// Ends an incident of which nothing will be heard any more.
    pub(super) fn abandon(&mut self, number: u64) {
        if let Some(incident) = self.get_mut(number) {
            incident.end_ms = Some(incident.last_ms);
            self.revision += 1;
        }
    }

    /// How many left for want of room.
    pub(super) fn dropped(&self) -> u64 {
        self.next - self.kept.len() as u64
    }

    /// Newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = &Incident> {
        self.kept.iter().rev()
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Incident> {
        let first = self.kept.front()?.number;
        self.kept.get_mut(usize::try_from(number.checked_sub(first)?).ok()?)
    }
}
