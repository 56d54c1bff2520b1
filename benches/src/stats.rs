//! Statistics of a few repeated measurements.

use serde::Serialize;

/// Median, minimum and maximum of some values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// The value in the middle, or the mean of the two there.
    pub median: f64,
    /// The minimum.
    pub min: f64,
    /// The maximum.
    pub max: f64,
    /// How many there are.
    pub count: usize,
}

impl Summary {
    /// Summarises values. There must be at least one.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = match sorted.len() % 2 {
            1 => upper,
            _ => f64::midpoint(*sorted.get(middle - 1)?, upper),
        };
        Some(Self {
            median,
            min,
            max,
            count: sorted.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let of = |values: &[f64]| Summary::of(values.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[3.0, 1.0, 2.0]).unwrap().median, 2.0);
        let four = of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((four.median, four.min, four.max), (2.5, 1.0, 4.0));
    }
}
