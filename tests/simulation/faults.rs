//! What goes wrong inside a step of a stream thread: in its transactions, and with its process.

use std::collections::BTreeMap;
use std::time::Duration;

use leeway::broker::AbortCause;
use leeway::broker::memory::{CommitStep, Fault};
use leeway::epoch::transactional_id;
use leeway::stream_thread::FailPoint;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::world::{APPLICATION, SESSION_TIMEOUT};

/// Threads that a process of a run may have.
pub(crate) const THREADS_MAX: usize = 2;

/// What happens to a process at a fail point.
pub(crate) enum Interruption {
    /// As SIGKILL.
    Dies,
    /// As SIGSTOP and, so much later, SIGCONT: the rest of the step still believes in the time from before.
    Sleeps(Duration),
}

/// What the hooks draw from, and what they did.
pub(crate) struct Faults {
    random: StdRng,
    /// Nothing goes wrong any more.
    pub(crate) peace: bool,
    /// What happened, by its name in the coverage.
    pub(crate) log: Vec<String>,
    /// What can be fatal when it comes again, by transactional id, in the life of its process.
    fences: BTreeMap<String, u32>,
    refusals: BTreeMap<String, u32>,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            peace: false,
            log: Vec::new(),
            fences: BTreeMap::new(),
            refusals: BTreeMap::new(),
        }
    }

    pub(crate) fn before(&mut self, transactional_id: &str, step: CommitStep) -> Option<Fault> {
        if self.peace || self.random.random_range(0..100) >= 14 {
            return None;
        }
        let causes = [AbortCause::Rejoin, AbortCause::TimedOut, AbortCause::Unavailable, AbortCause::Refused];
        let (fault, name) = match self.random.random_range(0..100) {
            0..25 => {
                let cause = causes[self.random.random_range(0..causes.len())];
                (Fault::Refuse(cause), format!("Refuse({cause:?})"))
            }
            25..50 => (Fault::LoseReply, "LoseReply".to_owned()),
            50..54 => (Fault::Fence, "Fence".to_owned()),
            54..72 => (Fault::Wait(self.time(30_000)), "Wait".to_owned()),
            72..82 => (Fault::DelayMarkers(self.time(8_000)), "DelayMarkers".to_owned()),
            82..92 => (Fault::ScatterMarkers(self.time(8_000)), "ScatterMarkers".to_owned()),
            92..96 => (Fault::Duplicate, "Duplicate".to_owned()),
            _ => (Fault::Stray(self.time(12_000)), "Stray".to_owned()),
        };
        let counted = match fault {
            Fault::Fence => Some(&mut self.fences),
            Fault::Refuse(AbortCause::Refused) => Some(&mut self.refusals),
            _ => None,
        };
        if let Some(counted) = counted {
            *counted.entry(transactional_id.to_owned()).or_default() += 1;
        }
        self.log.push(format!("{name} before {step:?}"));
        Some(fault)
    }

    pub(crate) fn at(&mut self, point: FailPoint) -> Option<Interruption> {
        if self.peace {
            return None;
        }
        match self.random.random_range(0..1000) {
            0..15 => {
                self.log.push(format!("crash at {point:?}"));
                Some(Interruption::Dies)
            }
            15..25 => {
                self.log.push(format!("sleep within a step at {point:?}"));
                Some(Interruption::Sleeps(SESSION_TIMEOUT.mul_f64(self.random.random_range(0.5..2.5))))
            }
            _ => None,
        }
    }

    fn time(&mut self, below_ms: u64) -> Duration {
        Duration::from_millis(self.random.random_range(1..below_ms))
    }

    /// A process starts: what was done to it before does not count any more.
    pub(crate) fn begin_life(&mut self, process: &str) {
        for id in ids(process) {
            self.fences.remove(&id);
            self.refusals.remove(&id);
        }
    }

    /// Whether so much was injected that a process has to stop by the rules.
    pub(crate) fn may_stop(&self, process: &str, reason: &str) -> bool {
        let injected =
            |counted: &BTreeMap<String, u32>, times: u32| ids(process).any(|id| counted.get(&id).is_some_and(|injected| *injected >= times));
        (reason.contains("fenced twice") && injected(&self.fences, 2)) || (reason.contains("was refused 3 times") && injected(&self.refusals, 3))
    }
}

/// The transactional ids of a process's threads.
fn ids(process: &str) -> impl Iterator<Item = String> {
    (1..=THREADS_MAX).map(move |thread| transactional_id(APPLICATION, process, thread))
}
