//! The report as one HTML file that needs no other: to be mailed, printed and kept.
//!
//! The page is [`report.html`](report.html), a template; here is what it shows, with the geometry of its charts. No script, no request to any host.

use leeway_topology::drift::{CheckedFeature, Criteria, Status};
use leeway_topology::psi;
use leeway_topology::quality::{CheckedQuality, QualityStatus, Violation};
use leeway_topology::reference::FeatureReference;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error};
use serde::Serialize;

use super::table::probability;
use super::{Report, examples, percent, share, words};

/// Width of a chart, and the heights of its two parts: shares, and what each bin adds to the PSI.
const WIDTH: f64 = 640.0;
const SHARES_HEIGHT: f64 = 150.0;
const CONTRIBUTIONS_HEIGHT: f64 = 50.0;

/// Labels below a chart, at most: of more bins every second or third has one.
const LABELS_MAX: usize = 26;

/// Characters of a label, at most; the whole one is in the bin's tooltip and in the table.
const LABEL_LENGTH_MAX: usize = 16;

/// What the page is of.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The name of the reference's file.
    pub reference: &'a str,
    /// That of the rows.
    pub current: &'a str,
    /// What was asked.
    pub criteria: &'a Criteria,
}

#[derive(Serialize)]
struct Page<'a> {
    reference: &'a str,
    current: &'a str,
    version: &'a str,
    monitor: &'a str,
    reference_rows: String,
    rows: String,
    rejected: u64,
    verdict: Verdict,
    psi: String,
    drifted: u64,
    possible: usize,
    count: u64,
    possible_drift: f64,
    drift: f64,
    significance: f64,
    epsilon: f64,
    features: Vec<FeatureView<'a>>,
    violated: usize,
    /// Of the features that have a threshold.
    quality: Vec<QualityView<'a>>,
}

#[derive(Serialize)]
struct QualityView<'a> {
    name: &'a str,
    verdict: Verdict,
    missing: String,
    other: String,
    out_of_range: String,
    examples: String,
}

impl<'a> QualityView<'a> {
    fn of(feature: &'a FeatureReference, found: &CheckedQuality) -> Self {
        let [missing, other, out_of_range] = Violation::ALL.map(|violation| share(found, violation));
        Self {
            name: feature.name(),
            verdict: Verdict::of_quality(found.status()),
            missing,
            other,
            out_of_range,
            examples: examples(found),
        }
    }
}

#[derive(Serialize)]
struct Verdict {
    class: &'static str,
    words: &'static str,
    /// A shape of its own, for who does not see the colour.
    sign: &'static str,
}

impl Verdict {
    fn of(status: Status) -> Self {
        Self {
            class: status.as_str(),
            words: words(status),
            sign: match status {
                Status::NoDrift => "●",
                Status::PossibleDrift => "◆",
                Status::Drift => "▲",
            },
        }
    }

    /// In the colours and shapes of no drift and of drift.
    fn of_quality(status: QualityStatus) -> Self {
        let like = match status {
            QualityStatus::Ok => Status::NoDrift,
            QualityStatus::Violated => Status::Drift,
        };
        Self {
            words: status.as_str(),
            ..Self::of(like)
        }
    }
}

#[derive(Serialize)]
struct FeatureView<'a> {
    name: &'a str,
    binning: &'a str,
    verdict: Verdict,
    psi: String,
    by_chance: String,
    p: String,
    missing_before: String,
    missing: String,
    below: Option<u64>,
    above: Option<u64>,
    top: Option<String>,
    chart: Chart,
}

#[derive(Serialize)]
struct Chart {
    width: f64,
    shares_height: f64,
    height: f64,
    /// The share that the top of the chart stands for.
    most: String,
    most_contribution: String,
    bins: Vec<Bin>,
}

#[derive(Serialize)]
struct Bin {
    label: String,
    short: Option<String>,
    middle: f64,
    left: f64,
    right: f64,
    bar: f64,
    reference: f64,
    current: f64,
    contribution: f64,
    contribution_bar: f64,
    reference_count: u64,
    current_count: u64,
    reference_percent: String,
    current_percent: String,
    contribution_text: String,
}

/// The page.
///
/// # Errors
/// Never for the template of this build.
pub fn render(report: &Report, sources: Sources<'_>) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.add_template("report.html", include_str!("report.html"))?;
    let criteria = sources.criteria;
    let features = report.worst_first();
    let page = Page {
        reference: sources.reference,
        current: sources.current,
        version: report.reference.version(),
        monitor: report.reference.monitor(),
        reference_rows: thousands(report.reference.rows()),
        rows: thousands(report.rows),
        rejected: report.rejected,
        verdict: Verdict::of(report.verdict()),
        psi: format!("{:.4}", report.summary.psi),
        drifted: report.summary.drifted_features,
        possible: features.iter().filter(|(_, found)| found.check.status == Status::PossibleDrift).count(),
        count: report.summary.feature_count,
        possible_drift: criteria.thresholds.possible_drift,
        drift: criteria.thresholds.drift,
        significance: criteria.significance,
        epsilon: criteria.epsilon,
        features: features
            .iter()
            .map(|(feature, found)| view(report, feature, found, criteria.epsilon))
            .collect(),
        violated: report.violated(),
        quality: report.of_quality().map(|(feature, found)| QualityView::of(feature, found)).collect(),
    };
    environment.get_template("report.html")?.render(Serde(page))
}

fn view<'a>(report: &Report, feature: &'a FeatureReference, found: &CheckedFeature, epsilon: f64) -> FeatureView<'a> {
    let check = &found.check;
    let missing = |counts: &[u64], rows| format!("{:.1} %", percent(counts.last().copied().unwrap_or_default(), rows));
    FeatureView {
        name: feature.name(),
        binning: feature.binning(),
        verdict: Verdict::of(check.status),
        psi: format!("{:.4}", check.psi),
        by_chance: format!("{:.4}", check.psi_null_mean),
        p: probability(check.p_value),
        missing_before: missing(feature.counts(), feature.counts().iter().sum()),
        missing: missing(&found.counts, report.rows),
        below: found.sides.map(|(below, _)| below),
        above: found.sides.map(|(_, above)| above),
        top: check.top.map(|(bin, _)| feature.label(bin)),
        chart: chart(feature, found, epsilon),
    }
}

fn chart(feature: &FeatureReference, found: &CheckedFeature, epsilon: f64) -> Chart {
    let (before, now) = (feature.counts(), &found.counts);
    let contributions = psi::contributions(before, now, epsilon);
    let shares = |counts: &[u64]| -> Vec<f64> {
        let whole = counts.iter().sum();
        counts.iter().map(|count| percent(*count, whole)).collect()
    };
    let (before_shares, now_shares) = (shares(before), shares(now));
    let most = before_shares.iter().chain(&now_shares).copied().fold(0.0, f64::max);
    let most_contribution = contributions.iter().copied().fold(0.0, f64::max);
    let step = WIDTH / before.len() as f64;
    let bar = (step * 0.36).min(40.0);
    let labels_each = before.len().div_ceil(LABELS_MAX);
    let part = |value: f64, whole: f64, height: f64| round(if whole > 0.0 { value / whole * height } else { 0.0 });
    let bins = (0..before.len())
        .map(|bin| {
            let (label, middle) = (feature.label(bin), (bin as f64 + 0.5) * step);
            Bin {
                short: bin.is_multiple_of(labels_each).then(|| shortened(&label)),
                label,
                middle: round(middle),
                left: round(middle - bar),
                right: round(middle),
                bar: round(bar),
                reference: part(before_shares[bin], most, SHARES_HEIGHT),
                current: part(now_shares[bin], most, SHARES_HEIGHT),
                contribution: part(contributions[bin], most_contribution, CONTRIBUTIONS_HEIGHT),
                contribution_bar: round(middle - bar / 2.0),
                reference_count: before[bin],
                current_count: now[bin],
                reference_percent: format!("{:.2} %", before_shares[bin]),
                current_percent: format!("{:.2} %", now_shares[bin]),
                contribution_text: format!("{:.4}", contributions[bin]),
            }
        })
        .collect();
    Chart {
        width: WIDTH,
        shares_height: SHARES_HEIGHT,
        height: SHARES_HEIGHT + CONTRIBUTIONS_HEIGHT,
        most: format!("{most:.0} %"),
        most_contribution: format!("{most_contribution:.3}"),
        bins,
    }
}

/// To a tenth of a pixel, which keeps the file small.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn shortened(label: &str) -> String {
    if label.chars().count() <= LABEL_LENGTH_MAX {
        return label.to_owned();
    }
    label.chars().take(LABEL_LENGTH_MAX - 1).chain(['…']).collect()
}

/// With thin spaces, as numbers are written for people.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people_and_labels_that_fit() {
        assert_eq!(
            [thousands(7), thousands(1000), thousands(12_345_678)],
            ["7", "1\u{202f}000", "12\u{202f}345\u{202f}678"]
        );
        assert_eq!(shortened("(-1.25, 3.5]"), "(-1.25, 3.5]");
        assert_eq!(shortened("a category with a long name"), "a category with…");
    }
}
