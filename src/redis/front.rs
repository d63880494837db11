//! What the Redis connections of one shard share.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::client_table::ClientTable;
use super::command::CommandTable;
use super::fan_out::FanOut;
use super::link::Link;
use super::resp;
use super::writes::Rounds;
use crate::broker::Broker;
use crate::config::Config;
use crate::runtime;
use crate::runtime::receive_buffer::SpareRooms;

/// Shared by the Redis connections of one shard; one on each shard.
pub struct Front {
    /// The verbs.
    pub(super) broker: Rc<Broker>,
    /// The commands there are.
    pub(super) commands: CommandTable,
    /// The limits in force when the shard started.
    pub(super) limits: Limits,
    /// Every client of the server.
    pub(super) clients: Arc<ClientTable>,
    /// The readers behind the subscriptions of this shard.
    pub(super) fan_out: Rc<FanOut>,
    /// What its connections append together.
    pub(super) rounds: Rc<Rounds>,
    /// What connections left over of their read buffers.
    pub(super) spare_rooms: Rc<SpareRooms>,
    /// The port of the door, for INFO.
    pub(super) port: u16,
    links: RefCell<Vec<Weak<Link>>>,
    is_watching: Cell<bool>,
}

/// What one connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Of one command.
    pub(super) command: resp::Limits,
    /// The largest reply to one command.
    pub(super) reply_bytes: usize,
    /// Bytes of pushes that wait for a subscriber's socket.
    pub(super) push_buffer_bytes: usize,
    /// From a push's reaching the socket until it counts as read by a durable subscription.
    pub(super) acknowledge_delay: Duration,
    /// Subscriptions of one connection.
    pub(super) subscriptions: usize,
    /// Bytes of the commands between MULTI and EXEC.
    pub(super) transaction_bytes: usize,
}

impl Limits {
    fn of(config: &Config) -> Self {
        Limits {
            command: resp::Limits {
                bulk_bytes: config.redis_bulk_max_bytes,
                elements: config.redis_array_elements_max,
                command_bytes: config.redis_query_buffer_max_bytes,
            },
            reply_bytes: config.redis_reply_max_bytes,
            push_buffer_bytes: config.redis_push_buffer_bytes,
            acknowledge_delay: Duration::from_millis(config.redis_subscription_acknowledge_delay_ms),
            subscriptions: config.redis_subscriptions_max,
            transaction_bytes: config.redis_query_buffer_max_bytes,
        }
    }
}

impl Front {
    /// The Redis door of one shard.
    pub fn new(broker: Rc<Broker>, clients: Arc<ClientTable>, port: u16) -> Rc<Self> {
        let limits = Limits::of(&broker.config());
        Rc::new(Front {
            fan_out: FanOut::new(broker.clone(), limits.push_buffer_bytes as u64),
            broker,
            commands: CommandTable::new(),
            limits,
            clients,
            rounds: Rc::default(),
            spare_rooms: Rc::default(),
            port,
            links: RefCell::default(),
            is_watching: Cell::new(false),
        })
    }

    /// Has a connection ended when the server stops.
    pub(super) fn watch(self: &Rc<Self>, link: &Rc<Link>) {
        let mut links = self.links.borrow_mut();
        if links.len() == links.capacity() {
            links.retain(|link| link.strong_count() > 0);
        }
        links.push(Rc::downgrade(link));
        if !self.is_watching.replace(true) {
            let front = self.clone();
            runtime::spawn_detached(async move {
                front.broker.stopping().await;
                for link in front.links.take().iter().filter_map(Weak::upgrade) {
                    link.end();
                }
                front.is_watching.set(false);
            });
        }
    }
}
