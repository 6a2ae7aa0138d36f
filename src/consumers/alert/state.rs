//! What is kept in the topic `<group>-state`, compacted, one partition: incidents that are not over, messages that are not delivered, and how far the
//! events were read. `docs/formats.md` has it in words.
//!
//! | key | value |
//! | --- | --- |
//! | `incident/<channel>/<event id without its last two parts>` | [`StoredIncident`] |
//! | `message/<channel>/<number>` | [`super::outbox::Payload`] |
//! | `positions` | [`Positions`] |
//!
//! All changes of one commit are one transaction, the group's offsets included; so they are what some moment was, never something in between.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::incident::Incident;
use super::message::Message;
use super::outbox::Payload;

/// Version of the values.
const VERSION: u32 = 1;

/// An incident that is not over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredIncident {
    /// Where it stands.
    pub incident: Incident,
    /// What was told last, or, of one that is held back, what would be.
    pub message: Option<Box<Message>>,
}

/// The next offsets to read, by topic and partition. The group's offsets say the same, and expire when nobody is in the group for days.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// By topic and partition.
    pub topics: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// A key of the topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// See [`StoredIncident`].
    Incident {
        /// Whose.
        channel: String,
        /// Which.
        incident: String,
    },
    /// See [`Payload`].
    Message {
        /// Whose.
        channel: String,
        /// In which place.
        number: u64,
    },
    /// See [`Positions`].
    Positions,
}

/// A record of the topic.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// An incident, or that it is over.
    Incident {
        /// Whose.
        channel: String,
        /// Which.
        incident: String,
        /// `None`: it is over.
        value: Option<StoredIncident>,
    },
    /// A message, or that it is delivered.
    Message {
        /// Whose.
        channel: String,
        /// In which place.
        number: u64,
        /// `None`: it is delivered.
        value: Option<Payload>,
    },
    /// How far the events were read.
    Positions(Positions),
}

/// A value with the version of its format.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    value: T,
}

#[derive(Deserialize)]
struct VersionOnly {
    v: u32,
}

/// A record that this build cannot read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Of another format.
    #[error("record {key:?} has format version {found}, this build reads {VERSION}: use the release that wrote it")]
    Version {
        /// Of the record.
        key: String,
        /// What stands there.
        found: u32,
    },
    /// Damaged, or not Leeway's.
    #[error("record {key:?} is not of this program: {fault}")]
    Malformed {
        /// Of the record.
        key: String,
        /// What is wrong.
        fault: String,
    },
}

impl Key {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Incident { channel, incident } => format!("incident/{channel}/{incident}"),
            // Of one length, so that they sort as numbers do.
            Self::Message { channel, number } => format!("message/{channel}/{number:020}"),
            Self::Positions => "positions".to_owned(),
        }
        .into_bytes()
    }

    /// Reads a key. A channel's name has no slash.
    fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        let of = |rest: Option<&str>| rest.map(str::to_owned);
        match (parts.next()?, parts.next(), parts.next()) {
            ("positions", None, None) => Some(Self::Positions),
            ("incident", Some(channel), rest) => Some(Self::Incident {
                channel: channel.to_owned(),
                incident: of(rest)?,
            }),
            ("message", Some(channel), Some(number)) => Some(Self::Message {
                channel: channel.to_owned(),
                number: number.parse().ok()?,
            }),
            _ => None,
        }
    }
}

/// A value's bytes.
///
/// # Panics
/// Never: these types serialise.
#[must_use]
#[expect(clippy::expect_used, reason = "derived serialisation of plain fields into a Vec has no failing path")]
pub fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(&Versioned { v: VERSION, value }).expect("state serialises")
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// When it is of another format, or none of ours.
    pub fn read(key: &[u8], value: Option<&[u8]>) -> Result<Option<Self>, StateError> {
        let text = String::from_utf8_lossy(key).into_owned();
        let malformed = |fault: String| StateError::Malformed { key: text.clone(), fault };
        let parsed = Key::from_text(&text).ok_or_else(|| malformed("no key of this topic".to_owned()))?;
        fn of<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, StateError> {
            let malformed = |error: serde_json::Error| StateError::Malformed {
                key: key.to_owned(),
                fault: error.to_string(),
            };
            let VersionOnly { v } = serde_json::from_slice(value).map_err(malformed)?;
            if v != VERSION {
                return Err(StateError::Version {
                    key: key.to_owned(),
                    found: v,
                });
            }
            let Versioned { value, .. } = serde_json::from_slice(value).map_err(malformed)?;
            Ok(value)
        }
        Ok(Some(match parsed {
            Key::Incident { channel, incident } => Self::Incident {
                channel,
                incident,
                value: value.map(|value| of(&text, value)).transpose()?,
            },
            Key::Message { channel, number } => Self::Message {
                channel,
                number,
                value: value.map(|value| of(&text, value)).transpose()?,
            },
            Key::Positions => match value {
                Some(value) => Self::Positions(of(&text, value)?),
                None => return Ok(None),
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use leeway_topology::drift::Status;

    use super::super::incident::{Severity, Transition};
    use super::super::message::tests::{drift, told};
    use super::*;

    fn again(key: &Key, value: &[u8]) -> Record {
        Record::read(&key.to_bytes(), Some(value)).unwrap().unwrap()
    }

    #[test]
    fn records_read_back_as_they_were_written() {
        let message = told(&drift("plan", Status::Drift, 9), Transition::Opened);
        let stored = StoredIncident {
            incident: Incident::Open {
                since_ms: 5,
                severity: Severity::Drift,
            },
            message: Some(Box::new(message.clone())),
        };
        let (channel, incident) = ("team".to_owned(), "app/m/t/0/partition//plan".to_owned());
        let key = Key::Incident {
            channel: channel.clone(),
            incident: incident.clone(),
        };
        let value = Some(stored.clone());
        assert_eq!(
            again(&key, &to_bytes(&stored)),
            Record::Incident {
                channel: channel.clone(),
                incident,
                value
            }
        );
        let payload = Payload::Message(Box::new(message));
        let key = Key::Message {
            channel: channel.clone(),
            number: 12,
        };
        let value = Some(payload.clone());
        assert_eq!(again(&key, &to_bytes(&payload)), Record::Message { channel, number: 12, value });
        let positions = Positions {
            topics: BTreeMap::from([("drift-events".to_owned(), BTreeMap::from([(0, 7)]))]),
        };
        assert_eq!(again(&Key::Positions, &to_bytes(&positions)), Record::Positions(positions));
    }

    #[test]
    fn the_bytes_of_released_versions_are_read() {
        let incident = br#"{"v":1,"value":{"incident":{"phase":"cooling","until_ms":9,"worst":"drift"},"message":null}}"#;
        let Record::Incident { value: Some(stored), .. } = Record::read(b"incident/team/app/m/t/0/partition//plan", Some(incident)).unwrap().unwrap()
        else {
            panic!("an incident");
        };
        let worst = Severity::Drift;
        assert_eq!(stored.incident, Incident::Cooling { until_ms: 9, worst });
        let positions = br#"{"v":1,"value":{"topics":{"drift-events":{"0":7}}}}"#;
        assert!(matches!(Record::read(b"positions", Some(positions)), Ok(Some(Record::Positions(_)))));
    }

    #[test]
    fn tombstones_name_what_is_gone() {
        let record = Record::read(b"message/team/00000000000000000012", None).unwrap();
        assert!(matches!(record, Some(Record::Message { number: 12, value: None, .. })));
    }

    #[test]
    fn what_another_build_or_program_wrote_is_refused_in_words() {
        let later = Record::read(b"positions", Some(br#"{"v":2,"value":{"topics":{}}}"#)).unwrap_err();
        assert!(later.to_string().contains("format version 2"), "{later}");
        for (key, value) in [("offsets", "{}"), ("positions", "7"), ("message/team/x", "{}")] {
            assert!(matches!(
                Record::read(key.as_bytes(), Some(value.as_bytes())),
                Err(StateError::Malformed { .. })
            ));
        }
    }
}
