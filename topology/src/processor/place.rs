//! Which monitor's windows, in which task: what they say in their events, and in errors.

use std::fmt;
use std::sync::Arc;

use super::Monitor;
use crate::event::{EventId, Scope};
use crate::ids::Partition;
use crate::state::StateError;
use crate::window::Window;

/// What to do about settings that stored panes do not fit.
pub(super) const REMEDY: &str = "change it back, or run `leeway reset`, or give the monitor another name or the application another id";

/// One monitor in one task.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) application_id: Arc<str>,
    pub(super) monitor: Arc<Monitor>,
    pub(super) scope: Scope,
    /// Of the topic that the task reads.
    pub(super) partition: Partition,
    /// As many has that topic.
    pub(super) partitions: u32,
}

impl Place {
    /// The input partition that its windows are of; `None` in scope global.
    pub(super) fn input_partition(&self) -> Option<Partition> {
        (self.scope == Scope::Partition).then_some(self.partition)
    }

    /// Whether events are made of its checks. Where only the whole topic is watched, a partition's are silent.
    pub(super) fn tells(&self) -> bool {
        self.scope == Scope::Global || self.monitor.scopes.partition
    }

    /// Whether its windows go to those of the whole topic, beside.
    pub(super) fn ships(&self) -> bool {
        self.scope == Scope::Partition && self.monitor.scopes.global
    }

    /// What the ids of a window's events begin with. `segment` is empty where there are none.
    pub(super) fn event_id(&self, segment: &str) -> EventId {
        let Monitor { name, topic, .. } = &*self.monitor;
        EventId::new(&self.application_id, name, topic, self.input_partition(), self.scope, Some(segment))
    }

    /// The configuration does not fit the state.
    pub(super) fn inconsistent(&self, fault: impl fmt::Display) -> StateError {
        StateError::Inconsistent(format!("{self}: {fault}"))
    }

    /// The state is not what was written.
    pub(super) fn contradictory(&self, fault: impl fmt::Display) -> StateError {
        StateError::Contradictory(format!("{self}: {fault}"))
    }

    pub(super) fn other_segments(&self, was: &str, now: &str) -> StateError {
        self.inconsistent(format!("`segment_by` was {was}, now it is {now}: {REMEDY}"))
    }

    pub(super) fn other_window(&self, was: &str, now: Window) -> StateError {
        self.inconsistent(format!("its window was {was}, now it is {now}: {REMEDY}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Monitor { name, topic, .. } = &*self.monitor;
        match self.scope {
            Scope::Partition => write!(f, "monitor `{name}`, topic `{topic}`, partition {}", self.partition),
            Scope::Global => write!(f, "monitor `{name}`, topic `{topic}`, scope global"),
        }
    }
}
