//! What `leeway alert` is asked for: `[alert]`, and a channel for each `[[alert.channel]]`.
//!
//! What a channel leaves out is the section's. `alert.slack.url` alone is a channel named `slack`; no channel at all is standard output.

use std::path::PathBuf;
use std::time::Duration;

use super::file::Settings;
use super::value::{Secret, Source, duration_ms};
use super::view::{View, source_of};
use crate::consumers::alert::incident::{Rule, Severity};
use crate::consumers::alert::route::Filter;

/// What `leeway alert` is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertConfig {
    /// Its consumer group.
    pub group_id: String,
    /// How long after a first transition others of the same check are waited for.
    pub group_wait: Duration,
    /// Messages that a channel keeps until they are delivered.
    pub max_parked: usize,
    /// What is older is not told, unless it is still open.
    pub max_age: Duration,
    /// After what time without a check an incident is closed; `None`: never.
    pub expire_after: Option<Duration>,
    /// Where a message points to.
    pub dashboard_url: Option<String>,
    /// At least one.
    pub channels: Vec<ChannelConfig>,
}

/// One channel.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelConfig {
    /// Its unique name.
    pub name: String,
    /// Where it leads.
    pub target: Target,
    /// What it hears of.
    pub filter: Filter,
    /// When it is told.
    pub rule: Rule,
    /// How long one attempt may take.
    pub timeout: Duration,
}

/// Where a channel leads.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// An incoming webhook.
    Slack {
        /// Its address.
        url: Secret,
    },
    /// Any HTTP server.
    Webhook {
        /// Its address.
        url: Secret,
        /// Signs what is sent.
        secret: Option<Secret>,
    },
    /// Prometheus' Alertmanager.
    Alertmanager {
        /// Its base address.
        url: Secret,
        /// How often what fires is sent again.
        resend: Duration,
    },
    /// A log of all summaries.
    Csv {
        /// The file.
        path: PathBuf,
    },
    /// Standard output.
    Stdout,
}

/// Where a log is, if nobody says it: where such a file was before Leeway.
const DEFAULT_LOG: &str = "logs/psi_drift_log.csv";

/// How often firing alerts are sent again, if nobody says it: Alertmanager forgets them after five minutes by default.
const DEFAULT_RESEND: Duration = Duration::from_secs(60);

const KIND: &str = "alert.channel.kind";
const NAME: &str = "alert.channel.name";
const URL: &str = "alert.channel.url";

/// Builds it of the section's settings and the channels'.
pub(super) fn build(common: &Settings, channels: &[Settings], application_id: &str, faults: &mut Vec<String>) -> AlertConfig {
    let view = View(common);
    let duration = |view: &View<'_>, path: &str| view.optional_text(path).and_then(|text| duration_ms(&text));
    let mut configured: Vec<ChannelConfig> = channels.iter().filter_map(|settings| channel(&View(settings), &view, faults)).collect();
    if let Some(url) = view.secret("alert.slack.url") {
        let mut slack = of_section("slack", Target::Slack { url }, &view);
        if configured.iter().any(|channel| channel.name == slack.name) {
            faults.push("alert.slack.url: a [[alert.channel]] is named `slack` too; give one of them up, or another name".to_owned());
            slack.name.push('2');
        }
        configured.push(slack);
    }
    if configured.is_empty() && channels.is_empty() {
        configured.push(of_section("stdout", Target::Stdout, &view));
    }
    for (index, channel) in configured.iter().enumerate() {
        if configured[..index].iter().any(|earlier| earlier.name == channel.name) {
            faults.push(format!("{NAME} = {:?}: another channel has this name; each needs its own", channel.name));
        }
    }
    AlertConfig {
        group_id: view.optional_text("alert.group_id").unwrap_or_else(|| format!("{application_id}-alert")),
        group_wait: Duration::from_millis(duration(&view, "alert.group_wait").unwrap_or_default()),
        max_parked: view.size("alert.max_parked"),
        max_age: Duration::from_millis(duration(&view, "alert.max_age").unwrap_or_default()),
        expire_after: duration(&view, "alert.expire_after").filter(|ms| *ms > 0).map(Duration::from_millis),
        dashboard_url: view.optional_text("dashboard.url"),
        channels: configured,
    }
}

/// A channel with what the section says.
fn of_section(name: &str, target: Target, section: &View<'_>) -> ChannelConfig {
    ChannelConfig {
        name: name.to_owned(),
        target,
        filter: Filter::default(),
        rule: rule(&View(&Settings::new()), section),
        timeout: timeout(&View(&Settings::new()), section),
    }
}

/// What of two settings counts: the channel's, else the section's.
fn rule(channel: &View<'_>, section: &View<'_>) -> Rule {
    let text = |name: &str| {
        let own = channel.optional_text(&format!("alert.channel.{name}"));
        own.or_else(|| section.optional_text(&format!("alert.{name}")))
    };
    let consecutive = channel
        .optional_integer("alert.channel.consecutive")
        .or_else(|| section.optional_integer("alert.consecutive"));
    let cooldown = text("cooldown").and_then(|text| duration_ms(&text)).unwrap_or_default();
    Rule {
        min_severity: match text("min_severity").as_deref() {
            Some("drift") => Severity::Drift,
            _ => Severity::PossibleDrift,
        },
        consecutive: consecutive.and_then(|checks| u32::try_from(checks).ok()).unwrap_or(1),
        cooldown_ms: i64::try_from(cooldown).unwrap_or(i64::MAX),
    }
}

fn timeout(channel: &View<'_>, section: &View<'_>) -> Duration {
    let own = channel.optional_text("alert.channel.timeout");
    let text = own.or_else(|| section.optional_text("alert.timeout"));
    let ms = text.and_then(|text| duration_ms(&text)).unwrap_or_default();
    // A channel without any time delivers nothing.
    Duration::from_millis(ms.max(1))
}

fn channel(view: &View<'_>, section: &View<'_>, faults: &mut Vec<String>) -> Option<ChannelConfig> {
    let kind = view.optional_text(KIND);
    let Some(kind) = kind else {
        if *source_of(view.0, KIND) == Source::Default {
            faults.push(format!(
                "{KIND}: must be given: one of `slack`, `webhook`, `alertmanager`, `csv`, `stdout`"
            ));
        }
        return None;
    };
    let is_set = |path: &str| *source_of(view.0, path) != Source::Default;
    let of: &[&str] = match kind.as_str() {
        "slack" => &[URL],
        "webhook" => &[URL, "alert.channel.secret"],
        "alertmanager" => &[URL, "alert.channel.resend"],
        "csv" => &["alert.channel.path"],
        _ => &[],
    };
    for path in [URL, "alert.channel.secret", "alert.channel.resend", "alert.channel.path"] {
        if is_set(path) && !of.contains(&path) {
            faults.push(format!("{}: has no meaning with kind = \"{kind}\"", view.named(path)));
        }
    }
    if kind == "csv" {
        for path in [
            "alert.channel.min_severity",
            "alert.channel.consecutive",
            "alert.channel.cooldown",
            "alert.channel.features",
            "alert.channel.kinds",
        ] {
            if is_set(path) {
                faults.push(format!(
                    "{}: has no meaning with kind = \"csv\": the log has every summary, whatever its status",
                    view.named(path)
                ));
            }
        }
    }
    let url = view.secret(URL);
    if of.contains(&URL) && url.is_none() && !is_set(URL) {
        faults.push(format!("{URL}: must be given with kind = \"{kind}\""));
    }
    let target = match (kind.as_str(), url) {
        ("slack", Some(url)) => Target::Slack { url },
        ("webhook", Some(url)) => Target::Webhook {
            url,
            secret: view.secret("alert.channel.secret"),
        },
        ("alertmanager", Some(url)) => Target::Alertmanager {
            url,
            resend: view
                .optional_text("alert.channel.resend")
                .and_then(|text| duration_ms(&text))
                .map_or(DEFAULT_RESEND, |ms| Duration::from_millis(ms.max(1000))),
        },
        ("csv", _) => Target::Csv {
            path: PathBuf::from(view.optional_text("alert.channel.path").unwrap_or_else(|| DEFAULT_LOG.to_owned())),
        },
        ("stdout", _) => Target::Stdout,
        _ => return None,
    };
    let list = |name: &str| view.list(&format!("alert.channel.{name}")).unwrap_or_default();
    Some(ChannelConfig {
        name: view.optional_text(NAME).unwrap_or(kind),
        target,
        filter: Filter {
            monitors: list("monitors"),
            features: list("features"),
            scopes: list("scopes"),
            segments: list("segments"),
            kinds: list("kinds"),
        },
        rule: rule(view, section),
        timeout: timeout(view, section),
    })
}
