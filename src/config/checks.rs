//! Contradictions between monitors and topics, which no single value can show.

use std::collections::{BTreeMap, BTreeSet};

use leeway_topology::graph::{changelog_topic, store_name};

use super::MonitorConfig;
use super::file::Settings;
use super::view::{View, source_of};

/// Longest name of a Kafka topic.
const TOPIC_CHARACTERS_MAX: usize = 249;

/// Monitors of one topic share its dead letter topic: who names none takes the one that another names; two different ones contradict each other.
pub(super) fn share_dead_letter_topics(monitors: &mut [MonitorConfig], settings: &[Settings], faults: &mut Vec<String>) {
    const PATH: &str = "monitor.dead_letter_topic";
    let mut named: BTreeMap<String, (String, String)> = BTreeMap::new();
    for (monitor, settings) in monitors.iter().zip(settings) {
        let view = View(settings);
        let Some(own) = view.optional_text(PATH) else { continue };
        let (first, first_named) = named.entry(monitor.topic.clone()).or_insert_with(|| (own.clone(), view.named(PATH)));
        if *first != own {
            faults.push(format!(
                "{}: monitors of topic {:?} share its dead letter topic, and {first_named}",
                view.named(PATH),
                monitor.topic
            ));
        }
    }
    for monitor in monitors {
        if let Some((shared, _)) = named.get(&monitor.topic) {
            monitor.dead_letter_topic.clone_from(shared);
        }
    }
}

/// Each monitor its own name; and one start, since a stream thread has one.
pub(super) fn check_names(monitors: &[MonitorConfig], settings: &[Settings], faults: &mut Vec<String>) {
    let mut names = BTreeSet::new();
    for (monitor, settings) in monitors.iter().zip(settings) {
        let view = View(settings);
        if !monitor.name.is_empty() && !names.insert(&monitor.name) {
            faults.push(format!(
                "{}: another monitor has this name; each needs its own",
                view.named("monitor.name")
            ));
        }
        if monitors.first().is_some_and(|first| first.start != monitor.start) {
            faults.push(format!(
                "{}: all monitors start at the same end in this version; give all the same",
                view.named("monitor.start")
            ));
        }
    }
}

/// Outputs that are read again as inputs would go in circles, and internal topics must fit into a name.
pub(super) fn check_topics(application_id: &str, monitors: &[MonitorConfig], settings: &[Settings], faults: &mut Vec<String>) {
    let inputs: BTreeSet<&str> = monitors
        .iter()
        .map(|monitor| monitor.topic.as_str())
        .filter(|topic| !topic.is_empty())
        .collect();
    for (monitor, settings) in monitors.iter().zip(settings) {
        let view = View(settings);
        for (path, topic) in [
            ("monitor.events_topic", &monitor.events_topic),
            ("monitor.dead_letter_topic", &monitor.dead_letter_topic),
        ] {
            if inputs.contains(topic.as_str()) {
                faults.push(format!(
                    "{path} = {topic:?} ({}): is an input topic too: records would go in circles",
                    source_of(settings, path)
                ));
            }
        }
        if let Some(other) = monitors
            .iter()
            .find(|other| other.events_topic == monitor.dead_letter_topic && !other.events_topic.is_empty())
        {
            let source = source_of(settings, "monitor.dead_letter_topic");
            faults.push(format!(
                "monitor.dead_letter_topic = {:?} ({source}): is the topic of drift events too",
                other.events_topic
            ));
        }
        let changelog = changelog_topic(application_id, &store_name(&monitor.topic));
        if changelog.len() > TOPIC_CHARACTERS_MAX {
            faults.push(format!(
                "{}: with the application id the changelog would be {changelog:?}, {} characters; Kafka takes {TOPIC_CHARACTERS_MAX}",
                view.named("monitor.topic"),
                changelog.len()
            ));
        }
    }
}
