//! Each metric against its definition on the values themselves, and where it is not defined.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::binning::quantile_edges;
use crate::record::{Missing, Side};

/// What counts say of values: bins (the missing one last), and how many lie beside the range.
fn count(bins: &Bins, values: &[f64]) -> (Vec<u64>, (u64, u64)) {
    let (mut counts, mut below, mut above) = (vec![0; bins.missing(Missing::Null).bin as usize + 1], 0, 0);
    for value in values {
        let observation = bins.observe_number(*value);
        counts[observation.bin as usize] += 1;
        below += u64::from(observation.side == Side::Below);
        above += u64::from(observation.side == Side::Above);
    }
    (counts, (below, above))
}

fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| {
        (low.min(value), high.max(value))
    })
}

/// The differences of the cumulative fractions at each value of both samples, with the length of the step to the next.
fn steps(reference: &[f64], window: &[f64]) -> Vec<(f64, f64)> {
    let mut places: Vec<f64> = reference.iter().chain(window).copied().collect();
    places.sort_by(f64::total_cmp);
    let share = |values: &[f64], at: f64| values.iter().filter(|&&value| value <= at).count() as f64 / values.len() as f64;
    let next = places.iter().skip(1).chain(places.last());
    std::iter::zip(&places, next)
        .map(|(&at, next)| ((share(reference, at) - share(window, at)).abs(), next - at))
        .collect()
}

fn ks_of_values(reference: &[f64], window: &[f64]) -> f64 {
    steps(reference, window).iter().fold(0.0, |most, (gap, _)| gap.max(most))
}

fn wasserstein_of_values(reference: &[f64], window: &[f64]) -> f64 {
    steps(reference, window).iter().map(|(gap, step)| gap * step).sum()
}

/// How far the values lie from the range, on average.
fn excess(values: &[f64], (low, high): (f64, f64)) -> f64 {
    values.iter().map(|value| (low - value).max(value - high).max(0.0)).sum::<f64>() / values.len() as f64
}

fn values() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(prop_oneof![-50.0..50.0_f64, (-9..9_i32).prop_map(f64::from)], 1..80)
}

proptest! {
    #[test]
    fn binned_ks_and_wasserstein_are_within_their_bounds(reference in values(), window in values(), parts in 1_usize..12, explicit: bool) {
        let mut sorted = reference.clone();
        sorted.sort_by(f64::total_cmp);
        let edges = if explicit { vec![-60.0, -7.5, 0.0, 3.0, 55.0] } else { quantile_edges(&sorted, parts) };
        let (low, high) = range(&reference);
        let bins = Bins::Edges { edges: edges.clone().into(), range: Some((low, high)) };
        let ((before, _), (now, sides)) = (count(&bins, &reference), count(&bins, &window));

        // Of the values within the range: of each bin both masses and its width.
        let within: Vec<f64> = window.iter().copied().filter(|value| (low..=high).contains(value)).collect();
        let now_within = count(&bins, &within).0;
        let share = |counts: &[u64], bin: usize, whole: usize| counts[bin] as f64 / whole as f64;
        let end = |bin: Option<usize>, open: f64| bin.and_then(|bin| edges.get(bin)).map_or(open, |edge| edge.clamp(low, high));
        let bound: Vec<(f64, f64, f64)> = (0..=edges.len())
            .map(|bin| (share(&before, bin, reference.len()), share(&now_within, bin, window.len()), end(Some(bin), high) - end(bin.checked_sub(1), low)))
            .collect();

        let error = ks_of_values(&reference, &window) - ks(&bins, &before, &now, sides).unwrap();
        let most = bound.iter().filter(|(.., width)| *width > 0.0).fold(0.0, |most, (p, q, _)| p.min(*q).max(most));
        prop_assert!((-1e-12..=most + 1e-12).contains(&error), "ks: error {error}, bound {most}");

        let wasserstein = wasserstein(&bins, &before, &now, sides);
        prop_assert_eq!(wasserstein.is_none(), low == high);
        let error = wasserstein.map_or(0.0, |wasserstein| wasserstein_of_values(&reference, &window) - wasserstein);
        let widths: f64 = bound.iter().map(|(p, q, width)| (p + q) * width / 2.0).sum();
        let beyond = excess(&window, (low, high));
        prop_assert!((-widths - 1e-9..=widths + beyond + 1e-9).contains(&error), "wasserstein: error {error}, bound {widths} + {beyond}");
    }

    #[test]
    fn discrete_values_are_exact_but_for_others_within_the_range(
        reference in prop::collection::vec((0..8_i32).prop_map(|value| f64::from(value) * 2.0), 1..80),
        window in prop::collection::vec((-3..19_i32).prop_map(f64::from), 1..80)
    ) {
        let mut values = reference.clone();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let (low, high) = range(&reference);
        let bins = Bins::Discrete { values: values.into(), range: Some((low, high)) };
        let ((before, _), (now, sides)) = (count(&bins, &reference), count(&bins, &window));
        let unknown = (now[now.len() - 2] - sides.0 - sides.1) as f64 / window.len() as f64;
        let (ks, wasserstein) = (ks(&bins, &before, &now, sides), wasserstein(&bins, &before, &now, sides));
        prop_assert_eq!(ks.is_none(), unknown == 1.0);
        prop_assert_eq!(wasserstein.is_none(), unknown == 1.0 || low == high);
        if let Some(ks) = ks {
            prop_assert!((ks_of_values(&reference, &window) - ks).abs() <= unknown + 1e-12);
        }
        if let Some(wasserstein) = wasserstein {
            let error = wasserstein_of_values(&reference, &window) - wasserstein;
            let (most, beyond) = (unknown * (high - low), excess(&window, (low, high)));
            prop_assert!((-most - 1e-9..=most + beyond + 1e-9).contains(&error), "error {error}, bound {most} + {beyond}");
        }
    }

    #[test]
    fn js_distance_is_symmetric_between_zero_and_one_and_zero_on_a_multiple(
        pairs in prop::collection::vec((0_u64..5000, 0_u64..5000), 1..30), times in 1_u64..9
    ) {
        let (reference, window): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let distance = js_distance(&reference, &window);
        prop_assert_eq!(distance, js_distance(&window, &reference));
        prop_assert!(distance.is_none_or(|distance| (0.0..=1.0).contains(&distance)));
        let multiple: Vec<_> = reference.iter().map(|count| count * times).collect();
        prop_assert!(js_distance(&reference, &multiple).is_none_or(|distance| distance == 0.0));
    }
}

#[test]
fn js_distance_is_one_when_nothing_is_shared() {
    assert_eq!(js_distance(&[3, 0, 2], &[0, 7, 0]), Some(1.0));
}

#[test]
fn constant_that_moves_out_of_the_range_is_seen() {
    let bins = Bins::Discrete {
        values: [5.0].into(),
        range: Some((5.0, 5.0)),
    };
    assert_eq!(ks(&bins, &[50, 0, 0], &[0, 20, 0], (0, 20)), Some(1.0));
    assert_eq!(
        wasserstein(&bins, &[50, 0, 0], &[0, 20, 0], (0, 20)),
        None,
        "how far it moved, no count says"
    );
}

#[test]
fn side_without_values_has_no_order_to_compare() {
    let bins = Bins::Edges {
        edges: [1.0].into(),
        range: Some((0.0, 2.0)),
    };
    for (reference, window) in [([5, 5, 0], [0, 0, 9]), ([0, 0, 9], [5, 5, 0]), ([5, 5, 0], [0, 0, 0])] {
        assert_eq!(ks(&bins, &reference, &window, (0, 0)), None);
        assert_eq!(wasserstein(&bins, &reference, &window, (0, 0)), None);
    }
    assert_eq!(js_distance(&[5, 5, 0], &[0, 0, 0]), None);
    assert_eq!(js_distance(&[5, 5, 0], &[0, 0, 9]), Some(1.0), "missing is a bin");
}

#[test]
fn one_bin_tells_by_the_range_alone() {
    let bins = Bins::Edges {
        edges: [].into(),
        range: Some((0.0, 4.0)),
    };
    assert_eq!(ks(&bins, &[8, 0], &[4, 0], (0, 0)), Some(0.0));
    assert_eq!(ks(&bins, &[8, 0], &[4, 0], (1, 0)), Some(0.25));
    assert_eq!(
        wasserstein(&bins, &[8, 0], &[4, 0], (1, 0)),
        Some(0.5),
        "a quarter stands at 0, and not in the middle"
    );
}

#[test]
fn range_that_is_not_known_leaves_the_places_unknown_and_not_the_order() {
    let bins = Bins::Edges {
        edges: [1.0].into(),
        range: None,
    };
    assert_eq!(ks(&bins, &[8, 0, 0], &[2, 2, 0], (0, 0)), Some(0.5));
    assert_eq!(wasserstein(&bins, &[8, 0, 0], &[2, 2, 0], (0, 0)), None);
}

#[test]
fn area_beyond_the_doubles_is_none_and_not_infinite() {
    let bins = Bins::Edges {
        edges: [0.0].into(),
        range: Some((-1.7e308, 1.7e308)),
    };
    let found = wasserstein(&bins, &[8, 0, 0], &[0, 8, 0], (0, 0)).unwrap();
    assert!((found - 1.7e308).abs() < 1e293, "{found}");
    assert_eq!(wasserstein(&bins, &[8, 0, 0], &[0, 8, 0], (0, 8)), None);
}

#[test]
fn categories_have_no_order() {
    let bins = Bins::Categorical {
        categories: Arc::new(BTreeMap::from([("a".to_owned(), 0)])),
    };
    assert_eq!(ks(&bins, &[5, 0, 0], &[5, 0, 0], (0, 0)), None);
    assert_eq!(wasserstein(&bins, &[5, 0, 0], &[5, 0, 0], (0, 0)), None);
    let defined: Vec<&str> = Metric::ALL
        .iter()
        .filter(|metric| metric.is_defined_for(&bins))
        .map(|metric| metric.as_str())
        .collect();
    assert_eq!(defined, ["psi", "js", "chi2"]);
}

#[test]
fn metrics_read_and_print_as_in_a_configuration() {
    for metric in Metric::ALL {
        assert_eq!(metric.to_string().parse(), Ok(metric));
    }
    let error = "hellinger".parse::<Metric>().unwrap_err();
    assert_eq!(error.to_string(), "metric \"hellinger\": allowed are psi, js, ks, wasserstein, chi2");
}
