//! Channels between shards: one bounded queue for each ordered pair.
//!
//! Sending to a full queue waits, which is the back-pressure between shards. A receiver is woken only when it waits, so
//! a burst costs one wake across threads. Only `shard::request` values cross.

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::executor::yield_if_needed;

/// Messages that one ordered pair of shards may have under way.
pub const MESH_QUEUE_COUNT: usize = 1024;

/// One shard's ends before it runs; moves to the shard's thread, then joins.
pub struct MeshEnds<T: Send> {
    mesh: Mesh<T>,
    receivers: Vec<MeshReceiver<T>>,
}

/// One shard's sending ends.
pub struct Mesh<T: Send> {
    shard: usize,
    senders: Vec<Option<Sender<T>>>,
}

/// What arrives from one other shard.
pub struct MeshReceiver<T: Send> {
    /// The shard that sends here.
    pub from: usize,
    receiver: Receiver<T>,
}

/// Makes the ends of a full mesh between `shards` shards, in shard order.
pub fn mesh<T: Send>(shards: usize) -> Vec<MeshEnds<T>> {
    let mut ends: Vec<MeshEnds<T>> = (0..shards)
        .map(|shard| MeshEnds {
            mesh: Mesh { shard, senders: (0..shards).map(|_| None).collect() },
            receivers: Vec::with_capacity(shards),
        })
        .collect();
    for from in 0..shards {
        for to in (0..shards).filter(|to| *to != from) {
            let (sender, receiver) = channel(MESH_QUEUE_COUNT);
            ends[from].mesh.senders[to] = Some(sender);
            ends[to].receivers.push(MeshReceiver { from, receiver });
        }
    }
    ends
}

impl<T: Send> MeshEnds<T> {
    /// The ends to work with. What is sent to a shard that has not joined yet waits in its queue.
    pub fn join(self) -> (Mesh<T>, Vec<MeshReceiver<T>>) {
        (self.mesh, self.receivers)
    }
}

impl<T: Send> Mesh<T> {
    /// This shard's number.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.senders.len()
    }

    /// Sends to shard `to`, waiting while its queue is full; who waits first is sent first.
    ///
    /// # Errors
    /// The message comes back when that shard has stopped, or when `to` is this shard.
    pub async fn send(&self, to: usize, message: T) -> Result<(), T> {
        let Some(Some(sender)) = self.senders.get(to) else {
            return Err(message);
        };
        match sender.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(message)) => Err(message),
            Err(TrySendError::Full(message)) => sender.send(message).await.map_err(|unsent| unsent.0),
        }
    }
}

impl<T: Send> MeshReceiver<T> {
    /// The next message; `None` when the sending shard has stopped and all it sent has been received.
    pub async fn recv(&mut self) -> Option<T> {
        yield_if_needed().await; // a queue that is never empty must not keep the shard to itself
        self.receiver.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::mesh;
    use crate::runtime::executor::{ExecutorOptions, start};
    use crate::runtime::spin::Spin;

    #[test]
    fn every_shard_hears_every_other_in_order() {
        const SHARDS: usize = 3;
        const MESSAGES: u64 = 5_000; // more than a queue holds
        let executors: Vec<_> = mesh::<(usize, u64)>(SHARDS)
            .into_iter()
            .enumerate()
            .map(|(shard, ends)| {
                let options = ExecutorOptions {
                    name: format!("mesh-{shard}"),
                    cpu: None,
                    spin: Spin::Never,
                    blocking_threads: 2,
                };
                start(options, move || async move {
                    let (mesh, receivers) = ends.join();
                    let receiving: Vec<_> = receivers
                        .into_iter()
                        .map(|mut receiver| {
                            crate::runtime::spawn(async move {
                                for expected in 0..MESSAGES {
                                    assert_eq!(receiver.recv().await, Some((receiver.from, expected)));
                                }
                            })
                        })
                        .collect();
                    for number in 0..MESSAGES {
                        for to in (0..SHARDS).filter(|to| *to != shard) {
                            assert!(mesh.send(to, (shard, number)).await.is_ok());
                        }
                    }
                    for task in receiving {
                        task.await;
                    }
                    assert!(mesh.send(shard, (shard, 0)).await.is_err(), "a shard does not send to itself");
                })
                .unwrap()
            })
            .collect();
        for executor in executors {
            executor.join().unwrap();
        }
    }
}
