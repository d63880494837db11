//! Channels between shards: one bounded queue for each ordered pair.
//!
//! Sending to a full queue waits, which is the back-pressure between shards. Only `shard::request` values cross.

use std::time::Duration;

use glommio::channels::shared_channel::{
    self, ConnectedReceiver, ConnectedSender, SharedReceiver, SharedSender,
};

/// How often a shard looks whether the others have joined, while it joins.
const CONNECT_LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Messages that one ordered pair of shards may have under way.
pub const MESH_QUEUE_COUNT: usize = 1024;

/// One shard's unconnected ends; moves to the shard's thread, then joins.
pub struct MeshEnds<T: Send> {
    shard: usize,
    senders: Vec<Option<SharedSender<T>>>,
    receivers: Vec<Option<SharedReceiver<T>>>,
}

/// One shard's connected ends.
pub struct Mesh<T: Send + 'static> {
    shard: usize,
    senders: Vec<Option<ConnectedSender<T>>>,
}

/// What arrives from one other shard.
pub struct MeshReceiver<T: Send + 'static> {
    /// The shard that sends here.
    pub from: usize,
    receiver: ConnectedReceiver<T>,
}

/// Makes the ends of a full mesh between `shards` shards, in shard order.
pub fn mesh<T: Send>(shards: usize) -> Vec<MeshEnds<T>> {
    let mut ends: Vec<MeshEnds<T>> = (0..shards)
        .map(|shard| MeshEnds {
            shard,
            senders: (0..shards).map(|_| None).collect(),
            receivers: (0..shards).map(|_| None).collect(),
        })
        .collect();
    for from in 0..shards {
        for to in (0..shards).filter(|to| *to != from) {
            let (sender, receiver) = shared_channel::new_bounded(MESH_QUEUE_COUNT);
            ends[from].senders[to] = Some(sender);
            ends[to].receivers[from] = Some(receiver);
        }
    }
    ends
}

impl<T: Send + 'static> MeshEnds<T> {
    /// Connects with the other shards; resolves when each of them has joined too.
    pub async fn join(self) -> (Mesh<T>, Vec<MeshReceiver<T>>) {
        // A peer that connects later does not wake an executor that sleeps: look again until all have met.
        let _looking = glommio::spawn_local(async {
            loop {
                glommio::timer::sleep(CONNECT_LOOK_INTERVAL).await;
            }
        });
        // Every connect waits for its peer, so all of them run at once or two shards would wait for each other.
        let senders: Vec<_> =
            self.senders.into_iter().map(|end| end.map(|end| glommio::spawn_local(end.connect()))).collect();
        let receivers: Vec<_> = self
            .receivers
            .into_iter()
            .enumerate()
            .filter_map(|(from, end)| end.map(|end| (from, glommio::spawn_local(end.connect()))))
            .collect();
        let mut mesh = Mesh { shard: self.shard, senders: Vec::with_capacity(senders.len()) };
        for sender in senders {
            mesh.senders.push(match sender {
                Some(connecting) => Some(connecting.await),
                None => None,
            });
        }
        let mut incoming = Vec::with_capacity(receivers.len());
        for (from, connecting) in receivers {
            incoming.push(MeshReceiver { from, receiver: connecting.await });
        }
        (mesh, incoming)
    }
}

impl<T: Send + 'static> Mesh<T> {
    /// This shard's number.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.senders.len()
    }

    /// Sends to shard `to`, waiting while its queue is full.
    ///
    /// # Errors
    /// The message comes back when that shard has stopped, or when `to` is this shard.
    pub async fn send(&self, to: usize, message: T) -> Result<(), T> {
        let Some(Some(sender)) = self.senders.get(to) else {
            return Err(message);
        };
        match sender.try_send(message) {
            Ok(()) => Ok(()),
            Err(error) => sender.send(unsent(error)?).await.map_err(unsent_whatever),
        }
    }
}

fn unsent<T>(error: glommio::GlommioError<T>) -> Result<T, T> {
    match error {
        glommio::GlommioError::WouldBlock(glommio::ResourceType::Channel(message)) => Ok(message),
        other => Err(unsent_whatever(other)),
    }
}

fn unsent_whatever<T>(error: glommio::GlommioError<T>) -> T {
    match error {
        glommio::GlommioError::Closed(glommio::ResourceType::Channel(message))
        | glommio::GlommioError::WouldBlock(glommio::ResourceType::Channel(message)) => message,
        other => unreachable!("a channel fails only by being full or closed: {other}"),
    }
}

impl<T: Send + 'static> MeshReceiver<T> {
    /// The next message; `None` when the sending shard has stopped.
    pub async fn recv(&self) -> Option<T> {
        self.receiver.recv().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::mesh;
    use crate::runtime::executor::{ExecutorOptions, start};

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
                    spin: Duration::ZERO,
                    blocking_threads: 2,
                };
                start(options, move || async move {
                    let (mesh, receivers) = ends.join().await;
                    let receiving: Vec<_> = receivers
                        .into_iter()
                        .map(|receiver| {
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
