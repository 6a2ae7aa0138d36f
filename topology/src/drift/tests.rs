//! What a check says of counts: thresholds, significance, the metric that decides, the summary.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::binning::Binning;
use crate::reference::{Cell, ColumnType, ReferenceBuilder};
use crate::significance::Correction;

/// A reference of numeric features with the edge 0 and the range -1 to 1, with so many rows left and right of the edge.
fn reference(features: &[(&str, [u64; 2])]) -> Reference {
    let columns: Vec<_> = features.iter().map(|(name, _)| ((*name).to_owned(), ColumnType::Number)).collect();
    let mut builder = ReferenceBuilder::new("default", &columns, &Binning::Edges(vec![0.0]), &[], 50).unwrap();
    let rows = features.iter().map(|(_, [left, right])| left + right).max().unwrap();
    for row in 0..rows {
        builder.push_row(features.iter().map(|(_, [left, right])| match row {
            _ if row < *left => Cell::Number(-1.0),
            _ if row < left + right => Cell::Number(1.0),
            _ => Cell::Missing,
        }));
    }
    builder.finish().unwrap().0
}

/// The bins of each feature.
struct Window<const FEATURES: usize>([[u64; 3]; FEATURES]);

impl<const FEATURES: usize> Counts for Window<FEATURES> {
    fn records(&self) -> u64 {
        self.0[0].iter().sum()
    }

    fn bins(&self, _: &Layout, feature: usize) -> Vec<u64> {
        self.0[feature].to_vec()
    }

    fn sides(&self, _: &Layout, _: usize) -> (u64, u64) {
        (0, 0)
    }
}

fn check<const FEATURES: usize>(criteria: &Criteria, reference: &Reference, window: [[u64; 3]; FEATURES]) -> (Vec<FeatureCheck>, Summary) {
    let (checked, summary) = criteria.check_all(reference, &Layout::new([]), &Window(window));
    (checked.into_iter().map(|feature| feature.check).collect(), summary)
}

/// Of one feature.
fn check_one(criteria: &Criteria, [left, right]: [u64; 2], window: [u64; 3]) -> FeatureCheck {
    check(criteria, &reference(&[("x", [left, right])]), [window]).0[0]
}

fn statuses(checks: &[FeatureCheck]) -> Vec<Status> {
    checks.iter().map(|check| check.status).collect()
}

fn with_significance(significance: f64) -> Criteria {
    Criteria {
        significance,
        ..Criteria::default()
    }
}

/// Without significance.
fn trusting() -> Criteria {
    with_significance(0.0)
}

#[test]
fn threshold_itself_belongs_to_the_higher_status() {
    let thresholds = Thresholds::default();
    assert_eq!(thresholds.status(0.1_f64.next_down()), Status::NoDrift);
    assert_eq!(thresholds.status(0.1), Status::PossibleDrift);
    assert_eq!(thresholds.status(0.25_f64.next_down()), Status::PossibleDrift);
    assert_eq!(thresholds.status(0.25), Status::Drift);
}

#[test]
fn large_psi_that_can_be_chance_is_no_drift() {
    let doubting = check_one(&with_significance(0.001), [500, 500], [1, 0, 0]);
    assert!(doubting.psi > 1.0);
    assert_eq!((doubting.significant, doubting.status), (Some(false), Status::NoDrift));
    let trusting = check_one(&trusting(), [500, 500], [1, 0, 0]);
    assert_eq!((trusting.significant, trusting.status), (None, Status::Drift));
}

#[test]
fn level_is_shared_among_the_features_of_a_check() {
    let (one, two) = (reference(&[("x", [5000, 5000])]), reference(&[("x", [5000, 5000]), ("y", [5000, 5000])]));
    let window = [70, 30, 0];
    let p = check(&trusting(), &one, [window]).0[0].p_value;
    let significant = |level, correction| {
        let criteria = Criteria {
            correction,
            ..with_significance(level)
        };
        (
            check(&criteria, &one, [window]).0[0].significant,
            check(&criteria, &two, [window, window]).0[0].significant,
        )
    };
    assert_eq!(significant(p * 1.5, Correction::Bonferroni), (Some(true), Some(false)));
    assert_eq!(
        significant(p * 1.5, Correction::BenjaminiHochberg),
        (Some(true), Some(true)),
        "both are below 2 / 2 of the level"
    );
    assert_eq!(
        significant(p, Correction::Bonferroni).0,
        Some(false),
        "p must be below the level, not at it"
    );
}

#[test]
fn top_bin_is_the_first_of_equals_and_absent_when_psi_is_zero() {
    assert_eq!(top(&[0.0, 0.2, 0.1, 0.2]), Some((1, 0.2)));
    assert_eq!(check_one(&trusting(), [5, 5], [5, 5, 0]).top, None);
}

#[test]
fn only_the_metrics_that_are_asked_for_are_measured_and_the_one_that_decides() {
    let measured = |metrics: &[Metric], decided_by| {
        let criteria = Criteria {
            metrics: metrics.iter().copied().collect(),
            decided_by,
            ..trusting()
        };
        let measurements = check_one(&criteria, [50, 50], [30, 70, 0]).measurements;
        Metric::ALL
            .into_iter()
            .filter(|&metric| measurements.get(metric).is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(measured(&[Metric::Psi], Metric::Psi), []);
    assert_eq!(measured(&Metric::ALL, Metric::Psi), Metric::ALL[1..]);
    assert_eq!(measured(&[Metric::Chi2], Metric::Ks), [Metric::Ks, Metric::Chi2]);
}

#[test]
fn metrics_that_do_not_decide_change_nothing_else() {
    let all = Criteria {
        metrics: BTreeSet::from(Metric::ALL),
        ..Criteria::default()
    };
    let window = [300, 690, 10];
    let (plain, rich) = (check_one(&Criteria::default(), [500, 500], window), check_one(&all, [500, 500], window));
    assert_eq!(
        FeatureCheck {
            measurements: Measurements::default(),
            ..rich
        },
        plain
    );
}

#[test]
fn metric_that_decides_has_thresholds_in_its_own_unit() {
    // KS is 0.2, Wasserstein 0.2 * 1 (the middles are -0.5 and 0.5), PSI 0.17.
    let status = |decided_by, possible_drift, drift| {
        let criteria = Criteria {
            decided_by,
            thresholds: Thresholds { possible_drift, drift },
            ..trusting()
        };
        check_one(&criteria, [50, 50], [30, 70, 0]).status
    };
    assert_eq!(status(Metric::Psi, 0.1, 0.19), Status::PossibleDrift);
    assert_eq!(status(Metric::Ks, 0.1, 0.19), Status::Drift);
    assert_eq!(status(Metric::Ks, 0.1, 0.21), Status::PossibleDrift);
    assert_eq!(status(Metric::Wasserstein, 0.21, 0.3), Status::NoDrift);
    assert_eq!(status(Metric::Js, 0.1, 0.5), Status::PossibleDrift);
}

#[test]
fn what_can_be_chance_is_no_drift_whatever_decides() {
    let criteria = Criteria {
        decided_by: Metric::Ks,
        ..Criteria::default()
    };
    let check = check_one(&criteria, [500, 500], [1, 0, 0]);
    assert_eq!((check.measurements.ks, check.status), (Some(0.5), Status::NoDrift));
}

#[test]
fn psi_decides_where_the_deciding_metric_is_not_defined() {
    let criteria = Criteria {
        decided_by: Metric::Ks,
        thresholds: Thresholds {
            possible_drift: 0.9,
            drift: 0.95,
        },
        ..trusting()
    };
    let gone = check_one(&criteria, [50, 50], [0, 0, 100]);
    assert_eq!((gone.measurements.ks, gone.status), (None, Status::Drift), "all values are missing");

    let mut builder = ReferenceBuilder::new("default", &[("plan".to_owned(), ColumnType::Text)], &Binning::Categorical, &[], 50).unwrap();
    (0..100).for_each(|_| builder.push_row([Cell::Text("basic")]));
    let categories = builder.finish().unwrap().0;
    let window = [[90, 10, 0]];
    let (checks, _) = check(&criteria, &categories, window);
    assert_eq!(
        (checks[0].measurements.ks, checks[0].status),
        (None, Status::Drift),
        "by PSI's thresholds, 0.1 and 0.25"
    );
    let own = Criteria {
        feature_thresholds: BTreeMap::from([(
            "plan".to_owned(),
            Thresholds {
                possible_drift: 0.2,
                drift: 5.0,
            },
        )]),
        ..criteria
    };
    assert_eq!(own.decision(&categories.features()[0]).0, Metric::Psi);
    assert_eq!(
        check(&own, &categories, window).0[0].status,
        Status::PossibleDrift,
        "by its own, which are PSI's"
    );
}

#[test]
fn feature_may_have_thresholds_of_its_own() {
    let reference = reference(&[("x", [50, 50]), ("y", [50, 50])]);
    let criteria = Criteria {
        feature_thresholds: BTreeMap::from([(
            "y".to_owned(),
            Thresholds {
                possible_drift: 0.01,
                drift: 0.02,
            },
        )]),
        ..trusting()
    };
    let (checks, _) = check(&criteria, &reference, [[42, 58, 0]; 2]);
    assert_eq!(statuses(&checks), [Status::NoDrift, Status::Drift]);
}

#[test]
fn summary_needs_one_significant_feature() {
    let reference = reference(&[("x", [500, 500]), ("y", [500, 500])]);
    let quiet = [1, 0, 0];
    let loud = [1000, 0, 0];
    let (checks, summary) = check(&Criteria::default(), &reference, [quiet, quiet]);
    assert!(summary.psi > 1.0);
    assert_eq!((statuses(&checks), summary.status), (vec![Status::NoDrift; 2], Status::NoDrift));
    let (checks, summary) = check(&Criteria::default(), &reference, [quiet, loud]);
    assert_eq!(statuses(&checks), [Status::NoDrift, Status::Drift]);
    assert_eq!(
        summary,
        Summary {
            psi: (checks[0].psi + checks[1].psi) / 2.0,
            status: Status::Drift,
            feature_count: 2,
            drifted_features: 1
        }
    );
    assert_eq!(check(&trusting(), &reference, [quiet, quiet]).1.status, Status::Drift);
}

#[test]
fn mean_weighs_the_features_that_have_a_weight() {
    let reference = reference(&[("x", [50, 50]), ("y", [50, 50])]);
    let window = [[50, 50, 0], [20, 80, 0]];
    let weighted = |weights: &[(&str, f64)]| {
        let criteria = Criteria {
            weights: weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect(),
            ..trusting()
        };
        let (checks, summary) = check(&criteria, &reference, window);
        (checks[1].psi, summary.psi, summary.status)
    };
    let (psi, mean, status) = weighted(&[]);
    assert_eq!((mean, status), (psi / 2.0, Status::PossibleDrift));
    let (_, mean, status) = weighted(&[("y", 3.0)]);
    assert_eq!((mean, status), (3.0 * psi / 4.0, Status::Drift));
    let (_, mean, status) = weighted(&[("x", 7.0)]);
    assert_eq!((mean, status), (psi / 8.0, Status::NoDrift));
}

#[test]
fn mean_is_that_of_psi_against_its_thresholds_whatever_decides_on_the_features() {
    let criteria = Criteria {
        decided_by: Metric::Wasserstein,
        thresholds: Thresholds {
            possible_drift: 1e6,
            drift: 2e6,
        },
        ..trusting()
    };
    let (checks, summary) = check(&criteria, &reference(&[("x", [50, 50])]), [[10, 90, 0]]);
    assert_eq!((checks[0].status, summary.status), (Status::NoDrift, Status::Drift));
    assert_eq!(summary.psi, checks[0].psi);
}

#[test]
fn share_rule_needs_the_share_of_features_in_drift() {
    let reference = reference(&[("a", [50, 50]), ("b", [50, 50]), ("c", [50, 50]), ("d", [50, 50])]);
    let (quiet, possible, loud) = ([50, 50, 0], [34, 66, 0], [5, 95, 0]);
    let summary = |at_least, window| {
        let criteria = Criteria {
            summary: SummaryRule::Share { at_least },
            ..trusting()
        };
        check(&criteria, &reference, window).1
    };
    let status = |at_least, window| summary(at_least, window).status;
    assert_eq!(status(0.5, [loud, quiet, quiet, quiet]), Status::NoDrift, "its mean PSI is drift");
    assert_eq!(status(0.25, [loud, quiet, quiet, quiet]), Status::Drift, "the share itself is enough");
    assert_eq!(status(0.5, [loud, possible, quiet, quiet]), Status::PossibleDrift);
    assert_eq!(status(0.5, [loud, loud, quiet, quiet]), Status::Drift);
    assert_eq!(status(1.0, [loud, loud, loud, possible]), Status::PossibleDrift);
    let found = summary(0.5, [loud, possible, quiet, quiet]);
    assert_eq!((found.drifted_features, found.feature_count), (1, 4));
    assert!(found.psi > 0.25, "psi stays the mean");
}

#[test]
fn each_senseless_setting_is_named_with_its_value() {
    let text = |change: fn(&mut Criteria)| {
        let mut criteria = Criteria::default();
        change(&mut criteria);
        criteria.validate().unwrap_err().to_string()
    };
    let thresholds = |possible_drift, drift| Thresholds { possible_drift, drift };
    assert_eq!(Criteria::default().validate(), Ok(()));
    assert!(text(|criteria| criteria.thresholds.drift = 0.05).starts_with("thresholds possible_drift = 0.1 and drift = 0.05"));
    let own = Criteria {
        feature_thresholds: BTreeMap::from([("x".to_owned(), thresholds(0.5, 0.4))]),
        ..Criteria::default()
    };
    let error = own.validate().unwrap_err().to_string();
    assert!(
        error.starts_with("thresholds of feature \"x\": possible_drift = 0.5 and drift = 0.4"),
        "{error}"
    );
    assert!(text(|criteria| criteria.decided_by = Metric::Chi2).contains("how sure a change is and not how large"));
    assert!(text(|criteria| criteria.summary = SummaryRule::Share { at_least: 0.0 }).contains("at_least = 0"));
    assert!(text(|criteria| criteria.summary = SummaryRule::Share { at_least: f64::NAN }).contains("at_least = NaN"));
    assert!(text(|criteria| criteria.summary = SummaryRule::Share { at_least: 1.5 }).contains("at_least = 1.5"));
    for weight in [0.0, -1.0, f64::INFINITY, f64::NAN, 1e10] {
        let criteria = Criteria {
            weights: BTreeMap::from([("x".to_owned(), weight)]),
            ..Criteria::default()
        };
        assert!(
            criteria.validate().unwrap_err().to_string().contains("weight of feature \"x\""),
            "{weight}"
        );
    }
}

#[test]
fn texts_of_a_status_are_one() {
    for status in [Status::NoDrift, Status::PossibleDrift, Status::Drift] {
        assert_eq!(serde_json::to_string(&status).unwrap(), format!("{:?}", status.as_str()));
    }
}
