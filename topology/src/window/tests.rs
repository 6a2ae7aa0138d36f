use proptest::prelude::*;

use super::*;
use crate::record::Side;

fn window(size: u64, every: u64) -> CountWindow {
    CountWindow::new(size, every).unwrap()
}

fn row(bin: u32) -> [Observation; 1] {
    [Observation {
        bin,
        side: Side::Within,
        missing: None,
    }]
}

fn checks(settings: CountWindow, start: u64, min_samples: u64, until: u64) -> Vec<u64> {
    (start..=until)
        .filter(|&k| settings.is_due(RecordNumber(k), RecordNumber(start), min_samples))
        .collect()
}

#[test]
fn settings_that_do_not_divide_are_refused() {
    for (size, every) in [(1000, 0), (0, 100), (0, 0), (1000, 300), (100, 1000)] {
        assert_eq!(CountWindow::new(size, every), Err(InvalidWindow::NotDivisible { size, every }));
    }
    let too_long = SIZE_MAX + 1;
    assert_eq!(CountWindow::new(too_long, too_long), Err(InvalidWindow::TooLong { size: too_long }));
    let text = CountWindow::new(100_000, 1).unwrap_err().to_string();
    assert_eq!(
        text,
        "a window of 100000 records checked every 1 has 100000 panes, at most 10000 are possible: raise `every`"
    );
}

#[test]
fn first_check_waits_for_min_samples_and_the_next_multiple() {
    assert_eq!(checks(window(90, 30), 0, 0, 100), [30, 60, 90]);
    assert_eq!(checks(window(90, 30), 0, 50, 130), [60, 90, 120]);
    assert_eq!(checks(window(90, 30), 0, 305, 400), [330, 360, 390], "min_samples may be above the size");
}

#[test]
fn window_after_a_change_of_reference_waits_until_it_holds_enough() {
    assert_eq!(checks(window(90, 30), 330, 50, 450), [390, 420, 450]);
    assert_eq!(checks(window(90, 30), 330, 305, 450), [420, 450], "no more than the size is asked of it");
    assert_eq!(checks(window(90, 30), 330, 0, 400), [360, 390], "an empty window is never checked");
}

#[test]
fn live_panes_end_with_the_current_one() {
    let settings = window(90, 30);
    let live = |k, start| {
        let panes = settings.live_panes(RecordNumber(k), RecordNumber(start));
        (panes.start.0, panes.end.0)
    };
    assert_eq!(live(0, 0), (0, 0));
    assert_eq!(live(1, 0), (0, 1));
    assert_eq!(live(90, 0), (0, 3));
    assert_eq!(live(91, 0), (1, 4));
    assert_eq!(live(90, 90), (3, 3));
    assert_eq!(live(100, 90), (3, 4));
}

#[test]
fn only_panes_with_new_records_changed() {
    let mut sliding = SlidingWindow::new(window(4, 2), Layout::new([3]), RecordNumber(0));
    let changed = |sliding: &SlidingWindow, since| {
        sliding
            .panes_changed_since(RecordNumber(since))
            .map(|pane| pane.number.0)
            .collect::<Vec<_>>()
    };
    for k in 0..5 {
        sliding.observe(&row(0), Offset(k), None);
    }
    assert_eq!(changed(&sliding, 5), [2], "the current pane may be written again");
    assert_eq!(changed(&sliding, 4), [2]);
    assert_eq!(changed(&sliding, 3), [1, 2]);
    assert_eq!(changed(&sliding, 0), [1, 2], "a pane that left the ring is not written");
}

proptest! {
    #[test]
    fn sliding_total_equals_a_recount(every in 1_u64..7, panes in 1_u64..6, bins in prop::collection::vec(0_u32..5, 0..150)) {
        let settings = window(every * panes, every);
        let layout = Layout::new([5]);
        let mut sliding = SlidingWindow::new(settings, layout.clone(), RecordNumber(0));
        for (index, &bin) in bins.iter().enumerate() {
            let k = index + 1;
            sliding.observe(&row(bin), Offset(index as i64 * 3), Some(Timestamp(1000 - index as i64)));
            // Between two checks the oldest pane has gone already.
            let full = (settings.size() as usize).min(k);
            let partial = k % every as usize;
            let expected = if partial == 0 || k <= settings.size() as usize { full } else { full - every as usize + partial };
            let mut recount = Histogram::new(&layout);
            for &bin in &bins[k - expected..k] {
                recount.observe(&layout, &row(bin));
            }
            prop_assert_eq!(sliding.current(), recount);
            let span = sliding.span().unwrap();
            prop_assert_eq!((span.first, span.last), (Offset((k - expected) as i64 * 3), Offset(index as i64 * 3)));
            prop_assert_eq!(span.times, Some((Timestamp(1000 - index as i64), Timestamp(1000 - (k - expected) as i64))));

            let restored = SlidingWindow::restore(settings, layout.clone(), RecordNumber(0), sliding.record_number(), sliding.panes().cloned().collect());
            prop_assert_eq!(&restored, &sliding);
            let live = settings.live_panes(sliding.record_number(), RecordNumber(0));
            prop_assert_eq!(live.end.0 - live.start.0, sliding.panes().count() as u64);
        }
    }
}
