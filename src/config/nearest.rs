//! Finds the known name that an unknown one was probably meant to be.

/// The candidate with the fewest typing errors between it and `name`; `None` when there is none at all.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    // A name of any length may come over the wire; what is far longer than every known one is like none.
    if name.len() > 200 {
        return None;
    }
    candidates.min_by_key(|candidate| distance(&name, &candidate.to_ascii_lowercase()))
}

/// Levenshtein's distance: how many letters to insert, delete or replace.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, left_char) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, right_char) in right.iter().enumerate() {
            let replaced = previous[column] + usize::from(left_char != *right_char);
            let inserted_or_deleted = previous[column + 1].min(current[column]) + 1;
            current.push(replaced.min(inserted_or_deleted));
        }
        previous = current;
    }
    previous.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn the_textbook_distance_comes_out() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn the_name_with_the_fewest_errors_is_nearest() {
        let known = ["log.segment.bytes", "log.retention.bytes", "shards"];
        assert_eq!(nearest("log.segmnt.byte", known.into_iter()), Some("log.segment.bytes"));
        assert_eq!(nearest("SHARD", known.into_iter()), Some("shards"));
        assert_eq!(nearest(&"x".repeat(10_000), known.into_iter()), None);
    }
}
