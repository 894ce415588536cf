//! Medians, spreads, and ratios of rounds.
//!
//! A ratio is formed within each round, of two figures taken a few seconds apart, and only then
//! the median of the ratios: drift of the machine goes out of it, which a ratio of two medians
//! would keep.

/// What the rounds of one figure come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// Of some figures; `None` of none.
pub fn spread(figures: &[f64]) -> Option<Spread> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    Some(Spread { median, min, max })
}

/// The ratios of `own` to `other`, round by round, for rounds that have both.
pub fn ratios(own: &[(u32, f64)], other: &[(u32, f64)]) -> Vec<f64> {
    own.iter()
        .filter_map(|(round, figure)| {
            let (_, base) = other.iter().find(|(of, _)| of == round)?;
            (*base > 0.0).then(|| figure / base)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_odd_and_of_an_even_number() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 9.0]), Some(Spread { median: 3.0, min: 1.0, max: 9.0 }));
        assert_eq!(spread(&[4.0, 2.0]), Some(Spread { median: 3.0, min: 2.0, max: 4.0 }));
    }

    #[test]
    fn a_ratio_is_of_one_round() {
        // The machine halves its speed from round to round; the ratio does not move.
        let own = [(0, 400.0), (1, 200.0), (2, 100.0)];
        let other = [(0, 200.0), (1, 100.0), (3, 1.0)];
        assert_eq!(ratios(&own, &other), [2.0, 2.0]);
        assert!(ratios(&own, &[(0, 0.0)]).is_empty());
    }
}
