//! Measures how often checks give alarm when nothing drifted, and how often they see what did: the tables of docs/statistics.md.
//!
//! `calibrate [SEED] [CHECKS]` writes Markdown to standard output and, on a terminal, its progress to standard error. Many checks share a reference
//! and are not independent; references are. So a figure is a mean over references, and its standard error is theirs.

#![expect(clippy::unwrap_used, reason = "a sample that cannot be drawn ends the simulation")]

use std::collections::VecDeque;
use std::io::{IsTerminal as _, stderr};
use std::iter::zip;

use leeway_topology::drift::{Criteria, Status, Thresholds};
use leeway_topology::psi::psi;
use leeway_topology::reference::Reference;
use leeway_topology::significance::Correction;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sampling::{Source, check, reference};
use statrs::distribution::{ContinuousCDF as _, Normal};
use statrs::statistics::{Data, OrderStatistics as _, Statistics as _};

mod sampling;

const BINS: [usize; 2] = [10, 20];
const REFERENCES: [u64; 3] = [1000, 10_000, 100_000];
const WINDOWS: [u64; 6] = [100, 200, 500, 1000, 2000, 5000];
/// Features of a check.
const FEATURES: [usize; 4] = [1, 10, 50, 200];
/// Features that are drawn together. Checks of fewer are checks of some of them.
const POOL: usize = 200;
/// The reference where one is enough.
const REFERENCE: u64 = 10_000;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| {
        argument.parse::<u64>().unwrap_or_else(|_| {
            eprintln!("calibrate takes a seed and a number of checks, both whole numbers, and not {argument:?}");
            std::process::exit(2)
        })
    });
    let run = Run {
        seed: arguments.next().unwrap_or(1),
        checks: arguments.next().unwrap_or(4000),
    };
    println!("Seed {}, {} checks of {POOL} features.", run.seed, run.checks);
    run.false_alarms();
    run.power();
    run.windows_to_see_a_shift();
    run.shifts();
    run.overlapping_windows();
    run.unlucky_references();
    run.progress("");
}

struct Run {
    seed: u64,
    checks: u64,
}

/// With significance as by default, by the false discovery rate, and by thresholds alone.
fn settings() -> [(&'static str, Criteria); 3] {
    let plain = Criteria {
        significance: 0.0,
        ..Criteria::default()
    };
    let discovery = Criteria {
        correction: Correction::BenjaminiHochberg,
        ..Criteria::default()
    };
    [("off", plain), ("bonferroni", Criteria::default()), ("false_discovery_rate", discovery)]
}

/// Every p-value below its cut-off is an alarm, however small the PSI.
fn significant_alone() -> Criteria {
    let anything = Thresholds {
        possible_drift: f64::MIN_POSITIVE,
        drift: f64::MIN_POSITIVE,
    };
    Criteria {
        thresholds: anything,
        ..Criteria::default()
    }
}

/// The features of a reference in parts of so many, the first of these parts only.
fn parts(reference: &Reference, features: usize, parts: usize) -> Vec<(usize, Reference)> {
    let names: Vec<String> = reference.features().iter().map(|feature| feature.name().to_string()).collect();
    let part = |(index, names)| (index * features, reference.select(names).unwrap());
    names.chunks(features).take(parts).enumerate().map(part).collect()
}

/// A share or mean, measured once per reference.
#[derive(Clone, Default)]
struct Figure(Vec<f64>);

impl Figure {
    fn mean(&self) -> f64 {
        (&self.0).mean()
    }

    fn standard_error(&self) -> f64 {
        (&self.0).std_dev() / (self.0.len() as f64).sqrt()
    }
}

/// The largest standard errors of a table's figures, in 1000.
#[derive(Default)]
struct Errors {
    any: f64,
    small: f64,
}

impl Errors {
    /// A figure in 1000, as it is printed.
    fn per_1000(&mut self, figure: &Figure) -> String {
        let (mean, error) = (1000.0 * figure.mean(), 1000.0 * figure.standard_error());
        self.any = self.any.max(error);
        if mean < 10.0 {
            self.small = self.small.max(error);
        }
        if mean == 0.0 {
            "0".to_owned()
        } else if mean < 9.95 {
            format!("{mean:.1}")
        } else {
            format!("{mean:.0}")
        }
    }

    fn print(self) {
        println!(
            "\nStandard errors: at most {:.1}; of figures below 10 at most {:.2}.",
            self.any, self.small
        );
    }
}

fn title(text: &str) {
    println!("\n### {text}\n");
}

fn head(columns: &[&str]) {
    row(columns.iter().copied());
    row(columns.iter().map(|_| "---"));
}

fn row<T: AsRef<str>>(cells: impl IntoIterator<Item = T>) {
    let cells: Vec<String> = cells.into_iter().map(|cell| format!(" {} |", cell.as_ref())).collect();
    println!("|{}", cells.concat());
}

/// Of checks: those in which any feature is in drift, and at least in possible drift; the same of the summary.
#[derive(Clone, Default)]
struct Alarms([Figure; 4]);

impl Run {
    /// What follows does not depend on what came before.
    fn random(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    fn progress(&self, doing: &str) {
        if stderr().is_terminal() {
            eprint!("\r\x1b[K{doing}");
        }
    }

    /// Of how many rows, how many references, and how many windows of each size by each: large references take long, and differ less.
    fn references(&self, rows: u64) -> (u64, u64) {
        let references = (self.checks * 250 / rows).clamp(self.checks.min(10), self.checks);
        (references, self.checks.div_ceil(references))
    }

    /// Nothing drifts. Also the mean of PSI, against the formula that events carry.
    fn false_alarms(&self) {
        let settings = settings();
        let mut alarms = vec![];
        let mut null_means = vec![];
        for bins in BINS {
            for rows in REFERENCES {
                let random = &mut self.random();
                let (references, repetitions) = self.references(rows);
                let mut cells = vec![vec![vec![Alarms::default(); FEATURES.len()]; settings.len()]; WINDOWS.len()];
                let mut means = vec![[Figure::default(), Figure::default()]; WINDOWS.len()];
                for number in 0..references {
                    self.progress(&format!("false alarms: {bins} bins, {rows} rows, reference {number} of {references}"));
                    let pool = reference(rows, POOL, bins, random);
                    let source = Source::new(&pool, 0.0);
                    // Checks of few features are cheap: more of them, for smaller errors.
                    let parts = zip(FEATURES, [20, 5, 2, 1]).map(|(features, count)| parts(&pool, features, count));
                    let parts: Vec<_> = parts.collect();
                    for ((size, cells), means) in zip(WINDOWS, &mut cells).zip(&mut means) {
                        let windows: Vec<_> = (0..repetitions).map(|_| source.window(size, random)).collect();
                        for ((_, criteria), cells) in zip(&settings, cells) {
                            for ((parts, features), cell) in zip(&parts, FEATURES).zip(cells) {
                                measure(cell, criteria, parts, features, &windows);
                            }
                        }
                        let checked = windows.iter().flat_map(|window| check(&settings[0].1, &pool, window).0);
                        let (psi, formula): (Vec<_>, Vec<_>) = checked.map(|feature| (feature.check.psi, feature.check.psi_null_mean)).unzip();
                        means[0].0.push(psi.mean());
                        means[1].0.push(formula.mean());
                    }
                }
                alarms.push((bins, rows, cells));
                null_means.push((bins, rows, means));
            }
        }
        for (what, verdicts) in [("any feature", [0, 1]), ("the summary", [2, 3])] {
            for (index, (setting, _)) in settings.iter().enumerate() {
                title(&format!(
                    "No drift, significance {setting}: of 1000 checks, those that call {what} drift / possible drift or drift"
                ));
                head(&["bins", "reference", "window", "1 feature", "10 features", "50", "200"]);
                let mut errors = Errors::default();
                for (bins, rows, cells) in &alarms {
                    for (size, cells) in zip(WINDOWS, cells) {
                        let cell = |cell: &Alarms| verdicts.map(|verdict| errors.per_1000(&cell.0[verdict])).join(" / ");
                        let figures: Vec<String> = cells[index].iter().map(cell).collect();
                        if figures.iter().any(|figure| figure != "0 / 0") {
                            row([bins.to_string(), rows.to_string(), size.to_string()].into_iter().chain(figures));
                        }
                    }
                }
                println!("\nRows of zeros are left out.");
                errors.print();
            }
        }
        title("No drift: mean PSI / psi_null_mean, and their ratio");
        head(&["bins", "window", "reference 1000", "10000", "100000"]);
        let mut most: f64 = 0.0;
        for bins in BINS {
            for (index, size) in WINDOWS.iter().enumerate() {
                let of_bins = null_means.iter().filter(|(of, ..)| *of == bins);
                let figures = of_bins.map(|(.., means)| {
                    let [psi, formula] = &means[index];
                    most = most.max(psi.standard_error() / formula.mean());
                    let ratio = psi.mean() / formula.mean();
                    format!("{:.5} / {:.5} = {ratio:.3}", psi.mean(), formula.mean())
                });
                row([bins.to_string(), size.to_string()].into_iter().chain(figures));
            }
        }
        println!("\nStandard errors: at most {most:.4} of the ratio.");
    }

    /// One feature, whose mean moves.
    fn power(&self) {
        const SHIFTS: [f64; 3] = [0.1, 0.2, 0.5];
        let [(_, plain), (_, significance), _] = settings();
        let criteria = [plain, significance, significant_alone()];
        title("One feature that moves, reference 10000: of 1000 checks, those that call it drift / possible drift or drift");
        head(&[
            "bins",
            "shift in sigma",
            "window",
            "without significance",
            "with",
            "significant, whatever its PSI",
        ]);
        let mut errors = Errors::default();
        for bins in BINS {
            let random = &mut self.random();
            let mut cells = vec![vec![vec![Alarms::default(); criteria.len()]; WINDOWS.len()]; SHIFTS.len()];
            for number in 0..self.checks.div_ceil(100) {
                self.progress(&format!("power: {bins} bins, reference {number}"));
                let pool = reference(REFERENCE, POOL, bins, random);
                let parts = parts(&pool, 1, POOL);
                for (shift, cells) in zip(SHIFTS, &mut cells) {
                    let source = Source::new(&pool, shift);
                    for (size, cells) in zip(WINDOWS, cells) {
                        let windows = [source.window(size, random), source.window(size, random)];
                        for (criteria, cell) in zip(&criteria, cells) {
                            measure(cell, criteria, &parts, 1, &windows);
                        }
                    }
                }
            }
            for (shift, cells) in zip(SHIFTS, &cells) {
                for (size, cells) in zip(WINDOWS, cells) {
                    let mut cell = |cell: &Alarms| [0, 1].map(|verdict| errors.per_1000(&cell.0[verdict]));
                    let [plain, significance, alone] = [cell(&cells[0]), cell(&cells[1]), cell(&cells[2])];
                    let figures = [plain.join(" / "), significance.join(" / "), alone[0].clone()];
                    row([bins.to_string(), shift.to_string(), size.to_string()].into_iter().chain(figures));
                }
            }
        }
        errors.print();
    }

    /// The smallest window with a reference ten times as long in which 9 of 10 checks call a shift at least possible drift, with significance, and a
    /// threshold at half of the shift's PSI. Windows rise by a twentieth and are rounded up to two digits.
    fn windows_to_see_a_shift(&self) {
        title(
            "The window that it takes to see a shift in 9 of 10 checks, reference 10 windows, significance 0.001, possible_drift at half of the shift's PSI",
        );
        head(&["bins", "shift in sigma", "1 feature", "one of 10", "one of 50", "one of 200"]);
        for bins in BINS {
            for shift in [0.1, 0.2, 0.3, 0.5, 1.0] {
                // What Bonferroni leaves to one feature of many.
                let mut wanted: VecDeque<Criteria> = FEATURES
                    .iter()
                    .map(|&features| Criteria {
                        significance: Criteria::default().significance / features as f64,
                        thresholds: Thresholds {
                            possible_drift: psi_of_shift(bins, shift) / 2.0,
                            drift: f64::MAX,
                        },
                        ..Criteria::default()
                    })
                    .collect();
                let random = &mut self.random();
                let mut found = vec![];
                let mut size = 20;
                while let Some(criteria) = wanted.front() {
                    self.progress(&format!("windows: {bins} bins, shift {shift}, window {size}"));
                    let pool = reference(10 * size, POOL, bins, random);
                    let source = Source::new(&pool, shift);
                    let windows: Vec<_> = (0..20).map(|_| source.window(size, random)).collect();
                    let mut alarms = Alarms::default();
                    measure(&mut alarms, criteria, &parts(&pool, 1, POOL), 1, &windows);
                    if alarms.0[1].mean() >= 0.9 {
                        wanted.pop_front();
                        found.push(size.to_string());
                    } else {
                        size = two_digits(size + size.div_ceil(20));
                    }
                }
                row([bins.to_string(), format!("{shift:.1}")].into_iter().chain(found));
            }
        }
        println!("\nWindows rise by a twentieth, rounded up to two digits: a tenth less may do. Of 4000 checks each.");
    }

    /// Shifts against PSI's thresholds.
    fn shifts(&self) {
        title("The PSI of a shift of a normal feature, without any noise");
        head(&["shift in sigma", "10 bins", "20 bins"]);
        for shift in [0.1, 0.2, 0.3, 0.33, 0.4, 0.5, 0.52, 0.75, 1.0] {
            row([shift.to_string()]
                .into_iter()
                .chain(BINS.map(|bins| format!("{:.4}", psi_of_shift(bins, shift)))));
        }
    }

    /// A stream of checks of one feature without drift: alarms come in runs, since windows share records.
    fn overlapping_windows(&self) {
        const CHECKS: usize = 5000;
        let [(_, plain), (_, significance), _] = settings();
        let criteria = [plain, significance, significant_alone()];
        title("No drift, one feature, 10 bins, reference 10000, windows that overlap: alarms per 1000 checks, in how many runs, checks in a run");
        head(&["window", "checked every", "without significance", "with", "significant, whatever its PSI"]);
        let mut errors = Errors::default();
        for (size, every) in [(100, 100), (100, 10), (200, 20), (500, 50), (1000, 1000), (1000, 100)] {
            self.progress(&format!("overlapping windows: {size} each {every}"));
            let random = &mut self.random();
            let pool = reference(REFERENCE, POOL, 10, random);
            let source = Source::new(&pool, 0.0);
            let mut figures = vec![[Figure::default(), Figure::default()]; criteria.len()];
            let references = parts(&pool, 1, POOL);
            let panes = usize::try_from(size / every).unwrap();
            // Of all features at once: a check of each after each pane.
            let mut window: VecDeque<Vec<Vec<u64>>> = (0..panes).map(|_| source.window(every, random)).collect();
            let mut was = vec![vec![true; POOL]; criteria.len()];
            let mut seen = vec![vec![[0.0, 0.0]; POOL]; criteria.len()];
            for _ in 0..CHECKS {
                window.rotate_left(1);
                *window.back_mut().unwrap() = source.window(every, random);
                for (feature, reference) in &references {
                    let mut counts = vec![0; 11];
                    for pane in &window {
                        zip(&mut counts, &pane[*feature]).for_each(|(count, more)| *count += more);
                    }
                    for ((criteria, was), seen) in zip(&criteria, &mut was).zip(&mut seen) {
                        let (checked, _) = check(criteria, reference, std::slice::from_ref(&counts));
                        let alarm = checked[0].check.status > Status::NoDrift;
                        seen[*feature][0] += f64::from(alarm);
                        seen[*feature][1] += f64::from(alarm && !was[*feature]);
                        was[*feature] = alarm;
                    }
                }
            }
            for (figures, seen) in zip(&mut figures, &seen) {
                for (index, figure) in figures.iter_mut().enumerate() {
                    figure.0 = seen.iter().map(|seen| seen[index] / CHECKS as f64).collect();
                }
            }
            let cells = figures.iter().map(|[alarms, runs]| {
                let length = if runs.mean() > 0.0 {
                    format!(", {:.1} each", alarms.mean() / runs.mean())
                } else {
                    String::new()
                };
                format!("{} in {}{length}", errors.per_1000(alarms), errors.per_1000(runs))
            });
            row([size.to_string(), every.to_string()].into_iter().chain(cells));
        }
        errors.print();
    }

    /// A reference is drawn once, and its chance is in every check from then on.
    fn unlucky_references(&self) {
        const WINDOW: u64 = 1000;
        const CHECKS: usize = 1000;
        title("No drift, one feature, 10 bins, window 1000: of 1000 checks, those that are significant, by reference");
        head(&["reference", "psi_null_mean", "mean over references", "exceeded in 1 of 100 references"]);
        let mut errors = Errors::default();
        for rows in [1000, 2000, 5000, 10_000, 100_000] {
            self.progress(&format!("unlucky references: {rows} rows"));
            let random = &mut self.random();
            let mut null_mean = 0.0;
            let mut significant = Figure::default();
            for _ in 0..self.checks.div_ceil(1000) {
                let pool = reference(rows, POOL, 10, random);
                let source = Source::new(&pool, 0.0);
                let parts = parts(&pool, 1, POOL);
                let mut seen = vec![0.0; POOL];
                for _ in 0..CHECKS {
                    let window = source.window(WINDOW, random);
                    for (feature, reference) in &parts {
                        let (checked, _) = check(&Criteria::default(), reference, &window[*feature..=*feature]);
                        seen[*feature] += f64::from(checked[0].check.significant == Some(true));
                        null_mean = checked[0].check.psi_null_mean;
                    }
                }
                significant.0.extend(seen.iter().map(|seen| seen / CHECKS as f64));
            }
            let worst = 1000.0 * Data::new(significant.0.clone()).percentile(99);
            row([
                rows.to_string(),
                format!("{null_mean:.4}"),
                errors.per_1000(&significant),
                format!("{worst:.0}"),
            ]);
        }
        errors.print();
    }
}

/// Adds to each figure its share of the checks of these windows by these parts of one reference.
fn measure(alarms: &mut Alarms, criteria: &Criteria, parts: &[(usize, Reference)], features: usize, windows: &[Vec<Vec<u64>>]) {
    let mut seen = [0.0; 4];
    for window in windows {
        for (from, reference) in parts {
            let (checked, summary) = check(criteria, reference, &window[*from..from + features]);
            let worst = checked.iter().map(|feature| feature.check.status).max();
            let verdicts = [worst, Some(summary.status)].map(|status| [Status::Drift, Status::PossibleDrift].map(|alarm| status >= Some(alarm)));
            zip(&mut seen, verdicts.as_flattened()).for_each(|(seen, alarm)| *seen += f64::from(*alarm));
        }
    }
    let checks = (windows.len() * parts.len()) as f64;
    zip(&mut alarms.0, seen).for_each(|(figure, seen)| figure.0.push(seen / checks));
}

/// What PSI is when a normal feature moves by so many standard deviations, in quantile bins and without any noise.
fn psi_of_shift(bins: usize, shift: f64) -> f64 {
    let normal = Normal::standard();
    let edges: Vec<f64> = (0..=bins).map(|edge| normal.inverse_cdf(edge as f64 / bins as f64)).collect();
    let counts = |mean: f64| -> Vec<u64> {
        let mass = |pair: &[f64]| normal.cdf(pair[1] - mean) - normal.cdf(pair[0] - mean);
        edges.windows(2).map(|pair| (1e12 * mass(pair)).round() as u64).collect()
    };
    psi(&counts(0.0), &counts(shift), Criteria::default().epsilon)
}

/// Rounded up to two digits.
fn two_digits(number: u64) -> u64 {
    let step = 10_u64.pow(number.ilog10().saturating_sub(1));
    number.div_ceil(step) * step
}
