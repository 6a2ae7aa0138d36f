//! Which events a channel hears of.

use leeway_topology::event::Event;

use super::message::Kind;

/// What a channel asks for; an empty list asks for everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Monitors, as patterns.
    pub monitors: Vec<String>,
    /// Features, as patterns; not asked of a summary, which is of all features.
    pub features: Vec<String>,
    /// `partition`, `global`.
    pub scopes: Vec<String>,
    /// Segments, as patterns; an event without a segment is the empty text.
    pub segments: Vec<String>,
    /// `summary`, `feature`, `quality`.
    pub kinds: Vec<String>,
}

impl Filter {
    /// Whether the channel hears of an event.
    #[must_use]
    pub fn takes(&self, event: &Event) -> bool {
        let kind = Kind::of(event);
        let segment = match event {
            Event::Drift(event) => event.segment.as_deref(),
            Event::Quality(event) => event.segment.as_deref(),
        };
        let is_one = |words: &[String], word: &str| words.is_empty() || words.iter().any(|own| own == word);
        is_one(&self.kinds, kind.as_str())
            && is_one(&self.scopes, event.scope().as_str())
            && any_matches(&self.monitors, event.monitor())
            && (kind == Kind::Summary || any_matches(&self.features, event.feature()))
            && any_matches(&self.segments, segment.unwrap_or_default())
    }
}

fn any_matches(patterns: &[String], text: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, text))
}

/// Whether a text fits a pattern, in which `*` stands for any characters, also none. Linear in the text for each part of the pattern.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        match text.split_once(part) {
            Some((_, behind)) => text = behind,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::message::tests::{drift, quality, summary};
    use super::*;
    use leeway_topology::drift::Status;
    use leeway_topology::quality::QualityStatus;
    use proptest::prelude::*;

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "age"),
            ("age", "age"),
            ("age_*", "age_2"),
            ("*_2", "age_2"),
            ("a*e*2", "age_2"),
            ("**", "x"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("age", "age2"),
            ("age_*", "age"),
            ("*_2", "age_2b"),
            ("a*b*a", "aba2"),
            ("ab*ba", "aba"),
            ("", "x"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn patterns_match_what_a_regular_expression_would(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            // By trying every end of every star.
            fn slow(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|skipped| slow(rest, &text[skipped..])),
                    Some((byte, rest)) => text.first() == Some(byte) && slow(rest, &text[1..]),
                }
            }
            prop_assert_eq!(matches(&pattern, &text), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }

    #[test]
    fn a_channel_without_filters_takes_everything() {
        let filter = Filter::default();
        assert!(filter.takes(&drift("age", Status::Drift, 1)) && filter.takes(&summary(Status::Drift, 1)));
        assert!(filter.takes(&quality("age", QualityStatus::Violated, 1)));
    }

    #[test]
    fn a_list_of_features_still_lets_summaries_through_and_a_list_of_kinds_does_not() {
        let by_feature = Filter {
            features: texts(&["ag*"]),
            ..Filter::default()
        };
        assert!(by_feature.takes(&drift("age", Status::Drift, 1)) && by_feature.takes(&summary(Status::Drift, 1)));
        assert!(!by_feature.takes(&drift("plan", Status::Drift, 1)));
        let by_kind = Filter {
            kinds: texts(&["feature"]),
            ..Filter::default()
        };
        assert!(!by_kind.takes(&summary(Status::Drift, 1)) && !by_kind.takes(&quality("age", QualityStatus::Ok, 1)));
    }

    #[test]
    fn monitors_scopes_and_segments_have_to_fit() {
        let event = drift("age", Status::Drift, 1);
        for (filter, takes) in [
            (
                Filter {
                    monitors: texts(&["default"]),
                    ..Filter::default()
                },
                true,
            ),
            (
                Filter {
                    monitors: texts(&["other", "x*"]),
                    ..Filter::default()
                },
                false,
            ),
            (
                Filter {
                    scopes: texts(&["global"]),
                    ..Filter::default()
                },
                false,
            ),
            (
                Filter {
                    segments: texts(&["country=*"]),
                    ..Filter::default()
                },
                false,
            ),
            (
                Filter {
                    segments: texts(&[""]),
                    ..Filter::default()
                },
                true,
            ),
        ] {
            assert_eq!(filter.takes(&event), takes, "{filter:?}");
        }
    }
}
