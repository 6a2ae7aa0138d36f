//! What happens when: drawn from the seed before the run begins.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

/// Something that happens to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    /// SIGKILL of an instance, which starts again soon: on its directory as it is, or on what is left of it.
    Kill,
    /// SIGSTOP of an instance, for longer than its session and its transactions may last; then SIGCONT.
    Zombie,
    /// SIGTERM of an instance, which starts again soon.
    Stop,
    /// Another number of instances.
    Scale,
    /// SIGKILL of a broker, which starts again soon.
    KillBroker,
    /// Something befalls the connections to a broker.
    Proxy,
    /// The disk of the first instance is full for a while.
    FullDisk,
}

/// Each kind, and how often a minute it happens on average.
const PER_MINUTE: [(Action, f64); 7] = [
    (Action::Kill, 7.0),
    (Action::Zombie, 0.6),
    (Action::Stop, 0.5),
    (Action::Scale, 0.6),
    (Action::KillBroker, 0.7),
    (Action::Proxy, 0.6),
    (Action::FullDisk, 0.3),
];

/// When and what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planned {
    /// Since the begin.
    pub(crate) at: Duration,
    pub(crate) action: Action,
}

/// Everything that will happen, in order. Each kind happens once at least.
pub(crate) fn draw(seed: u64, length: Duration) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    let minutes = length.as_secs_f64() / 60.0;
    let mut planned = Vec::new();
    for (action, per_minute) in PER_MINUTE {
        let times = ((per_minute * minutes).round() as usize).max(1);
        planned.extend((0..times).map(|_| Planned {
            at: length.mul_f64(random.random()),
            action,
        }));
    }
    planned.sort_by_key(|planned| (planned.at, planned.action));
    planned
}
