//! A client's connections to the brokers that lead its partitions, kept up through changes of leader and lost brokers.
//!
//! Follows the cluster's newest view, reconnects with a pause between tries, asks for a new view when a broker is away,
//! and gives up when a broker that is needed stays away for too long.

use std::num::NonZeroU16;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};

use crate::clock::MILLISECOND_NS;
use crate::cluster::{Cluster, View};
use crate::control;
use crate::worker::{Links, Turn};

/// How long a partition or a broker is left alone after a failure.
pub const BACKOFF_NS: u64 = 100 * MILLISECOND_NS;

/// Which connection leads where.
pub struct LeaderLinks {
    cluster: Arc<Cluster>,
    view: Arc<View>,
    view_version: u64,
    give_up_after_ns: u64,
    pub links: Links,
    /// The partitions that matter to the client, and the link of each one's leader. Thousands of clients may have thousands
    /// of partitions, hence the sharing and the small numbers.
    partitions: Arc<[usize]>,
    link_of: Vec<Option<NonZeroU16>>,
    /// A partition has no leader now.
    is_leaderless: bool,
    /// Per link: whether any partition is led there, when it may be tried again, since when it is away.
    needed: Vec<bool>,
    reconnect_ns: Vec<u64>,
    lost_since_ns: Vec<Option<u64>>,
}

impl LeaderLinks {
    /// Routes `partitions` by the current view; connects to nobody.
    pub fn new(cluster: Arc<Cluster>, partitions: Arc<[usize]>, give_up_after_ns: u64) -> Self {
        let (view_version, view) = (cluster.version(), cluster.view());
        let mut leaders = Self {
            cluster,
            view,
            view_version,
            give_up_after_ns,
            links: Links::default(),
            link_of: vec![None; partitions.len()],
            partitions,
            is_leaderless: false,
            needed: Vec::new(),
            reconnect_ns: Vec::new(),
            lost_since_ns: Vec::new(),
        };
        leaders.route();
        leaders
    }

    /// The links that the current view asks for and that are not open, with their addresses.
    ///
    /// # Errors
    /// If the view does not know an address.
    pub fn unconnected(&self) -> Result<Vec<(usize, String)>> {
        let links = (0..self.count()).filter(|&link| !self.links.is_open(link));
        links.map(|link| Ok((link, self.address_of(link)?))).collect()
    }

    /// Links there are, open or not.
    pub fn count(&self) -> usize {
        self.links.count()
    }

    /// The link of the leader of the client's partition at `slot`.
    pub fn link_of(&self, slot: usize) -> Option<usize> {
        self.link_of[slot].map(|link| usize::from(link.get()) - 1)
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    /// Counts the views, as `Cluster::version` does.
    pub fn view_version(&self) -> u64 {
        self.view_version
    }

    /// Takes over a new view and reconnects what is away and due. Returns whether the view changed.
    ///
    /// # Errors
    /// If a broker that is needed stays away for too long.
    pub fn follow(&mut self, turn: &Turn<'_>) -> Result<bool> {
        let version = self.cluster.version();
        let is_new = version != self.view_version;
        if is_new {
            self.view_version = version;
            self.view = self.cluster.view();
            self.route();
        }
        for link in 0..self.count() {
            if self.links.is_open(link) || !self.needed[link] || turn.now_ns < self.reconnect_ns[link] {
                continue;
            }
            if let Err(error) = self.reopen(link, turn) {
                self.on_lost(link, error, turn.now_ns)?;
            }
        }
        Ok(is_new)
    }

    /// Notes that a link is closed, for `follow` to open it again.
    ///
    /// # Errors
    /// `error`, if the broker has been away for too long.
    pub fn on_lost(&mut self, link: usize, error: anyhow::Error, now_ns: u64) -> Result<()> {
        let since_ns = *self.lost_since_ns[link].get_or_insert(now_ns);
        if now_ns - since_ns > self.give_up_after_ns {
            return Err(error.context("a broker is away for longer than the delivery timeout"));
        }
        self.reconnect_ns[link] = now_ns + BACKOFF_NS;
        self.cluster.request_refresh();
        Ok(())
    }

    /// A broker answered: whatever was wrong with it is over. Accepting a connection is no such sign.
    pub fn on_reply(&mut self, link: usize) {
        self.lost_since_ns[link] = None;
    }

    /// Asks for a new view: a broker said that it does not lead.
    pub fn request_refresh(&self) {
        self.cluster.request_refresh();
    }

    /// When `follow` should be called again although nothing arrives.
    pub fn wake_ns(&self, now_ns: u64) -> Option<u64> {
        let away = (0..self.count()).filter(|&link| self.needed[link] && !self.links.is_open(link));
        let reconnect = away.map(|link| self.reconnect_ns[link].max(now_ns + MILLISECOND_NS)).min();
        // A partition without a leader waits for the next view.
        let leaderless = self.is_leaderless.then_some(now_ns + BACKOFF_NS);
        earliest(reconnect, leaderless)
    }

    fn route(&mut self) {
        let mut needed = Vec::new();
        self.is_leaderless = false;
        for (slot, &partition) in self.partitions.iter().enumerate() {
            let node = self.view.leaders.get(partition).copied().flatten();
            let link = node.map(|node| self.links.index_of(node));
            self.is_leaderless |= link.is_none();
            needed.resize(self.links.count(), false);
            self.link_of[slot] = link.and_then(|link| {
                needed[link] = true;
                NonZeroU16::new(u16::try_from(link + 1).expect("few brokers"))
            });
        }
        needed.resize(self.links.count(), false);
        self.needed = needed;
        let count = self.count();
        self.reconnect_ns.resize(count, 0);
        self.lost_since_ns.resize(count, None);
        if self.is_leaderless {
            self.cluster.request_refresh();
        }
    }

    fn reopen(&mut self, link: usize, turn: &Turn<'_>) -> Result<()> {
        let stream = control::connect(&self.address_of(link)?)?;
        self.links.open(link, stream, turn)
    }

    fn address_of(&self, link: usize) -> Result<String> {
        let node = self.links.node(link);
        let address = self.view.addresses.get(&node).cloned();
        address.with_context(|| anyhow!("node {node} is gone from the metadata"))
    }
}

/// The earlier of two optional instants.
pub fn earliest(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
