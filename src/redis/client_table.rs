//! Every Redis client of the server, for CLIENT LIST, CLIENT KILL and INFO.
//!
//! Shared by all shards. The table's lock is taken when a client comes, goes or is listed. What changes in between are
//! atomics that the client's own shard writes, and a few words behind a lock of the client's own, which is taken when one of
//! them changes or the client is listed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::runtime::tcp::Closer;

/// The clients, by id.
#[derive(Default)]
pub struct ClientTable {
    clients: Mutex<BTreeMap<u64, Arc<ClientEntry>>>,
    next_id: AtomicU64,
    /// Connections since the start, or since CONFIG RESETSTAT.
    total_connections: AtomicU64,
    /// Commands since then.
    total_commands: AtomicU64,
}

/// What is told of one client.
pub(super) struct ClientEntry {
    pub(super) id: u64,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) closer: Closer,
    pub(super) created_ms: i64,
    pub(super) last_active_ms: AtomicI64,
    words: Mutex<ClientWords>,
    /// Subscriptions to channels, patterns, and shard channels.
    pub(super) subscriptions: [AtomicU64; 3],
    /// Commands queued by MULTI; -1 outside of it.
    pub(super) queued_commands: AtomicI64,
    pub(super) unsent_bytes: AtomicU64,
    /// Subscriptions that do not read the log because the client does not take what it is sent.
    pub(super) paused: AtomicU64,
    /// Records that its paused subscriptions are behind.
    pub(super) lag: AtomicI64,
    /// 2 or 3.
    pub(super) protocol: AtomicU64,
    is_blocked: AtomicBool,
}

/// Texts of a client.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientWords {
    pub(super) name: String,
    pub(super) library: String,
    pub(super) library_version: String,
    pub(super) last_command: &'static str,
}

/// Sums over all clients.
#[derive(Debug, Default)]
pub(super) struct ClientTotals {
    pub(super) connected: usize,
    pub(super) total_connections: u64,
    pub(super) total_commands: u64,
    pub(super) subscribers: usize,
    pub(super) blocked: usize,
    pub(super) paused: u64,
    pub(super) lag: i64,
    pub(super) unsent_bytes: u64,
}

impl ClientTable {
    /// Takes a new client in; it is out when the answer is dropped.
    pub(super) fn enter(
        self: &Arc<Self>,
        peer: SocketAddr,
        local: SocketAddr,
        closer: Closer,
        now_ms: i64,
    ) -> Membership {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) + 1;
        let entry = Arc::new(ClientEntry {
            id,
            peer,
            local,
            closer,
            created_ms: now_ms,
            last_active_ms: AtomicI64::new(now_ms),
            words: Mutex::default(),
            subscriptions: Default::default(),
            queued_commands: AtomicI64::new(-1),
            unsent_bytes: AtomicU64::new(0),
            paused: AtomicU64::new(0),
            lag: AtomicI64::new(0),
            protocol: AtomicU64::new(2),
            is_blocked: AtomicBool::new(false),
        });
        self.total_connections.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(id, entry.clone());
        Membership { table: self.clone(), entry }
    }

    /// The clients, by id.
    pub(super) fn list(&self) -> Vec<Arc<ClientEntry>> {
        self.lock().values().cloned().collect()
    }

    /// Counts commands that were carried out.
    pub(super) fn count_commands(&self, count: u64) {
        self.total_commands.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts connections and commands from 0 again.
    pub(super) fn reset_counts(&self) {
        self.total_connections.store(0, Ordering::Relaxed);
        self.total_commands.store(0, Ordering::Relaxed);
    }

    pub(super) fn totals(&self) -> ClientTotals {
        let clients = self.lock();
        let mut totals = ClientTotals {
            connected: clients.len(),
            total_connections: self.total_connections.load(Ordering::Relaxed),
            total_commands: self.total_commands.load(Ordering::Relaxed),
            ..ClientTotals::default()
        };
        for client in clients.values() {
            totals.subscribers += usize::from(client.is_subscriber());
            totals.blocked += usize::from(client.is_blocked.load(Ordering::Relaxed));
            totals.paused += client.paused.load(Ordering::Relaxed);
            totals.lag += client.lag.load(Ordering::Relaxed);
            totals.unsent_bytes += client.unsent_bytes.load(Ordering::Relaxed);
        }
        totals
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<ClientEntry>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientEntry {
    /// Notes that the client waits for a command, until the answer is dropped.
    pub(super) fn block(&self) -> impl Drop + use<'_> {
        struct Blocked<'a>(&'a AtomicBool);
        impl Drop for Blocked<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Relaxed);
            }
        }
        self.is_blocked.store(true, Ordering::Relaxed);
        Blocked(&self.is_blocked)
    }

    fn is_subscriber(&self) -> bool {
        self.subscriptions.iter().any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// What CLIENT LIST and CLIENT KILL call its type.
    pub(super) fn kind(&self) -> &'static str {
        if self.is_subscriber() { "pubsub" } else { "normal" }
    }

    pub(super) fn words(&self) -> ClientWords {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn change_words(&self, change: impl FnOnce(&mut ClientWords)) {
        change(&mut self.words.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The client as a line of CLIENT LIST: those of Redis's fields that mean something here, and `paused`, `lag`.
    pub(super) fn line(&self, now_ms: i64) -> String {
        let seconds = |since_ms: i64| (now_ms - since_ms).max(0) / 1000;
        let words = self.words();
        let [sub, psub, ssub] = &self.subscriptions;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (sub, psub, ssub) = (count(sub), count(psub), count(ssub));
        let flags = match (sub + psub + ssub > 0, self.is_blocked.load(Ordering::Relaxed)) {
            (true, _) => "P",
            (false, true) => "b",
            (false, false) => "N",
        };
        format!(
            "id={} addr={} laddr={} name={} age={} idle={} flags={flags} db=0 sub={sub} psub={psub} ssub={ssub} \
             multi={} omem={} cmd={} user=default resp={} lib-name={} lib-ver={} paused={} lag={}\n",
            self.id,
            self.peer,
            self.local,
            words.name,
            seconds(self.created_ms),
            seconds(self.last_active_ms.load(Ordering::Relaxed)),
            self.queued_commands.load(Ordering::Relaxed),
            count(&self.unsent_bytes),
            if words.last_command.is_empty() {
                "NULL".to_owned()
            } else {
                words.last_command.to_ascii_lowercase()
            },
            count(&self.protocol),
            words.library,
            words.library_version,
            count(&self.paused),
            self.lag.load(Ordering::Relaxed),
        )
    }
}

/// A client's place in the table, given up when dropped.
pub(super) struct Membership {
    table: Arc<ClientTable>,
    pub(super) entry: Arc<ClientEntry>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.table.lock().remove(&self.entry.id);
    }
}
