//! The real binary's command line: what it accepts, what it says, and how it exits.

use std::io;
use std::path::Path;
use std::process::Command;

/// How a run ended: exit code, standard output, standard error.
type Ended = (Option<i32>, String, String);

/// Runs the binary with nothing of ours in its environment but `environment`.
fn run(directory: &Path, environment: &[(&str, &str)], args: &[&str]) -> io::Result<Ended> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logstreams"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LOGSTREAMS_") {
            command.env_remove(name);
        }
    }
    let output = command.current_dir(directory).envs(environment.iter().copied()).args(args).output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((output.status.code(), text(output.stdout), text(output.stderr)))
}

fn write(directory: &Path, text: &str) -> io::Result<()> {
    std::fs::write(directory.join("logstreams.toml"), text)
}

/// The line of a printed configuration that sets `key`.
fn line<'a>(page: &'a str, key: &str) -> Option<&'a str> {
    page.lines().find(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = ")))
}

#[test]
fn a_good_configuration_is_ok() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    write(directory.path(), "num.partitions = 4\n[log]\nsegment.bytes = \"64MiB\"\n")?;
    for args in [
        &["--check-config"][..],
        &["serve", "--check-config"],
        &["--config", "logstreams.toml", "--check-config"],
        &[
            "--check-config",
            "--data-dir",
            "x",
            "--kafka-addr",
            "[::1]:0",
            "--shards",
            "2",
            "--redis-addr",
            "off",
        ],
    ] {
        assert_eq!(run(directory.path(), &[], args)?, (Some(0), "ok\n".into(), String::new()), "{args:?}");
    }
    let by_variable =
        run(directory.path(), &[("LOGSTREAMS_CONFIG", "logstreams.toml")], &["serve", "--print-config"])?;
    assert_eq!(line(&by_variable.1, "num.partitions"), Some("num.partitions = 4  # logstreams.toml line 1"));
    Ok(())
}

#[test]
fn a_bad_configuration_is_one_sentence_and_exit_1() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    write(directory.path(), "# sizes\nlog.segment.byte = 1\n")?;
    let cases: [(&[&str], &str); 5] = [
        (
            &["--config", "logstreams.toml"],
            "error: logstreams.toml line 2: unknown key 'log.segment.byte'; did you mean 'log.segment.bytes'?\n",
        ),
        (
            &["-o", "num.partitions=-1"],
            "error: command line -o num.partitions=-1: Invalid value -1 for configuration num.partitions: \
             Value must be at least 1\n",
        ),
        (
            &["--kafka-addr", "9092"],
            "error: command line --kafka-addr: Invalid value 9092 for configuration kafka.addr: \
             Expected HOST:PORT, such as 127.0.0.1:9092 or [::1]:9092\n",
        ),
        (
            &["--admin-addr", "127.0.0.1:9644"],
            "error: command line --admin-addr: this version has no HTTP door yet; start without --admin-addr (and \
             without admin.addr), or with off\n",
        ),
        (
            &["--config", "missing.toml"],
            "error: cannot read the configuration file missing.toml: No such file or directory (os error 2)\n",
        ),
    ];
    for (args, said) in cases {
        let checked = run(directory.path(), &[], &[args, &["--check-config"]].concat())?;
        assert_eq!(checked, (Some(1), String::new(), said.to_owned()), "{args:?}");
        // Serving says the same, before it opens anything.
        assert_eq!(run(directory.path(), &[], args)?, (Some(1), String::new(), said.to_owned()), "{args:?}");
    }
    let (code, _, said) =
        run(directory.path(), &[("LOGSTREAMS_LOG_SEGMNT_BYTES", "1")], &["--check-config"])?;
    assert_eq!(code, Some(1));
    assert!(said.contains("did you mean 'LOGSTREAMS_LOG_SEGMENT_BYTES'?"), "{said}");
    Ok(())
}

#[test]
fn a_wrong_command_line_exits_2() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    for args in [
        &["--no-such-flag"][..],
        &["-o", "no-equals-sign"],
        &["fly"],
        &["--shards"],
        &["--print-config=poem"],
        &["--print-config", "--check-config"],
    ] {
        let (code, stdout, stderr) = run(directory.path(), &[], args)?;
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(stderr.starts_with("error: "), "{stderr}");
    }
    Ok(())
}

#[test]
fn the_environment_wins_over_the_file_and_the_command_line_over_both() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    write(directory.path(), "log.segment.bytes = 1048576\nlog.dir = \"from-file\"\n")?;
    let environment = [("LOGSTREAMS_CONFIG", "logstreams.toml"), ("LOGSTREAMS_LOG_SEGMENT_BYTES", "2097152")];
    let (code, page, _) = run(directory.path(), &environment, &["--print-config"])?;
    assert_eq!(code, Some(0));
    assert_eq!(
        line(&page, "log.segment.bytes"),
        Some("log.segment.bytes = 2097152  # environment variable LOGSTREAMS_LOG_SEGMENT_BYTES")
    );
    assert_eq!(line(&page, "log.dir"), Some("log.dir = \"from-file\"  # logstreams.toml line 2"));
    let args = ["--print-config", "--data-dir", "from-flag", "-o", "log.segment.bytes=3MiB"];
    let (_, page, _) = run(directory.path(), &environment, &args)?;
    assert_eq!(line(&page, "log.dir"), Some("log.dir = \"from-flag\"  # command line --data-dir"));
    assert_eq!(
        line(&page, "log.segment.bytes"),
        Some("log.segment.bytes = 3145728  # command line -o log.segment.bytes=3MiB")
    );
    Ok(())
}

#[test]
fn a_printed_configuration_is_a_good_one_and_prints_the_same() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let options = ["-o", "max.connections.per.ip=9", "-o", "log.retention.hours=1", "--redis-addr", "off"];
    let (_, page, _) = run(directory.path(), &[], &[&["--print-config"][..], &options].concat())?;
    write(directory.path(), &page)?;
    let checked = run(directory.path(), &[], &["--config", "logstreams.toml", "--check-config"])?;
    assert_eq!(checked, (Some(0), "ok\n".into(), String::new()));
    let (_, again, _) = run(directory.path(), &[], &["--config", "logstreams.toml", "--print-config"])?;
    let values = |page: &str| -> Vec<String> {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| Some(line.split_once("  # ")?.0.to_owned())).collect()
    };
    assert_eq!(values(&page), values(&again));
    assert!(values(&page).contains(&"\"max.connections.per.ip\" = 9".to_owned()));
    Ok(())
}

#[test]
fn the_doctor_says_one_line_per_check() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let (code, said, _) = run(directory.path(), &[], &["doctor", "--data-dir", "data"])?;
    assert!(said.lines().count() >= 8, "{said}");
    for line in said.lines() {
        assert!(["ok    ", "warn  ", "fail  "].iter().any(|level| line.starts_with(level)), "{line}");
        assert!(line.starts_with("ok") || line.contains("; cure: "), "{line}");
    }
    let failed = said.lines().any(|line| line.starts_with("fail"));
    assert_eq!(code, Some(i32::from(failed)));
    let (code, said, _) = run(directory.path(), &[], &["doctor", "-o", "disk.reserve.bytes=4096000GiB"])?;
    assert_eq!(code, Some(1));
    assert!(said.contains("fail  free space: "), "{said}");
    Ok(())
}
