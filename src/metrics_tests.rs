//! Tests of `metrics`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

fn registry() -> Registry {
    Registry::new(1_700_000_000, || Inventory {
        users: 2,
        keys: 3,
        vms: 4,
        addresses: 5,
        routes: 6,
    })
}

/// The value of the line that begins with `series`.
fn value(page: &str, series: &str) -> Option<String> {
    let mut found = page.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = found.next()?.to_owned();
    assert!(found.next().is_none(), "{series} stands twice");
    Some(value)
}

const REFUSED: Ended = Ended { side: Side::Vm, stage: Stage::VmLogin, cause: Cause::LoginRefused };

/// A page with something in every family.
fn busy() -> Registry {
    let registry = registry();
    let door = registry.counters();
    let pump = registry.counters();
    for _ in 0..5 {
        door.accepted();
    }
    door.half_open(7);
    door.half_open(2);
    door.session_started();
    door.session_started();
    door.session_started();
    pump.session_ended();
    pump.bytes(Direction::Up, 1_000);
    pump.bytes(Direction::Down, 5_000);
    pump.bytes(Direction::Down, 1 << 40);
    pump.passed(Passage::Spliced, 900);
    door.passed(Passage::Spliced, 90);
    pump.passed(Passage::Stuck, 8);
    pump.passed(Passage::NoPipe, 7);
    door.ended(REFUSED);
    pump.ended(REFUSED);
    pump.ended(Ended { side: Side::Client, stage: Stage::Session, cause: Cause::Closed });
    pump.rekeyed();
    door.panicked();
    for (stage, micros) in
        LoginStage::ALL.into_iter().zip([900, 12_000, 300, 4_000, 30_000, 50_000])
    {
        door.stage(stage, micros);
        pump.stage(stage, micros * 2);
    }
    registry
}

#[test]
fn counters_of_every_writer_are_added_up() {
    let page = busy().render();
    for (series, expected) in [
        ("keyway_connections_accepted_total", "5"),
        ("keyway_connections_half_open", "2"),
        ("keyway_sessions_started_total", "3"),
        ("keyway_sessions", "2"),
        ("keyway_relayed_bytes_total{direction=\"up\"}", "1000"),
        ("keyway_relayed_bytes_total{direction=\"down\"}", "1099511632776"),
        ("keyway_spliced_session_bytes_total{passage=\"spliced\"}", "990"),
        ("keyway_spliced_session_bytes_total{passage=\"stuck\"}", "8"),
        ("keyway_spliced_session_bytes_total{passage=\"no_pipe\"}", "7"),
        ("keyway_panics_total", "1"),
        ("keyway_rekeys_total", "1"),
        (
            "keyway_connections_ended_total{side=\"vm\",stage=\"vm_login\",cause=\"login_refused\"}",
            "2",
        ),
        ("keyway_connections_ended_total{side=\"client\",stage=\"session\",cause=\"closed\"}", "1"),
        ("keyway_users", "2"),
        ("keyway_user_keys", "3"),
        ("keyway_vms", "4"),
        ("keyway_pool_addresses", "5"),
        ("keyway_routes", "6"),
        ("process_start_time_seconds", "1700000000"),
    ] {
        assert_eq!(value(&page, series).as_deref(), Some(expected), "{series} in\n{page}");
    }
}

#[test]
fn ends_that_never_happened_are_left_out_and_every_combination_has_its_own_place() {
    assert!(!registry().render().contains("keyway_connections_ended_total{"));
    let registry = registry();
    let counters = registry.counters();
    let mut expected = 0;
    for &side in Side::ALL {
        for &stage in Stage::ALL {
            for &cause in Cause::ALL {
                expected += 1;
                for _ in 0..expected {
                    counters.ended(Ended { side, stage, cause });
                }
            }
        }
    }
    let page = registry.render();
    let mut counts: Vec<u32> = page
        .lines()
        .filter(|line| line.starts_with("keyway_connections_ended_total{"))
        .map(|line| line.rsplit(' ').next().expect("a value").parse().expect("a number"))
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=expected).collect::<Vec<_>>());
}

#[test]
fn promtool_finds_nothing_to_say() {
    for page in [registry().render(), busy().render()] {
        let tool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut tool = match tool {
            Ok(tool) => tool,
            Err(cause) => {
                let allowed = std::env::var("KEYWAY_ALLOW_MISSING").unwrap_or_default();
                assert!(
                    allowed.split([',', ' ']).any(|word| word == "promtool"),
                    "promtool is missing ({cause}); KEYWAY_ALLOW_MISSING=promtool allows that"
                );
                return;
            }
        };
        tool.stdin.take().expect("piped").write_all(page.as_bytes()).expect("writes");
        let done = tool.wait_with_output().expect("ends");
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(done.status.success() && said.is_empty(), "{said}\n{page}");
    }
}

#[test]
fn the_process_families_tell_about_this_process() {
    let page = registry().render();
    let number = |series: &str| -> u64 {
        value(&page, series).unwrap_or_else(|| panic!("no {series}")).parse().expect("a number")
    };
    assert!(number("process_resident_memory_bytes") > 1 << 20);
    assert!(number("process_open_fds") >= 3);
    assert!(number("process_max_fds") >= number("process_open_fds"));
}

#[test]
fn a_stage_time_stands_in_the_right_bucket_and_in_the_sum() {
    let registry = registry();
    let counters = registry.counters();
    for micros in [127, 128, 255, 1_000, 40_000_000, u64::MAX] {
        counters.stage(LoginStage::Dial, micros);
    }
    let page = registry.render();
    let dial = |le: &str| {
        value(&page, &format!("keyway_login_stage_seconds_bucket{{stage=\"dial\",le=\"{le}\"}}"))
    };
    assert_eq!(dial("0.000128").as_deref(), Some("1"));
    assert_eq!(dial("0.000256").as_deref(), Some("3"));
    assert_eq!(dial("0.001024").as_deref(), Some("4"));
    assert_eq!(dial("33.554432").as_deref(), Some("4"));
    assert_eq!(dial("+Inf").as_deref(), Some("6"));
    let count = value(&page, "keyway_login_stage_seconds_count{stage=\"dial\"}");
    assert_eq!(count.as_deref(), Some("6"));
    // 127 + 128 + 255 + 1,000 us, 40 s, and the ceiling for what is beyond it.
    let sum = value(&page, "keyway_login_stage_seconds_sum{stage=\"dial\"}");
    assert_eq!(sum.as_deref(), Some("174.219237"));
}

#[test]
fn quantiles_come_out_within_their_promise() {
    let registry = registry();
    let counters = registry.counters();
    for micros in 1..=100_000 {
        counters.stage(LoginStage::Total, micros);
    }
    let page = registry.render();
    for (quantile, exact) in [("0.5", 0.05), ("0.9", 0.09), ("0.99", 0.099), ("0.999", 0.0999)] {
        let series = format!(
            "keyway_login_stage_overall_seconds{{stage=\"total\",quantile=\"{quantile}\"}}"
        );
        let found: f64 = value(&page, &series).expect("a value").parse().expect("a number");
        assert!(found >= exact && found <= exact * 1.08, "{quantile}: {found} for {exact}");
    }
}

#[test]
fn the_numbers_of_a_scrape_in_the_middle_of_writing_agree_with_each_other() {
    let registry = Arc::new(registry());
    let counters = registry.counters();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..200_000 {
                counters.session_started();
                counters.stage(LoginStage::Total, n % 4_096);
                counters.session_ended();
            }
        });
        for _ in 0..20 {
            let page = registry.render();
            let series = "keyway_login_stage_seconds";
            let inf = value(&page, &format!("{series}_bucket{{stage=\"total\",le=\"+Inf\"}}"));
            assert_eq!(inf, value(&page, &format!("{series}_count{{stage=\"total\"}}")));
            let live: u64 =
                value(&page, "keyway_sessions").expect("a value").parse().expect("a number");
            assert!(live <= 200_000, "it went below zero: {live}");
        }
    });
    let page = registry.render();
    assert_eq!(value(&page, "keyway_sessions_started_total").as_deref(), Some("200000"));
    assert_eq!(value(&page, "keyway_sessions").as_deref(), Some("0"));
}

#[test]
fn writers_do_not_share_cache_lines() {
    assert_eq!(align_of::<Counters>(), 128);
    assert!(size_of::<Counters>() < 40 << 10, "{} bytes", size_of::<Counters>());
}

proptest! {
    #[test]
    fn a_bucket_holds_its_durations_and_is_narrow(micros in 0..(1_u64 << CEILING_BITS)) {
        let bucket = bucket_of(micros);
        prop_assert!(bucket < BUCKETS);
        let upper = upper_us(bucket);
        prop_assert!(micros <= upper && bucket_of(upper) == bucket);
        prop_assert!(upper - micros <= micros / 16);
        if bucket > 0 {
            prop_assert!(upper_us(bucket - 1) < micros);
        }
    }
}
