//! What texts and numbers the keys take, each in words and as a test.

use super::value::duration_ms;
use crate::rolling_reference::Rolling;

/// What is allowed, in words and as a test.
#[derive(Debug)]
pub struct Rule<T: ?Sized + 'static> {
    /// Completes "must be ...".
    pub allowed: &'static str,
    /// The test.
    pub accepts: fn(&T) -> bool,
}

impl<T: ?Sized> Clone for Rule<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Rule<T> {}

pub(super) const NON_EMPTY: Rule<str> = Rule {
    allowed: "a text that is not empty",
    accepts: |text| !text.trim().is_empty(),
};

pub(super) const TOPIC: Rule<str> = Rule {
    allowed: "a Kafka topic name: 1 to 249 ASCII letters, digits, `.`, `_` and `-`",
    accepts: |text| is_kafka_name(text, 249),
};

/// Internal topics are the application id, the input topic and a few words: at most 249 characters together, which `load` checks.
pub(super) const APPLICATION_ID: Rule<str> = Rule {
    allowed: "1 to 200 ASCII letters, digits, `.`, `_` and `-`, since internal topics begin with it",
    accepts: |text| is_kafka_name(text, 200),
};

pub(super) const MONITOR_NAME: Rule<str> = Rule {
    allowed: "1 to 100 ASCII letters, digits, `.`, `_` and `-`",
    accepts: |text| is_kafka_name(text, 100),
};

pub(super) const SERVERS: Rule<str> = Rule {
    allowed: "`host:port`, several separated by commas",
    accepts: |text| text.split(',').all(|server| is_address(server.trim())),
};

pub(super) const FILTER: Rule<str> = Rule {
    allowed: "a tracing filter, such as `info` or `warn,leeway=debug`",
    accepts: |text| crate::telemetry::logging::parse_filter(text).is_ok(),
};

pub(super) const REFERENCE: Rule<str> = Rule {
    allowed: "the path of a reference, CSV, Parquet or JSON-lines file, `first:N` with N from 1 on, or `rolling:7d,lag:1d,every:1d` with durations of a \
              second or longer (lag: or zero)",
    accepts: |text| {
        let is_first = |count: &str| count.parse::<u64>().is_ok_and(|count| count > 0);
        let is_rolling = !text.starts_with(ROLLING) || text.parse::<Rolling>().is_ok();
        !text.trim().is_empty() && text.strip_prefix(FIRST).is_none_or(is_first) && is_rolling
    },
};

/// A reference of the topic's first records begins with this.
pub(super) const FIRST: &str = "first:";

/// A rolling reference begins with this.
pub(super) const ROLLING: &str = "rolling:";

pub(super) const FEATURE: Rule<str> = Rule {
    allowed: "names of features: not empty, not `*`, each once",
    accepts: |text| !text.is_empty() && text != leeway_topology::event::SUMMARY,
};

pub(super) const POINTER: Rule<str> = Rule {
    allowed: "a JSON pointer such as `/payload/age` or `/items/0/plan`, `~` in a name written `~0` and `/` written `~1`",
    accepts: |text| text.parse::<leeway_topology::field::Pointer>().is_ok(),
};

pub(super) const FIELD: Rule<str> = Rule {
    allowed: "the name of a top-level field, or a JSON pointer such as `/payload/at`",
    accepts: |text| !text.trim().is_empty() && text.parse::<leeway_topology::field::Field>().is_ok(),
};

pub(super) const SCOPE: Rule<str> = Rule {
    allowed: "`partition`, `global`",
    accepts: |text| matches!(text, "partition" | "global"),
};

pub(super) const ALERT_KIND: Rule<str> = Rule {
    allowed: "`summary`, `feature`, `quality`, each once",
    accepts: |text| matches!(text, "summary" | "feature" | "quality"),
};

pub(super) const PATTERN: Rule<str> = Rule {
    allowed: "texts, each once, in which `*` stands for any characters",
    accepts: |_| true,
};

pub(super) const METRIC: Rule<str> = Rule {
    allowed: "`psi`, `js`, `ks`, `wasserstein`, `chi2`, each once",
    accepts: |text| text.parse::<leeway_topology::metric::Metric>().is_ok(),
};

pub(super) const URL: Rule<str> = Rule {
    allowed: "a URL that begins with `https://` or `http://`",
    accepts: |text| text.starts_with("https://") || text.starts_with("http://"),
};

pub(super) const POSITIVE: Rule<f64> = Rule {
    allowed: "a number above 0",
    accepts: |number| *number > 0.0 && number.is_finite(),
};

pub(super) const DURATION: Rule<str> = Rule {
    allowed: "a duration such as 30s or 1h 30m",
    accepts: |text| duration_ms(text).is_some(),
};

pub(super) const FRACTION: Rule<f64> = Rule {
    allowed: "a number above 0 and below 1",
    accepts: |number| *number > 0.0 && *number < 1.0,
};

pub(super) const SHARE: Rule<f64> = Rule {
    allowed: "a number above 0 and at most 1",
    accepts: |number| *number > 0.0 && *number <= 1.0,
};

pub(super) const WEIGHT: Rule<f64> = Rule {
    allowed: "a number above 0 and at most 1e9",
    accepts: |number| *number > 0.0 && *number <= 1e9,
};

pub(super) const LEVEL: Rule<f64> = Rule {
    allowed: "a number from 0 (off) to below 1",
    accepts: |number| (0.0..1.0).contains(number),
};

fn is_kafka_name(text: &str, length_max: usize) -> bool {
    let legal = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    legal && (1..=length_max).contains(&text.len()) && text != "." && text != ".."
}

/// `host:port`, `[::1]:port`, or a host alone, with a protocol before it as librdkafka takes it.
fn is_address(text: &str) -> bool {
    let text = text.split_once("://").map_or(text, |(_, address)| address);
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    !host.is_empty() && !host.contains(char::is_whitespace) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}
