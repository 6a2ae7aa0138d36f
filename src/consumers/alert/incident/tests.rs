use proptest::prelude::*;

use super::*;

const RULE: Rule = Rule {
    min_severity: Severity::PossibleDrift,
    consecutive: 1,
    cooldown_ms: 100,
};

/// Checks one after the other, and what was told at which time.
fn told(rule: &Rule, checks: &[(i64, Option<Severity>)]) -> Vec<(i64, Transition)> {
    let mut incident = None;
    let mut told = Vec::new();
    for &(at_ms, severity) in checks {
        let step = observe(
            incident,
            &Check {
                severity,
                at_ms,
                stale: false,
            },
            rule,
        );
        incident = step.incident;
        told.extend(step.told.map(|step| (at_ms, step.transition)));
    }
    told
}

const GOOD: Option<Severity> = None;
const POSSIBLE: Option<Severity> = Some(Severity::PossibleDrift);
const DRIFT: Option<Severity> = Some(Severity::Drift);

#[test]
fn an_incident_opens_escalates_once_and_recovers() {
    let checks = [(1, GOOD), (2, POSSIBLE), (3, DRIFT), (4, POSSIBLE), (5, DRIFT), (6, GOOD), (7, GOOD)];
    let expected = [(2, Transition::Opened), (3, Transition::Escalated), (6, Transition::Recovered)];
    assert_eq!(told(&RULE, &checks), expected);
}

#[test]
fn fewer_bad_checks_in_a_row_than_asked_for_open_nothing() {
    let rule = Rule { consecutive: 3, ..RULE };
    let checks = [(1, DRIFT), (2, DRIFT), (3, GOOD), (4, DRIFT), (5, DRIFT), (6, DRIFT), (7, GOOD)];
    assert_eq!(told(&rule, &checks), [(6, Transition::Opened), (7, Transition::Recovered)]);
}

#[test]
fn what_is_below_the_least_severity_is_good() {
    let rule = Rule {
        min_severity: Severity::Drift,
        ..RULE
    };
    let checks = [(1, POSSIBLE), (2, DRIFT), (3, POSSIBLE)];
    assert_eq!(told(&rule, &checks), [(2, Transition::Opened), (3, Transition::Recovered)]);
}

#[test]
fn an_incident_that_comes_back_within_the_cooldown_is_told_when_it_ends() {
    let checks = [(1, DRIFT), (2, GOOD), (3, DRIFT), (50, DRIFT), (102, DRIFT), (103, GOOD)];
    let expected = [
        (1, Transition::Opened),
        (2, Transition::Recovered),
        (102, Transition::Opened),
        (103, Transition::Recovered),
    ];
    assert_eq!(told(&RULE, &checks), expected);
}

#[test]
fn an_incident_that_comes_and_goes_within_the_cooldown_is_not_told() {
    let checks = [(1, DRIFT), (2, GOOD), (3, DRIFT), (50, GOOD), (102, GOOD), (103, GOOD)];
    assert_eq!(told(&RULE, &checks), [(1, Transition::Opened), (2, Transition::Recovered)]);
}

#[test]
fn something_worse_breaks_through_the_cooldown() {
    let checks = [(1, POSSIBLE), (2, GOOD), (3, POSSIBLE), (4, DRIFT)];
    let expected = [(1, Transition::Opened), (2, Transition::Recovered), (4, Transition::Opened)];
    assert_eq!(told(&RULE, &checks), expected);
}

#[test]
fn the_clock_ends_a_cooldown_in_which_no_further_check_comes() {
    let checks = |at_ms, severity| Check {
        severity,
        at_ms,
        stale: false,
    };
    let opened = observe(None, &checks(1, DRIFT), &RULE);
    let recovered = observe(opened.incident, &checks(2, GOOD), &RULE);
    assert_eq!(
        tick(recovered.incident.clone().unwrap(), 102, &RULE),
        Step::silent(None),
        "what recovered and stayed so is forgotten"
    );
    let held = observe(recovered.incident, &checks(3, DRIFT), &RULE).incident.unwrap();
    assert_eq!(tick(held.clone(), 101, &RULE), Step::silent(Some(held.clone())));
    assert_eq!(tick(held, 102, &RULE), Step::open(3, Severity::Drift));
}

#[test]
fn what_is_stale_is_not_told_unless_it_is_still_open_later() {
    let stale = |at_ms, severity| Check {
        severity,
        at_ms,
        stale: true,
    };
    let held = observe(None, &stale(1, DRIFT), &RULE);
    assert_eq!(held.told, None);
    assert_eq!(observe(held.incident.clone(), &stale(2, GOOD), &RULE), Step::silent(None), "gone again");
    let still = observe(held.incident, &stale(2, DRIFT), &RULE);
    assert_eq!(still.told, None);
    let fresh = Check {
        severity: DRIFT,
        at_ms: 3,
        stale: false,
    };
    assert_eq!(observe(still.incident, &fresh, &RULE), Step::open(1, Severity::Drift));
}

#[test]
fn a_recovery_of_what_was_told_is_told_however_old_it_is() {
    let open = Incident::Open {
        since_ms: 1,
        severity: Severity::Drift,
    };
    let stale = Check {
        severity: GOOD,
        at_ms: 2,
        stale: true,
    };
    assert_eq!(
        observe(Some(open), &stale, &RULE).told.map(|told| told.transition),
        Some(Transition::Recovered)
    );
}

#[test]
fn only_what_was_told_is_told_to_have_expired() {
    let open = Incident::Open {
        since_ms: 1,
        severity: Severity::Drift,
    };
    assert_eq!(expire(open).told.map(|told| told.transition), Some(Transition::Expired));
    assert_eq!(expire(Incident::Pending { streak: 1, since_ms: 1 }), Step::silent(None));
}

#[test]
fn stored_incidents_read_back_as_they_were() {
    let held = Incident::Held {
        until_ms: 9,
        worst: Some(Severity::PossibleDrift),
        since_ms: 3,
        streak: 2,
        severity: Severity::Drift,
    };
    let text = r#"{"phase":"held","until_ms":9,"worst":"possible_drift","since_ms":3,"streak":2,"severity":"drift"}"#;
    assert_eq!(serde_json::to_string(&held).unwrap(), text, "it is on disk: docs/formats.md");
    assert_eq!(serde_json::from_str::<Incident>(text).unwrap(), held);
}

fn checks() -> impl Strategy<Value = Vec<Check>> {
    let severity = prop_oneof![3 => Just(GOOD), 1 => Just(POSSIBLE), 2 => Just(DRIFT)];
    let check = (1_i64..60, severity, prop::bool::weighted(0.1));
    prop::collection::vec(check, 1..60).prop_map(|checks| {
        let mut at_ms = 0;
        let mut later = |(gap, severity, stale)| {
            at_ms += gap;
            Check { severity, at_ms, stale }
        };
        checks.into_iter().map(&mut later).collect()
    })
}

fn rules() -> impl Strategy<Value = Rule> {
    let severity = prop_oneof![Just(Severity::PossibleDrift), Just(Severity::Drift)];
    (severity, 1_u32..4, 0_i64..200).prop_map(|(min_severity, consecutive, cooldown_ms)| Rule {
        min_severity,
        consecutive,
        cooldown_ms,
    })
}

proptest! {
    #[test]
    fn every_incident_is_opened_escalated_at_most_once_and_recovered_in_this_order(checks in checks(), rule in rules()) {
        let (mut incident, mut last, mut escalated) = (None, Transition::Recovered, false);
        let (mut recovered_ms, mut worst) = (None, None);
        for check in &checks {
            let step = observe(incident, check, &rule);
            incident = step.incident;
            if let Some(told) = step.told {
                match told.transition {
                    Transition::Opened => {
                        prop_assert!(last.is_end());
                        escalated = false;
                        if let Some(before) = recovered_ms {
                            prop_assert!(check.at_ms - before >= rule.cooldown_ms || check.severity > worst);
                        }
                        worst = check.severity;
                    }
                    Transition::Escalated => {
                        prop_assert!(!last.is_end() && !escalated);
                        escalated = true;
                        worst = check.severity;
                    }
                    Transition::Recovered => {
                        prop_assert!(!last.is_end());
                        recovered_ms = Some(check.at_ms);
                    }
                    Transition::Expired => prop_assert!(false, "nobody asked for it"),
                }
                last = told.transition;
            }
            prop_assert_eq!(matches!(incident, Some(Incident::Open { .. })), !last.is_end(), "open is what was told to be");
        }
    }

    #[test]
    fn what_is_bad_at_the_end_is_told_once_cooldowns_are_over_and_what_is_good_is_not_open(checks in checks(), rule in rules()) {
        let incident = checks.iter().fold(None, |incident, check| observe(incident, check, &rule).incident);
        let incident = incident.and_then(|incident| tick(incident, i64::MAX, &rule).incident);
        let is_bad = |check: &&Check| check.severity.is_some_and(|severity| severity >= rule.min_severity);
        let streak = checks.iter().rev().take_while(is_bad).count();
        let is_open = matches!(incident, Some(Incident::Open { .. }));
        if streak == 0 {
            prop_assert_eq!(incident, None, "only a cooldown may be left, and it is over");
        } else if streak >= rule.consecutive as usize {
            prop_assert!(is_open, "{:?}", incident);
        }
    }
}
