//! The ways in which a server is run under the client tests, one shared server for each, and the matrix of them.

use crate::support::server::{Options, Program, Server};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

/// Shards and ports. Every client test must pass in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    OneShard,
    TwoShards,
    EightShards,
    /// Two shards, each its own broker to the clients.
    TwoShardListeners,
    /// Eight shards, each its own broker to the clients.
    EightShardListeners,
}

impl Mode {
    pub fn options(self) -> Options {
        let (shards, shard_listeners) = match self {
            Mode::OneShard => (1, false),
            Mode::TwoShards => (2, false),
            Mode::EightShards => (8, false),
            Mode::TwoShardListeners => (2, true),
            Mode::EightShardListeners => (8, true),
        };
        Options { shards, shard_listeners, ..Options::default() }
            .set("num.partitions", "8")
            .set("auto.create.topics.enable", "true")
    }

    /// Full size in the main mode, a fraction in the others, which differ in routing and not in bytes.
    pub fn sized(self, full: usize, other: usize) -> usize {
        if self == Mode::TwoShards { full } else { other }
    }

    /// The server that all running tests of this mode share. The first test starts it; it ends with the last.
    pub fn shared(self) -> Shared {
        static SERVERS: Mutex<BTreeMap<Mode, Weak<Server>>> = Mutex::new(BTreeMap::new());
        // To Kafka all modes are the same.
        let mode = if Program::under_test() == Program::Kafka { Mode::TwoShards } else { self };
        // A test that panicked while holding the lock has failed to start its server; the next may try.
        let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = servers.get(&mode).and_then(Weak::upgrade) {
            return Shared(server);
        }
        let server = Arc::new(Server::start(mode.options()));
        servers.insert(mode, Arc::downgrade(&server));
        Shared(server)
    }
}

/// A hold on a shared server, which shows the server's log if its test fails.
pub struct Shared(Arc<Server>);

impl Deref for Shared {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.0.log());
        }
    }
}

/// A topic or group name of its own for each test: `what` plus the test's name.
pub fn unique(what: &str) -> String {
    let test = thread::current().name().unwrap_or("main").replace("::", "-");
    format!("{what}-{test}")
}

/// Writes one test for each mode and client: `two_shards::franz_go::NAME` calls `SCENARIO(mode, client)`.
macro_rules! for_every_mode_and_client {
    ($name:ident, $scenario:path) => {
        $crate::support::modes::for_every_mode!(
            $name,
            $scenario,
            [
                confluent_kafka = ConfluentKafka,
                kafka_python = KafkaPython,
                aiokafka = Aiokafka,
                kafkajs = KafkaJs,
                franz_go = FranzGo,
                sarama = Sarama,
                java = Java,
            ]
        );
    };
}

/// The rows of the matrix.
macro_rules! for_every_mode {
    ($name:ident, $scenario:path, $clients:tt) => {
        mod one_shard {
            $crate::support::modes::for_every_client!(OneShard, $name, $scenario, $clients);
        }
        mod two_shards {
            $crate::support::modes::for_every_client!(TwoShards, $name, $scenario, $clients);
        }
        mod eight_shards {
            $crate::support::modes::for_every_client!(EightShards, $name, $scenario, $clients);
        }
        mod two_shard_listeners {
            $crate::support::modes::for_every_client!(TwoShardListeners, $name, $scenario, $clients);
        }
        mod eight_shard_listeners {
            $crate::support::modes::for_every_client!(EightShardListeners, $name, $scenario, $clients);
        }
    };
}

/// The columns of the matrix.
macro_rules! for_every_client {
    ($mode:ident, $name:ident, $scenario:path, [$($module:ident = $client:ident,)*]) => {
        $(mod $module {
            #[test]
            fn $name() {
                $scenario($crate::support::modes::Mode::$mode, $crate::support::clients::Client::$client);
            }
        })*
    };
}

#[allow(unused_imports, reason = "each test binary uses its own part of this")]
pub(crate) use {for_every_client, for_every_mode, for_every_mode_and_client};
