//! One task for each connection: reads many requests at a time, handles them in order, sends replies in that order.
//!
//! Lives on: the shard that serves the connection, which may change between two requests (see [`ConnectionEnd`]).
//! Promise: replies leave in the order of the requests; a request is started only after the one before it was
//! dispatched. Only Produce goes on after that, so only it overlaps. A parked Fetch or JoinGroup holds the connection,
//! and is dropped when the client hangs up.
//! Bounds: beyond `connection.inflight.max.bytes` or `shard.inflight.max.bytes` of requests under way the socket is not
//! read, which is the client's back-pressure; replies that the client does not take stop it as well.
//! Does not: know any API (see [`super::api`]).

mod link;
mod replies;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use futures_lite::future::{self, poll_once};

use super::api::{self, Answer, ApiKey, Outcome, RequestContext};
use super::frame::{self, Found};
use super::front::Front;
use super::share_session::ShareSessions;
use super::wire::Malformed;
use crate::model::ShardId;
use crate::runtime::receive_buffer::ReceiveBuffer;
use crate::runtime::tcp::Stream;
use crate::runtime::{catch_panic, timeout, yield_if_needed};

pub(super) use link::Link;

/// Replies that wait while more requests lie in the buffer, before they are sent all the same.
const UNSENT_REPLIES_MAX_BYTES: usize = 256 << 10;
/// Bytes read ahead while a request is parked; a client that sends more is not read until the answer.
const READ_AHEAD_MAX_BYTES: usize = 64 << 10;
/// How long a parked request may take to be answered once the server stops.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Requests between two looks at whether the connection would be better off on another shard.
const HOME_CHECK_REQUESTS: u32 = 64;

/// How a connection's time on this shard ended.
pub enum ConnectionEnd {
    /// It is closed.
    Closed,
    /// Nearly all of its work belongs to another shard: carry it there and [`resume`] it.
    HandOver {
        /// The shard that it should go to.
        shard: ShardId,
        /// The socket, with nothing under way on it.
        stream: Stream,
        /// Bytes that were read and belong to requests not yet handled.
        leftover: BytesMut,
        /// What else the connection is.
        state: ConnectionState,
    },
}

/// What a connection carries from shard to shard.
#[derive(Debug, Clone)]
pub struct ConnectionState {
    /// Who is connected.
    pub peer: SocketAddr,
}

/// Serves a new connection until it closes or should move.
pub async fn serve(stream: Stream, peer: SocketAddr, leftover: BytesMut, front: Rc<Front>) -> ConnectionEnd {
    resume(stream, ConnectionState { peer }, leftover, front).await
}

/// Serves a connection that came from another shard until it closes or should move again.
pub async fn resume(
    stream: Stream,
    state: ConnectionState,
    leftover: BytesMut,
    front: Rc<Front>,
) -> ConnectionEnd {
    let Ok(dialled) = stream.local_addr() else { return ConnectionEnd::Closed };
    let link = Rc::new(Link::new(stream));
    front.watch(&link);
    let peer = state.peer;
    let spare = front.spare_rooms.clone();
    let connection = Connection {
        share_sessions: ShareSessions::new(front.clone()),
        front,
        link: link.clone(),
        peer,
        dialled,
        buffer: ReceiveBuffer::new(leftover, spare),
        work: Work::default(),
    };
    match catch_panic(connection.run()).await {
        Ok(Ok(Some((shard, leftover)))) => match Rc::try_unwrap(link).map(Link::into_stream) {
            Ok(Some(stream)) => return ConnectionEnd::HandOver { shard, stream, leftover, state },
            // Neither can be: nothing was under way.
            Ok(None) => {}
            Err(link) => link.close(),
        },
        Ok(Ok(None)) => link.close(),
        Ok(Err(error)) => {
            match error {
                ConnectionError::Malformed(error) => tracing::warn!(%peer, %error, "closing a connection"),
                ConnectionError::Refused(reason) => tracing::debug!(%peer, reason, "closing a connection"),
                ConnectionError::Io(error) => tracing::debug!(%peer, %error, "lost a connection"),
            }
            link.close();
        }
        Err(panic) => {
            tracing::error!(%peer, panic, "a connection failed");
            link.close();
        }
    }
    ConnectionEnd::Closed
}

/// Why a connection ends other than by the client's wish.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    /// The client does not speak our protocol.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A request's answer is the end of the connection.
    #[error("{0}")]
    Refused(String),
    /// The socket is gone.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where the connection's work belongs, by owning shard.
#[derive(Debug, Default)]
pub(super) struct Work {
    by_shard: RefCell<Vec<u64>>,
    requests: Cell<u32>,
}

impl Work {
    /// What one partition or group costs beside its bytes.
    const VISIT_BYTES: u64 = 4096;

    /// Counts a visit to a partition or group of `shard` that moves `bytes`.
    pub(super) fn count(&self, shard: ShardId, bytes: usize) {
        let mut by_shard = self.by_shard.borrow_mut();
        if by_shard.len() <= shard {
            by_shard.resize(shard + 1, 0);
        }
        by_shard[shard] = by_shard[shard].saturating_add(Self::VISIT_BYTES + bytes as u64);
    }

    /// Whether it is time to look for a better home; forgets half of what was counted when it is.
    fn is_due(&self) -> bool {
        let requests = self.requests.get() + 1;
        self.requests.set(requests % HOME_CHECK_REQUESTS);
        requests == HOME_CHECK_REQUESTS
    }

    /// Whether there was any.
    fn is_none(&self) -> bool {
        self.by_shard.borrow().iter().all(|bytes| *bytes == 0)
    }

    fn fade(&self) {
        self.by_shard.borrow_mut().iter_mut().for_each(|bytes| *bytes /= 2);
    }
}

struct Connection {
    front: Rc<Front>,
    link: Rc<Link>,
    peer: SocketAddr,
    dialled: SocketAddr,
    buffer: ReceiveBuffer,
    work: Work,
    share_sessions: ShareSessions,
}

impl Connection {
    /// Serves until the end (`None`) or until the connection should move: where to, and what was read already.
    async fn run(mut self) -> Result<Option<(ShardId, BytesMut)>, ConnectionError> {
        let mut better_home = None;
        loop {
            while let Found::Whole(size) =
                frame::find(self.buffer.bytes(), self.front.limits.request_max_bytes)?
            {
                if self.link.is_closed() || self.link.is_stopping() {
                    break;
                }
                self.wait_for_room().await;
                let frame = self.buffer.take_frame(size);
                if let Err(error) = self.handle(frame).await {
                    self.link.flush().await; // what was answered before is still the client's
                    return Err(error);
                }
                if self.link.unsent_bytes() > UNSENT_REPLIES_MAX_BYTES {
                    self.link.flush().await;
                }
                if self.work.is_due() && !self.work.is_none() && self.share_sessions.is_empty() {
                    better_home = self.front.broker.better_home(&self.work.by_shard.borrow());
                    self.work.fade();
                }
                yield_if_needed().await;
                if better_home.is_some() {
                    break;
                }
            }
            self.link.flush().await;
            if self.link.is_closed() {
                return Ok(None);
            }
            if self.link.is_stopping() {
                self.link.wait_until_sent().await;
                return Ok(None);
            }
            if let Some(shard) = better_home.take() {
                self.link.wait_until_sent().await;
                return Ok(Some((shard, self.buffer.into_bytes())));
            }
            if self.buffer.fill(self.link.stream(), frame::size_hint(self.buffer.bytes())).await? == 0 {
                // The client has said its last; what it asked before is answered all the same.
                self.link.wait_until_sent().await;
                return Ok(None);
            }
            self.link.touch();
        }
    }

    /// Waits until the connection and the shard have room for one more request. A connection with nothing under way
    /// always has: one large request is taken alone.
    async fn wait_for_room(&self) {
        let limit = self.front.limits.connection_inflight_max_bytes;
        if self.link.inflight_bytes() >= limit || self.link.unsent_bytes() >= limit {
            self.link.flush().await;
            self.link.wait_while(|link| link.inflight_bytes() >= limit || link.unsent_bytes() >= limit).await;
        }
        self.front.may_read().await;
    }

    /// Starts one request and, unless it goes on behind the next, sees it through.
    async fn handle(&mut self, frame: BytesMut) -> Result<(), ConnectionError> {
        let inflight = self.front.count_inflight(frame.len());
        let (header, body) = frame::split_header(frame)?;
        if !header.row.serves(header.version) {
            if header.row.key != ApiKey::ApiVersions {
                return Err(ConnectionError::Malformed(Malformed(format!(
                    "{} version {} is not served",
                    header.row.name, header.version
                ))));
            }
            let ticket = self.link.open(inflight);
            self.link.answer(ticket, api::api_versions_too_new(&header));
            return Ok(());
        }
        tracing::trace!(peer = %self.peer, api = header.row.name, version = header.version, "request");
        let ticket = self.link.open(inflight);
        let ctx = RequestContext {
            header,
            front: &self.front,
            peer: self.peer,
            dialled: self.dialled,
            work: &self.work,
            share_sessions: &self.share_sessions,
        };
        let mut answering = pin!(api::answer(&ctx, body));
        let answer = match poll_once(answering.as_mut()).await {
            Some(answer) => answer?,
            None if !ctx.header.row.may_park() => {
                self.link.flush().await;
                answering.await?
            }
            None => {
                self.link.flush().await;
                match while_connected(answering, &mut self.buffer, &self.link).await? {
                    Some(answer) => answer?,
                    None => return Ok(()), // the client has hung up; the next read says so too
                }
            }
        };
        let outcome = match answer {
            Answer::Now(outcome) => outcome,
            Answer::Later(mut finishing) => match poll_once(&mut finishing).await {
                Some(outcome) => outcome,
                None => {
                    self.link.finish_later(ticket, finishing);
                    return Ok(());
                }
            },
        };
        match outcome {
            Outcome::Close(reason) => Err(ConnectionError::Refused(reason)),
            outcome => {
                self.link.answer(ticket, outcome);
                Ok(())
            }
        }
    }
}

/// What happened first while a request was parked.
enum First<T> {
    Answered(T),
    /// So many bytes came; none at all means that the client hung up.
    Read(io::Result<usize>),
}

/// Waits for a parked request's answer, reading on meanwhile to notice a client that hangs up: then `None`.
async fn while_connected<T>(
    mut answering: Pin<&mut impl Future<Output = T>>,
    buffer: &mut ReceiveBuffer,
    link: &Rc<Link>,
) -> Result<Option<T>, ConnectionError> {
    loop {
        if buffer.bytes().len() >= READ_AHEAD_MAX_BYTES {
            return Ok(Some(answering.await));
        }
        let answered = async { First::Answered(answering.as_mut().await) };
        let read = async {
            let hint = frame::size_hint(buffer.bytes());
            First::Read(buffer.fill(link.stream(), hint).await)
        };
        match future::or(answered, read).await {
            First::Answered(answer) => return Ok(Some(answer)),
            // The watch shuts the reading side when the server stops; the client still waits for its answer.
            First::Read(Ok(0)) if link.is_stopping() => {
                let answer = timeout(STOP_GRACE, answering).await;
                if answer.is_none() {
                    link.close();
                }
                return Ok(answer);
            }
            First::Read(Ok(0)) => {
                link.close();
                return Ok(None);
            }
            First::Read(Ok(_)) => {}
            First::Read(Err(error)) => return Err(error.into()),
        }
    }
}
