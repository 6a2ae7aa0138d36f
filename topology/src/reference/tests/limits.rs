//! References of more rows than a builder may keep.

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::batch::Batch;
use crate::drift::Criteria;
use crate::reference::quantile_sketch::RESOLUTION;

const SMALL: Limits = Limits {
    numbers: 1000,
    text_bytes: 10_000,
};

fn numbers(seed: u64, rows: u64) -> Vec<f64> {
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let share = || (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    // Skewed, so that values and ranks differ.
    std::iter::repeat_with(share)
        .map(|share| (1.0 / (1.0 - share)).powi(2))
        .take(rows as usize)
        .collect()
}

/// Builds within limits, in as many passes as it takes; says how many.
fn build_within(limits: Limits, columns: &[(&str, ColumnType)], rows: &[Vec<Cell<'_>>], binning: &str) -> (Reference, Vec<Warning>, u32) {
    let columns: Vec<_> = columns.iter().map(|(name, column)| ((*name).to_owned(), *column)).collect();
    let mut builder = ReferenceBuilder::new("default", &columns, &binning.parse().unwrap(), &[], 5)
        .unwrap()
        .within(limits);
    rows.iter().for_each(|row| builder.push_row(row.iter().copied()));
    match builder.end().unwrap() {
        Pass::Built(reference, warnings) => (reference, warnings, 1),
        Pass::Again(mut recount) => {
            rows.iter().for_each(|row| recount.push_row(row.iter().copied()));
            let (reference, warnings) = recount.finish().unwrap();
            (reference, warnings, 2)
        }
    }
}

fn rows_of(numbers: &[f64]) -> Vec<Vec<Cell<'_>>> {
    numbers.iter().map(|number| vec![Cell::Number(*number)]).collect()
}

fn rows_of_texts(texts: &[String]) -> Vec<Vec<Cell<'_>>> {
    texts.iter().map(|text| vec![Cell::Text(text)]).collect()
}

fn edges(reference: &Reference) -> &[f64] {
    match reference.features()[0].bins() {
        Bins::Edges { edges, .. } => edges,
        other => panic!("{other:?}"),
    }
}

/// PSI of each feature when the rows are checked against the reference.
fn psi_of(reference: &Reference, rows: &[Vec<Cell<'_>>]) -> Vec<f64> {
    let mut batch = Batch::new(Arc::new(reference.clone()));
    rows.iter().for_each(|row| batch.push_cells(row.iter().copied().map(Some)).unwrap());
    batch.check(&Criteria::default()).0.iter().map(|feature| feature.check.psi).collect()
}

#[test]
fn edges_of_a_sketched_column_are_within_its_rank_error() {
    let numbers = numbers(1, 50_000);
    let (reference, warnings, passes) = build_within(SMALL, &[("a", ColumnType::Number)], &rows_of(&numbers), "auto:20");
    assert_eq!(passes, 2);
    assert_eq!(
        warnings,
        [Warning::SketchedQuantiles {
            features: vec!["a".to_owned()]
        }]
    );
    let mut sorted = numbers;
    sorted.sort_unstable_by(f64::total_cmp);
    let edges = edges(&reference);
    assert_eq!(edges.len(), 19);
    for (edge, i) in edges.iter().zip(1..) {
        let rank = sorted.partition_point(|number| number < edge) as u64;
        let exact = 49_999 * i / 20;
        assert!(rank.abs_diff(exact) <= 50_000 / (2 * RESOLUTION), "edge {i} has rank {rank}, not {exact}");
    }
}

#[test]
fn counts_of_a_sketched_column_are_exact() {
    let numbers = numbers(2, 20_000);
    let rows = rows_of(&numbers);
    let (reference, _, _) = build_within(SMALL, &[("a", ColumnType::Number)], &rows, "quantile:10");
    let edges = edges(&reference);
    let mut counts = vec![0; edges.len() + 1];
    numbers.iter().for_each(|number| counts[edges.partition_point(|edge| edge < number)] += 1);
    counts.push(0);
    assert_eq!(reference.features()[0].counts(), counts);
    assert_eq!(psi_of(&reference, &rows), [0.0]);
    assert_eq!(Reference::from_json(&reference.to_json()).unwrap().version(), reference.version());
}

#[test]
fn range_rises_and_few_values_are_exact_beyond_the_limits() {
    let rows: Vec<Vec<Cell<'_>>> = (0..30_000_u32)
        .map(|i| {
            let rising = f64::from(i).mul_add(0.5, -3.0);
            vec![Cell::Number(rising), Cell::Number(f64::from(i % 20)), Cell::Number(f64::from(i % 21))]
        })
        .collect();
    let columns = [("rising", ColumnType::Number), ("few", ColumnType::Number), ("more", ColumnType::Number)];
    let (reference, warnings, _) = build_within(SMALL, &columns, &rows, "auto");
    let [rising, few, more] = reference.features() else {
        panic!("three features")
    };
    assert_eq!(rising.range(), Some((-3.0, 14_996.5)));
    assert!(warnings.contains(&Warning::OnlyRises {
        feature: "rising".to_owned()
    }));
    assert_eq!((few.binning(), more.binning()), ("discrete", "quantile"));
    assert_eq!(few.counts()[..20], [1500; 20]);
    assert!(
        warnings.contains(&Warning::SketchedQuantiles {
            features: vec!["rising".to_owned(), "more".to_owned()]
        }),
        "{warnings:?}"
    );
}

#[test]
fn binnings_without_quantiles_are_exact_beyond_the_limits() {
    let numbers: Vec<f64> = (0..9000).map(|i| f64::from(i % 900)).collect();
    for binning in ["uniform:7", "edges:3,500,2000", "discrete"] {
        let (expected, _, passes) = build_within(Limits::NONE, &[("a", ColumnType::Number)], &rows_of(&numbers), binning);
        assert_eq!(passes, 1);
        let (reference, warnings, passes) = build_within(SMALL, &[("a", ColumnType::Number)], &rows_of(&numbers), binning);
        assert_eq!((reference.to_json(), passes), (expected.to_json(), 2), "{binning}");
        assert!(
            !warnings.iter().any(|warning| matches!(warning, Warning::SketchedQuantiles { .. })),
            "{binning}"
        );
    }
}

#[test]
fn column_that_fits_is_exact_beside_one_that_does_not() {
    let numbers = numbers(3, 5000);
    let rows: Vec<Vec<Cell<'_>>> = numbers
        .iter()
        .zip(0..)
        .map(|(number, i)| vec![Cell::Number(*number), if i % 10 == 0 { Cell::Number(*number) } else { Cell::Missing }])
        .collect();
    let columns = [("dense", ColumnType::Number), ("sparse", ColumnType::Number)];
    let (reference, warnings, _) = build_within(SMALL, &columns, &rows, "quantile:10");
    let (expected, _, _) = build_within(Limits::NONE, &columns, &rows, "quantile:10");
    assert_eq!(
        warnings,
        [Warning::SketchedQuantiles {
            features: vec!["dense".to_owned()]
        }]
    );
    let sparse = |reference: &Reference| format!("{:?}", reference.features()[1].document);
    assert_eq!(sparse(&reference), sparse(&expected));
    assert_ne!(reference.version(), expected.version());
}

#[test]
fn frequent_texts_beyond_the_limits_are_those_of_all_texts() {
    // Six that are frequent, in 40,000 that come up once.
    let texts: Vec<String> = (0..80_000_u32)
        .map(|i| {
            if i % 2 == 0 {
                format!("often {}", i / 2 % 64 % 6)
            } else {
                format!("once {i}")
            }
        })
        .collect();
    let rows = rows_of_texts(&texts);
    let (expected, _, _) = build_within(Limits::NONE, &[("a", ColumnType::Text)], &rows, "auto");
    let (reference, warnings, passes) = build_within(SMALL, &[("a", ColumnType::Text)], &rows, "auto");
    assert_eq!(
        (String::from_utf8(reference.to_json()), passes),
        (String::from_utf8(expected.to_json()), 2)
    );
    assert!(
        !warnings.iter().any(|warning| matches!(warning, Warning::SketchedCategories { .. })),
        "{warnings:?}"
    );
    assert_eq!(psi_of(&reference, &rows), [0.0]);
}

#[test]
fn texts_that_may_be_as_frequent_as_one_with_a_bin_are_told_of_and_counts_are_exact() {
    let texts: Vec<String> = (0..20_000_u32).map(|i| format!("text {}", i % 5000)).collect();
    let rows = rows_of_texts(&texts);
    let (reference, warnings, _) = build_within(SMALL, &[("a", ColumnType::Text)], &rows, "auto");
    let bound = warnings.iter().find_map(|warning| match warning {
        Warning::SketchedCategories { rows, .. } => Some(*rows),
        _ => None,
    });
    // 10,000 bytes hold 130 such texts; half of them go at a time.
    assert!(bound.is_some_and(|bound| bound <= 2 * 20_000 / 130), "{warnings:?}");
    assert_eq!(reference.features()[0].counts(), [4, 4, 4, 4, 4, 19_980, 0]);
    assert_eq!(psi_of(&reference, &rows), [0.0]);
}

#[test]
fn rows_that_change_between_the_passes_are_an_error_in_words() {
    let mut builder = ReferenceBuilder::new("default", &[("a".to_owned(), ColumnType::Number)], &Binning::Auto { bins: 10 }, &[], 5)
        .unwrap()
        .within(SMALL);
    numbers(4, 2000).iter().for_each(|number| builder.push_row([Cell::Number(*number)]));
    let Pass::Again(mut recount) = builder.end().unwrap() else {
        panic!("more than fits")
    };
    recount.push_row([Cell::Number(1.0)]);
    let text = recount.finish().unwrap_err().to_string();
    assert!(text.contains("had 2000 rows when they were read first and 1 when"), "{text}");
}

#[test]
fn too_many_values_for_discrete_bins_are_an_error_beyond_the_limits_too() {
    let mut builder = ReferenceBuilder::new("default", &[("a".to_owned(), ColumnType::Number)], &Binning::Discrete, &[], 5)
        .unwrap()
        .within(SMALL);
    (0..1500).for_each(|i| builder.push_row([Cell::Number(f64::from(i))]));
    let text = builder.end().err().unwrap().to_string();
    assert!(text.contains("more than 1000 distinct values; discrete takes at most 1000"), "{text}");
}

proptest! {
    #[test]
    fn reference_that_fits_is_the_same_with_limits_and_a_larger_one_has_exact_counts(
        cells in prop::collection::vec(
            (prop_oneof![(-30..30_i32).prop_map(f64::from), -1e308..1e308_f64], 0..30_u8, 0..12_u8), 1..400,
        ),
        room in 0..900_usize,
    ) {
        let texts: Vec<String> = (0..30).map(|i| format!("text {i}")).collect();
        let rows: Vec<Vec<Cell<'_>>> = cells
            .iter()
            .map(|(number, text, missing)| {
                let number = if *missing == 0 { Cell::Missing } else { Cell::Number(*number) };
                let text = if *missing == 1 { Cell::Missing } else { Cell::Text(&texts[usize::from(*text)]) };
                vec![number, Cell::Number(f64::from(*missing)), text]
            })
            .collect();
        let columns = [("a", ColumnType::Number), ("b", ColumnType::Number), ("c", ColumnType::Text)];
        prop_assume!(cells.iter().any(|(_, _, missing)| *missing > 1));
        let limits = Limits { numbers: room, text_bytes: room * 3 };
        let (expected, expected_warnings, _) = build_within(Limits::NONE, &columns, &rows, "auto");
        let (reference, warnings, passes) = build_within(limits, &columns, &rows, "auto");
        prop_assert!(psi_of(&reference, &rows).iter().all(|psi| *psi == 0.0));
        if passes == 1 {
            prop_assert_eq!(reference.to_json(), expected.to_json());
            prop_assert_eq!(warnings, expected_warnings);
        }
    }
}
