//! The report as a table in a terminal.

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{Cell, CellAlignment, Color, Table};
use leeway_topology::drift::Status;
use leeway_topology::metric::Metric;
use leeway_topology::quality::{QualityStatus, Violation};

use super::{Report, examples, percent, share, words};

/// Characters of a sparkline, at most: neighbouring bins are put together.
const SPARKLINE_WIDTH_MAX: usize = 20;

/// From empty to full.
const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A table, worst feature first, and a line that sums it up. `colours`: the terminal shows them, and nobody asked for none.
#[must_use]
pub fn render(report: &Report, colours: bool) -> String {
    let mut table = Table::new();
    let metrics: Vec<Metric> = report.measured().collect();
    let head = ["feature", "status", "PSI", "by chance", "p"].into_iter();
    let tail = ["missing", "changed most", "reference", "current"];
    table
        .load_style(UTF8_BORDERS_ONLY)
        .set_header(head.chain(metrics.iter().map(|metric| title(*metric))).chain(tail));
    let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    for (feature, found) in report.worst_first() {
        let check = &found.check;
        let mut status = Cell::new(words(check.status));
        if colours {
            status = status.fg(colour(check.status));
        }
        let missing = found.counts.last().copied().unwrap_or_default();
        let (reference, current) = sparklines(feature.counts(), &found.counts);
        let mut row = vec![
            Cell::new(feature.name()),
            status,
            number(format!("{:.4}", check.psi)),
            number(format!("{:.4}", check.psi_null_mean)),
            number(probability(check.p_value)),
        ];
        row.extend(metrics.iter().map(|&metric| {
            number(match (metric, check.measurements.get(metric)) {
                (_, None) => "-".to_owned(),
                (Metric::Chi2, Some(p)) => probability(p),
                (_, Some(value)) => format!("{value:.4}"),
            })
        }));
        row.extend([
            number(format!("{:.1} %", percent(missing, report.rows))),
            Cell::new(check.top.map(|(bin, _)| feature.label(bin)).unwrap_or_default()),
            Cell::new(reference),
            Cell::new(current),
        ]);
        table.add_row(row);
    }
    format!("{table}\n{}\n{}", summary(report), quality(report, colours))
}

/// A table of the features that have a threshold, and a line that sums it up; nothing where none has.
fn quality(report: &Report, colours: bool) -> String {
    if report.quality.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table
        .load_style(UTF8_BORDERS_ONLY)
        .set_header(["feature", "quality", "missing", "other", "out of range", "most frequent of other"]);
    for (feature, found) in report.of_quality() {
        let mut status = Cell::new(found.status());
        if colours {
            status = status.fg(match found.status() {
                QualityStatus::Ok => Color::Green,
                QualityStatus::Violated => Color::Red,
            });
        }
        let mut row = vec![Cell::new(feature.name()), status];
        row.extend(Violation::ALL.map(|violation| Cell::new(share(found, violation)).set_alignment(CellAlignment::Right)));
        row.push(Cell::new(examples(found)));
        table.add_row(row);
    }
    format!(
        "\n{table}\nquality: {} of {} features violated\n",
        report.violated(),
        report.quality.len()
    )
}

/// A metric's column.
fn title(metric: Metric) -> &'static str {
    match metric {
        Metric::Psi => "PSI",
        Metric::Js => "JS",
        Metric::Ks => "KS",
        Metric::Wasserstein => "Wasserstein",
        Metric::Chi2 => "chi2 p",
    }
}

/// One line: what, of how many, over how many rows.
#[must_use]
pub fn summary(report: &Report) -> String {
    let summary = &report.summary;
    format!(
        "{}: {} of {} features drift, mean PSI {:.4}, {} rows against {} of reference {}",
        words(report.verdict()),
        summary.drifted_features,
        summary.feature_count,
        summary.psi,
        report.rows,
        report.reference.rows(),
        report.reference.version()
    )
}

/// Short, and a 0 only where a double has nothing smaller.
pub(super) fn probability(p: f64) -> String {
    if p == 0.0 {
        "0".to_owned()
    } else if p < 0.0001 {
        format!("{p:.0e}")
    } else {
        format!("{p:.4}")
    }
}

fn colour(status: Status) -> Color {
    match status {
        Status::NoDrift => Color::Green,
        Status::PossibleDrift => Color::Yellow,
        Status::Drift => Color::Red,
    }
}

/// Both rows of bins as bars of one scale: shares, so that they can be compared.
fn sparklines(reference: &[u64], current: &[u64]) -> (String, String) {
    let bins_each = reference.len().div_ceil(SPARKLINE_WIDTH_MAX).max(1);
    let shares = |counts: &[u64]| -> Vec<f64> {
        let whole = counts.iter().sum();
        counts.chunks(bins_each).map(|bins| percent(bins.iter().sum(), whole)).collect()
    };
    let (reference, current) = (shares(reference), shares(current));
    let most = reference.iter().chain(&current).copied().fold(0.0, f64::max);
    let bars = |shares: &[f64]| shares.iter().map(|share| LEVELS[level(*share, most)]).collect();
    (bars(&reference), bars(&current))
}

/// What is there at all can be seen.
fn level(share: f64, most: f64) -> usize {
    if share > 0.0 {
        ((share / most * 8.0).round() as usize).clamp(1, 8)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparklines_have_one_scale_and_show_whatever_is_there() {
        assert_eq!(sparklines(&[50, 50, 0], &[1000, 0, 1]), ("▄▄ ".to_owned(), "█ ▁".to_owned()));
    }

    #[test]
    fn many_bins_share_a_bar() {
        let (reference, current) = sparklines(&[1; 52], &[1; 52]);
        assert_eq!(reference.chars().count(), 18);
        assert_eq!(reference, current);
    }

    #[test]
    fn small_probability_is_not_written_as_zero() {
        assert_eq!([probability(0.25), probability(3.2e-9), probability(0.0)], ["0.2500", "3e-9", "0"]);
    }
}
