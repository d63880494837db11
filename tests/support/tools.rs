//! Kafka's own command line tools, as the reference for what lies on disk and for what operators will run.

use crate::support::clients;
use crate::support::process;

/// Runs a tool by its class name and returns what it printed. Fails unless it exits with 0.
pub fn run<S: AsRef<str>>(class: &str, args: &[S]) -> Vec<String> {
    let mut command = clients::java();
    command.args(["-Xmx512m", "-XX:+UseSerialGC", class]).args(args.iter().map(S::as_ref));
    process::run(class, &mut command, Vec::new())
}
