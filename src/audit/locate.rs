//! The first difference between what a sequence should be and what it is, in words.
//!
//! Both sides are read again, each by a thread of its own through a bounded channel, and compared pairwise; a few values before and after the
//! difference say what kind it is.

use std::collections::VecDeque;
use std::fmt;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use leeway_topology::event::QUALITY_KIND;
use leeway_topology::ids::Offset;
use serde_json::Value;

use super::{Audit, AuditError, Found, Grounds, Of, Sequence};
use crate::broker::{Broker, TopicPartition};

/// Values that a reader may be ahead.
const AHEAD: usize = 256;

/// Values before and after a difference that are looked at to name it.
const CONTEXT: usize = 64;

/// A sequence's first difference.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which sequence.
    pub sequence: Sequence,
    /// The number of the event in it, from 0.
    pub number: u64,
    /// What is wrong there.
    pub kind: Kind,
    /// The id of the event that should be there, if one should.
    pub expected: Option<String>,
    /// Where the event is that stands there, if one does.
    pub found_at: Option<(TopicPartition, Offset)>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// The event is not there.
    Missing,
    /// One that was there already is there again.
    Doubled,
    /// It stands later than it should.
    Reordered,
    /// It is there with other values: field, what it should be, what it is.
    Changed(Vec<(String, Value, Value)>),
    /// The input does not imply what is there.
    Unexpected,
    /// The right event with a key, or in a partition, that is not its feature's.
    Misplaced,
}

impl Kind {
    /// Its name, for programs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Doubled => "doubled",
            Self::Reordered => "reordered",
            Self::Changed(_) => "changed",
            Self::Unexpected => "unexpected",
            Self::Misplaced => "misplaced",
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sequence {
            monitor,
            of,
            feature,
            kind,
            segment,
            ..
        } = &self.sequence;
        write!(f, "monitor {monitor:?}, ")?;
        if let Some(segment) = segment {
            write!(f, "segment {segment:?}, ")?;
        }
        let event = if *kind == QUALITY_KIND { "quality event" } else { "event" };
        match of {
            Of::Partition(partition) => write!(f, "partition {partition}, feature {feature:?}, {event}")?,
            Of::WholeTopic => write!(f, "scope global, feature {feature:?}, {event}")?,
            Of::Panes(partition) => write!(f, "partition {partition}, pane for scope global")?,
        }
        write!(f, " number {}: ", self.number)?;
        match &self.kind {
            Kind::Missing => write!(f, "missing")?,
            Kind::Doubled => write!(f, "doubled")?,
            Kind::Reordered => write!(f, "it stands later than it should")?,
            Kind::Unexpected => write!(f, "nothing in the input implies it")?,
            Kind::Misplaced => write!(f, "its key or partition is not that of its feature")?,
            Kind::Changed(fields) if fields.is_empty() => write!(f, "its bytes are not those that a worker writes")?,
            Kind::Changed(fields) => {
                write!(f, "changed")?;
                for (number, (field, expected, found)) in fields.iter().enumerate() {
                    write!(f, "{} {field} is {found}, it should be {expected}", if number == 0 { ":" } else { "," })?;
                }
            }
        }
        if let Some(id) = &self.expected {
            write!(f, "; it should be {id}")?;
        }
        if let Some((at, offset)) = &self.found_at {
            write!(f, "; found in {at} at offset {offset}")?;
        }
        Ok(())
    }
}

/// An event as it was found.
struct There {
    value: Vec<u8>,
    at: TopicPartition,
    offset: Offset,
    is_in_its_place: bool,
}

/// A channel with a look ahead.
struct Ahead<T> {
    receiver: Receiver<T>,
    seen: VecDeque<T>,
}

impl<T> Ahead<T> {
    fn new(receiver: Receiver<T>) -> Self {
        Self {
            receiver,
            seen: VecDeque::new(),
        }
    }

    fn next(&mut self) -> Option<T> {
        self.seen.pop_front().or_else(|| self.receiver.recv().ok())
    }

    /// Whether one of the next values is as asked for.
    fn comes(&mut self, is: impl Fn(&T) -> bool) -> bool {
        while self.seen.len() < CONTEXT {
            let Ok(value) = self.receiver.recv() else { break };
            self.seen.push_back(value);
        }
        self.seen.iter().any(is)
    }
}

impl<B: Broker> Audit<'_, B> {
    /// Finds the first difference of a sequence that has one.
    pub(super) fn locate(&self, sequence: &Sequence, grounds: &Grounds) -> Result<Difference, AuditError> {
        std::thread::scope(|scope| {
            let (expected_sender, expected) = sync_channel(AHEAD);
            let (found_sender, found) = sync_channel(AHEAD);
            let expecting = scope.spawn(move || {
                self.expected(grounds, &mut |of, value| {
                    if of == *sequence {
                        send(&expected_sender, value.to_vec())
                    } else {
                        ControlFlow::Continue(())
                    }
                })
            });
            let finding = scope.spawn(move || {
                self.found(grounds, &mut |record| match record {
                    Found::Event(event) if event.sequence == *sequence => {
                        let there = There {
                            value: event.value.into_owned(),
                            at: event.at.clone(),
                            offset: event.offset,
                            is_in_its_place: event.is_in_its_place,
                        };
                        send(&found_sender, there)
                    }
                    Found::Event(_) | Found::Later | Found::Foreign => ControlFlow::Continue(()),
                })
            });
            // Its receivers are dropped with it, which ends both threads.
            let difference = compare(sequence, Ahead::new(expected), Ahead::new(found));
            expecting.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            finding.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            Ok(difference)
        })
    }
}

fn send<T>(to: &SyncSender<T>, value: T) -> ControlFlow<()> {
    match to.send(value) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

fn compare(sequence: &Sequence, mut expected: Ahead<Vec<u8>>, mut found: Ahead<There>) -> Difference {
    let mut before: VecDeque<Vec<u8>> = VecDeque::new();
    let mut number = 0;
    loop {
        let (should, is) = (expected.next(), found.next());
        let kind = match (&should, &is) {
            (Some(should), Some(is)) if *should == is.value => (!is.is_in_its_place).then_some(Kind::Misplaced),
            (_, Some(is)) if before.contains(&is.value) => Some(Kind::Doubled),
            (None, Some(_)) => Some(Kind::Unexpected),
            (Some(should), Some(is)) if id(should) == id(&is.value) => Some(Kind::Changed(changed(should, &is.value))),
            (Some(should), Some(_)) if found.comes(|later| later.value == *should) => {
                let is = is.as_ref().map(|is| is.value.clone());
                // What is there now is either nobody's, or comes before its turn.
                Some(if expected.comes(|later| Some(later) == is.as_ref()) {
                    Kind::Reordered
                } else {
                    Kind::Unexpected
                })
            }
            (Some(_), _) => Some(Kind::Missing),
            // The sides differed a moment ago; what was wrong is after the audited records now.
            (None, None) => Some(Kind::Unexpected),
        };
        if let Some(kind) = kind {
            let found_at = (kind != Kind::Missing).then(|| is.map(|is| (is.at, is.offset))).flatten();
            return Difference {
                sequence: sequence.clone(),
                number,
                kind,
                expected: should.as_deref().and_then(id),
                found_at,
            };
        }
        if before.len() == CONTEXT {
            before.pop_front();
        }
        before.extend(should);
        number += 1;
    }
}

fn object(event: &[u8]) -> serde_json::Map<String, Value> {
    serde_json::from_slice(event).unwrap_or_default()
}

fn id(event: &[u8]) -> Option<String> {
    Some(object(event).get("event_id")?.as_str()?.to_owned())
}

/// The fields that differ, with both values.
fn changed(expected: &[u8], found: &[u8]) -> Vec<(String, Value, Value)> {
    let (expected, found) = (object(expected), object(found));
    let mut names: Vec<_> = expected.keys().chain(found.keys()).collect();
    names.sort();
    names.dedup();
    let value = |of: &serde_json::Map<String, Value>, name: &str| of.get(name).cloned().unwrap_or(Value::Null);
    let differing = names.into_iter().filter(|name| expected.get(*name) != found.get(*name));
    differing
        .map(|name| (name.clone(), value(&expected, name), value(&found, name)))
        .collect()
}
