//! The transactions of one producer: when one is to end, and the request that ends it.
//!
//! Transaction version 2 (KIP-890): the first batch begins a transaction and adds its partition, EndTxn answers with the
//! epoch of the next one, in which sequences begin at 0 again. One EndTxn at a time, and only when nothing is in flight; one
//! whose answer was lost is sent again as it was, which the coordinator recognises.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::{EndTxnRequest, ProducerId, TransactionalId};
use kafka_protocol::protocol::StrBytes;

use crate::clock::MILLISECOND_NS;
use crate::cluster::is_transient;
use crate::leader_links::BACKOFF_NS;
use crate::wire::{decode_response, encode_request};

/// The first version of EndTxn that answers with a new epoch, and of Produce that adds partitions.
pub const END_TXN_VERSION: i16 = 5;
pub const PRODUCE_VERSION_MIN: i16 = 12;

/// When a transaction is committed.
#[derive(Clone, Copy, Debug)]
pub struct TransactionLimits {
    /// After so many messages.
    pub messages_max: u64,
    /// After so long.
    pub open_ns_max: u64,
}

/// A producer's identity in transactions, as InitProducerId gave it.
#[derive(Clone, Debug)]
pub struct Identity {
    pub transactional_id: String,
    /// The broker that coordinates it.
    pub coordinator: i32,
    pub producer_id: i64,
    pub producer_epoch: i16,
}

/// The transactions of one producer.
pub struct Transactions {
    limits: TransactionLimits,
    transactional_id: String,
    /// The broker that coordinates them.
    pub coordinator: i32,
    messages: u64,
    begun_ns: Option<u64>,
    ending: Option<Ending>,
}

/// An EndTxn under way.
struct Ending {
    begun_ns: u64,
    /// The link and the correlation id; none while it is to be sent (again).
    sent: Option<(usize, i32, u64)>,
    not_before_ns: u64,
}

/// What an answer to EndTxn means.
pub enum Ended {
    /// The transaction is committed; it took so long since the first EndTxn. The next one has this id and epoch.
    Committed { identity: (i64, i16), took_ns: u64 },
    /// It is to be sent again.
    Again,
}

impl Transactions {
    pub fn new(limits: TransactionLimits, identity: &Identity) -> Self {
        Self {
            limits,
            transactional_id: identity.transactional_id.clone(),
            coordinator: identity.coordinator,
            messages: 0,
            begun_ns: None,
            ending: None,
        }
    }

    /// Messages are on their way in the open transaction.
    pub fn add(&mut self, messages: u64, now_ns: u64) {
        self.messages += messages;
        self.begun_ns.get_or_insert(now_ns);
    }

    pub fn is_open(&self) -> bool {
        self.messages > 0
    }

    /// Whether nothing more belongs into the open transaction.
    pub fn is_full(&self, now_ns: u64) -> bool {
        let is_old = |begun_ns: u64| now_ns.saturating_sub(begun_ns) >= self.limits.open_ns_max;
        self.ending.is_some()
            || self.messages >= self.limits.messages_max
            || self.begun_ns.is_some_and(is_old)
    }

    /// When the open transaction is old enough to be committed.
    pub fn due_ns(&self) -> Option<u64> {
        match &self.ending {
            None => self.begun_ns.map(|begun_ns| begun_ns.saturating_add(self.limits.open_ns_max)),
            Some(Ending { sent: None, not_before_ns, .. }) => Some(*not_before_ns),
            Some(_) => None,
        }
    }

    /// Begins to end the open transaction; nothing if that is under way.
    pub fn begin_to_end(&mut self, now_ns: u64) {
        self.ending.get_or_insert(Ending { begun_ns: now_ns, sent: None, not_before_ns: now_ns });
    }

    /// Whether EndTxn is to be sent now.
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.sent.is_none() && now_ns >= ending.not_before_ns)
    }

    /// The request, which goes out on `link`.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn request(
        &mut self,
        link: usize,
        correlation_id: i32,
        (producer_id, producer_epoch): (i64, i16),
        now_ns: u64,
    ) -> Result<Vec<u8>> {
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(StrBytes::from_string(self.transactional_id.clone())))
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(producer_epoch)
            .with_committed(true);
        if let Some(ending) = &mut self.ending {
            ending.sent = Some((link, correlation_id, now_ns));
        }
        encode_request(&request, END_TXN_VERSION, correlation_id)
    }

    /// Whether the next frame on `link` answers EndTxn.
    pub fn waits_on(&self, link: usize) -> bool {
        self.sent().is_some_and(|(on, ..)| on == link)
    }

    /// The link that has been silent for longer than `timeout_ns` after EndTxn.
    pub fn silent_link(&self, now_ns: u64, timeout_ns: u64) -> Option<usize> {
        let (link, _, sent_ns) = self.sent()?;
        (now_ns.saturating_sub(sent_ns) > timeout_ns).then_some(link)
    }

    fn sent(&self) -> Option<(usize, i32, u64)> {
        self.ending.as_ref().and_then(|ending| ending.sent)
    }

    /// The link broke: the request is to be sent again, as it was.
    pub fn on_lost(&mut self, link: usize, now_ns: u64) {
        if let Some(ending) =
            self.ending.as_mut().filter(|ending| ending.sent.is_some_and(|(on, ..)| on == link))
        {
            ending.sent = None;
            ending.not_before_ns = now_ns + BACKOFF_NS;
        }
    }

    /// Takes in the answer.
    ///
    /// # Errors
    /// What the coordinator refuses for good, or still refuses after `give_up_ns`.
    pub fn on_answer(&mut self, frame: Bytes, now_ns: u64, give_up_ns: u64) -> Result<Ended> {
        let (correlation_id, response) =
            decode_response::<EndTxnRequest>(frame, END_TXN_VERSION).context("decoding an EndTxn reply")?;
        let ending = self.ending.as_mut().context("an EndTxn reply to no request")?;
        let (_, expected, _) = ending.sent.take().context("an EndTxn reply to no request")?;
        anyhow::ensure!(correlation_id == expected, "reply {correlation_id} where {expected} was due");
        let took_ns = now_ns.saturating_sub(ending.begun_ns);
        match response.error_code.err() {
            None => {
                (self.messages, self.begun_ns, self.ending) = (0, None, None);
                let identity = (response.producer_id.0, response.producer_epoch);
                Ok(Ended::Committed { identity, took_ns })
            }
            Some(error) if took_ns < give_up_ns && may_pass(&error) => {
                ending.not_before_ns = now_ns + BACKOFF_NS;
                Ok(Ended::Again)
            }
            Some(error) => bail!(
                "committing a transaction of {}: {error} after {} ms",
                self.transactional_id,
                took_ns / MILLISECOND_NS
            ),
        }
    }
}

/// Whether a coordinator may answer otherwise a moment later.
pub fn may_pass(error: &ResponseError) -> bool {
    is_transient(error)
        || matches!(
            error,
            ResponseError::ConcurrentTransactions
                | ResponseError::CoordinatorLoadInProgress
                | ResponseError::CoordinatorNotAvailable
                | ResponseError::NotCoordinator
        )
}
