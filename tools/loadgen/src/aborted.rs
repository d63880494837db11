//! Which batches of a fetch at read_committed are to be dropped: those of the aborted transactions that the reply names.

use std::collections::{HashSet, VecDeque};

use kafka_protocol::messages::fetch_response::PartitionData;

use crate::batch_view::BatchView;

/// The aborted transactions of one partition's answer, as far as its batches have been walked.
pub struct Aborted {
    /// (first offset, producer id), oldest first.
    to_come: VecDeque<(i64, i64)>,
    /// Producers whose present transaction is aborted further on.
    producers: HashSet<i64>,
}

impl Aborted {
    pub fn new(data: &PartitionData) -> Self {
        let aborted = data.aborted_transactions.iter().flatten();
        let mut to_come: Vec<(i64, i64)> =
            aborted.map(|aborted| (aborted.first_offset, aborted.producer_id.0)).collect();
        to_come.sort_unstable();
        Self { to_come: to_come.into(), producers: HashSet::new() }
    }

    /// Whether the next batch holds messages that count. Markers hold none.
    pub fn keeps(&mut self, batch: &BatchView<'_>) -> bool {
        while let Some(&(first_offset, producer_id)) = self.to_come.front()
            && first_offset <= batch.last_offset
        {
            self.producers.insert(producer_id);
            self.to_come.pop_front();
        }
        if batch.is_control() {
            // Whatever the marker says: the producer's transaction ends here.
            self.producers.remove(&batch.producer_id);
            return false;
        }
        !(batch.is_transactional() && self.producers.contains(&batch.producer_id))
    }
}
