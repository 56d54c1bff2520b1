//! Rounds: every subject is measured once in each, so that what else the machine does in the
//! meantime strikes all of them alike.

use anyhow::{Context, Result};

/// What a subject yielded, in the order of the rounds.
#[derive(Debug, Clone)]
pub struct Series<T> {
    /// The subject's name.
    pub name: String,
    /// One value for each round.
    pub values: Vec<T>,
}

/// Measures each subject once to warm up, which counts for nothing, and then `rounds` times. Who
/// comes first changes from round to round.
///
/// # Errors
/// A measurement fails; the subject is named.
pub fn interleave<S, T>(
    subjects: &mut [(String, S)],
    rounds: usize,
    mut measure: impl FnMut(&mut S) -> Result<T>,
) -> Result<Vec<Series<T>>> {
    let mut series: Vec<Series<T>> = subjects
        .iter()
        .map(|(name, _)| Series {
            name: name.clone(),
            values: Vec::with_capacity(rounds),
        })
        .collect();
    let count = subjects.len();
    for round in 0..=rounds {
        for place in 0..count {
            let index = (place + round) % count;
            let (Some((name, subject)), Some(into)) =
                (subjects.get_mut(index), series.get_mut(index))
            else {
                continue;
            };
            let value = measure(subject).with_context(|| format!("measure {name}"))?;
            if round > 0 {
                into.values.push(value);
            }
        }
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_take_turns_and_the_first_round_does_not_count() {
        let mut order = Vec::new();
        let mut subjects = [("a".to_owned(), 'a'), ("b".to_owned(), 'b')];
        let series = interleave(&mut subjects, 2, |subject| {
            order.push(*subject);
            Ok(order.len())
        })
        .unwrap();
        assert_eq!(order, ['a', 'b', 'b', 'a', 'a', 'b']);
        assert_eq!(series[0].values, [4, 5]);
        assert_eq!(series[1].values, [3, 6]);
    }
}
