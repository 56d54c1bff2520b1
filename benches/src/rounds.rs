//! Rounds: each round measures every subject once, so that other work on the machine affects all
//! subjects alike.

use std::time::Instant;

use anyhow::{Context, Result};

/// The results of a subject, in the order of the rounds.
#[derive(Debug, Clone)]
pub struct Series<T> {
    /// The subject's name.
    pub name: String,
    /// One value for each round.
    pub values: Vec<T>,
}

/// Measures each subject once to warm up, without recording it, and then `rounds` times. Each round
/// starts with another subject.
///
/// # Errors
/// A measurement fails; the subject is named.
pub fn interleave<S, T>(
    subjects: &mut [(String, S)],
    rounds: usize,
    measure: impl FnMut(&mut S) -> Result<T>,
) -> Result<Vec<Series<T>>> {
    interleave_until(subjects, rounds, None, measure)
}

/// Like [`interleave`], but no round begins after `end`. If no round could begin, the values of the
/// warm-up count.
///
/// # Errors
/// As for [`interleave`].
pub fn interleave_until<S, T>(
    subjects: &mut [(String, S)],
    rounds: usize,
    end: Option<Instant>,
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
        let late = end.is_some_and(|end| Instant::now() >= end);
        if round > 0 && late {
            break;
        }
        for place in 0..count {
            let index = (place + round) % count;
            let (Some((name, subject)), Some(into)) =
                (subjects.get_mut(index), series.get_mut(index))
            else {
                continue;
            };
            let value = measure(subject).with_context(|| format!("measure {name}"))?;
            if round == 1 {
                into.values.clear();
            }
            into.values.push(value);
        }
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warm_up_counts_when_there_is_no_time() {
        let mut subjects = [("a".to_owned(), 1), ("b".to_owned(), 2)];
        let end = Some(Instant::now());
        let series = interleave_until(&mut subjects, 3, end, |subject| Ok(*subject)).unwrap();
        assert_eq!(series[0].values, [1]);
        assert_eq!(series[1].values, [2]);
    }

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
