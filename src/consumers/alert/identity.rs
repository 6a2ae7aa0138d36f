//! Whose incident an event is of: read from its id, so that two applications on one topic are told apart too.
//!
//! An event id is `application_id/monitor/topic/partition/scope/segment/feature/window end/reference_version`, each part percent-encoded. Without its last
//! two parts it is the incident; without the last three the place, which all features of a check have in common.

/// The parts of an event id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Of which incident.
    pub incident: &'a str,
    /// Of which monitor, scope, partition and segment.
    pub place: &'a str,
    /// Of which check in that place: the window's end and the reference's version.
    pub check: &'a str,
}

/// An event id has nine parts.
const PARTS: usize = 9;

impl<'a> Identity<'a> {
    /// Takes an event id apart; `None` if it is none.
    #[must_use]
    pub fn of(event_id: &'a str) -> Option<Self> {
        let slashes: Vec<usize> = event_id.match_indices('/').map(|(at, _)| at).collect();
        if slashes.len() != PARTS - 1 {
            return None;
        }
        Some(Self {
            incident: &event_id[..slashes[6]],
            place: &event_id[..slashes[5]],
            check: &event_id[slashes[6] + 1..],
        })
    }
}

/// Whether an incident is in a place.
#[must_use]
pub fn is_in(incident: &str, place: &str) -> bool {
    incident.strip_prefix(place).is_some_and(|feature| feature.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use leeway_topology::event::{EventId, Scope};
    use leeway_topology::ids::Partition;

    use super::*;

    #[test]
    fn events_of_one_feature_are_of_one_incident_and_those_of_one_check_of_one_place() {
        let ids = EventId::new("app", "a/b", "topic", Some(Partition(3)), Scope::Partition, Some("x=/"));
        let [age, later, plan, quality] = [
            ids.of("age", 99, "r1"),
            ids.of("age", 199, "r1"),
            ids.of("plan", 99, "r1"),
            ids.of_quality("age", 99, "r1"),
        ];
        let [age, later, plan, quality] = [&age, &later, &plan, &quality].map(|id| Identity::of(id).unwrap());
        assert_eq!(age.incident, later.incident);
        assert_ne!(age.check, later.check);
        assert_eq!((age.place, age.check), (plan.place, plan.check));
        assert_ne!(age.incident, plan.incident);
        assert_ne!(age.incident, quality.incident, "what is wrong with values is another matter");
        assert_eq!(age.incident, "app/a%2Fb/topic/3/partition/x%3D%2F/age");
        assert!(is_in(age.incident, age.place) && is_in(quality.incident, age.place));
    }

    #[test]
    fn what_is_no_event_id_has_no_parts() {
        assert_eq!(Identity::of("e-1"), None);
        assert_eq!(Identity::of(""), None);
    }
}
