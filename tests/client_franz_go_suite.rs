//! franz-go's own tests, all that it can do against a broker: producing, consuming and groups of every protocol with its
//! consume-transform-produce chains (exactly once as well, while the groups rebalance), share groups, admin requests.

#![allow(clippy::disallowed_methods, reason = "the test waits for another process, in real time")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use support::clients::installed;
use support::process::Process;
use support::server::{Options, Server};

/// Records that each chain moves; the suite's own default is 500,000.
const RECORDS: &str = "10000";
/// What is a minute here may be ten on a busy machine.
const SUITE_PATIENCE: Duration = Duration::from_secs(600);
/// Looks at a source file of its own.
const NOT_OF_A_BROKER: &str = "^TestOptValuesCoversEveryOption$";
/// What it leaves out by itself: two need a broker with SCRAM, one needs an old one.
const SKIPPED: [&str; 3] =
    ["TestIssueProduceBrokerTooOldFailsRecords", "TestSCRAMAuth", "TestSCRAMAuthBadCredentials"];
/// Its share groups give records back on purpose in many places at once; now and then one of them as often as the default
/// lets a record be delivered, which is then gone, as it has to be, and missed.
const SHARE_DELIVERY_COUNT_LIMIT: &str = "10";
/// Fewer tests than this, and the suite did not find its broker.
const PASSED_MIN: usize = 400;

#[test]
fn franz_gos_own_tests_pass() {
    let server =
        Server::start(Options::default().set("group.share.delivery.count.limit", SHARE_DELIVERY_COUNT_LIMIT));
    let mut command = Command::new(installed("go/franz-go-suite"));
    command
        .args(["-test.v", "-test.skip", NOT_OF_A_BROKER, "-test.timeout", "9m"])
        .env("KGO_SEEDS", server.bootstrap())
        .env("KGO_TEST_RF", "1")
        .env("KGO_TEST_RECORDS", RECORDS)
        .env("KGO_LOG_LEVEL", "none");
    let mut suite = Process::spawn("franz-go's own tests", &mut command);
    let deadline = Instant::now() + SUITE_PATIENCE;
    let (mut passed, mut skipped, mut failed, mut said) = (0, Vec::new(), Vec::new(), String::new());
    while let Some(line) = suite.next_line(deadline) {
        let outcome = line.trim_start().strip_prefix("--- ").and_then(|rest| rest.split_once(": "));
        let name = |rest: &str| rest.split(' ').next().unwrap_or_default().to_owned();
        match outcome {
            Some(("PASS", _)) => passed += 1,
            Some(("SKIP", rest)) => skipped.push(name(rest)),
            Some(("FAIL", rest)) => failed.push(name(rest)),
            // "=== RUN" and its like say nothing, in hundreds of lines.
            _ if line.starts_with("=== ") => {}
            _ => {
                said.push_str(&line);
                said.push('\n');
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?} failed\n{said}");
    suite.expect_success();
    skipped.sort_unstable();
    assert_eq!(skipped, SKIPPED);
    assert!(passed >= PASSED_MIN, "only {passed} passed");
    println!("{passed} passed");
}
