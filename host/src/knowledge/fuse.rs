//! Joins two rankings into one by reciprocal rank: scores of different kinds are never compared, only places. Pure.

use std::collections::HashMap;

use super::catalog::PassageRef;

/// How little the difference between the first places counts; the usual value.
const DAMPING: f32 = 60.0;

/// Passages of both rankings, best first. The score is 1 for what is first in both, and less for everything else.
pub(super) fn by_reciprocal_rank(rankings: [&[PassageRef]; 2]) -> Vec<(PassageRef, f32)> {
    let best = 2.0 / (DAMPING + 1.0);
    let mut scores: HashMap<PassageRef, f32> = HashMap::new();
    let mut order = Vec::new();
    for ranking in rankings {
        for (place, passage) in (1_u16..).zip(ranking) {
            let score = scores.entry(*passage).or_insert_with(|| {
                order.push(*passage);
                0.0
            });
            *score += 1.0 / (DAMPING + f32::from(place)) / best;
        }
    }
    let mut fused: Vec<(PassageRef, f32)> = order.into_iter().map(|passage| (passage, scores[&passage])).collect();
    // Stable, so that of two equal ones that of the first ranking stays first.
    fused.sort_by(|(_, left), (_, right)| right.total_cmp(left));
    fused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refs(versions: &[u64]) -> Vec<PassageRef> {
        versions.iter().map(|version| PassageRef { version: *version, passage: 0 }).collect()
    }

    fn fused(left: &[u64], right: &[u64]) -> Vec<u64> {
        let fused = by_reciprocal_rank([&refs(left), &refs(right)]);
        assert!(fused.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        assert!(fused.iter().all(|(_, score)| *score > 0.0 && *score <= 1.0));
        fused.into_iter().map(|(passage, _)| passage.version).collect()
    }

    #[test]
    fn what_both_find_comes_first() {
        assert_eq!(fused(&[1, 2, 3], &[3, 4]), [3, 1, 2, 4]);
        assert_eq!(fused(&[1, 2], &[2, 1]), [1, 2], "a draw goes to the first ranking");
        assert_eq!(fused(&[1, 2], &[]), [1, 2]);
        assert_eq!(fused(&[], &[1, 2]), [1, 2]);
        assert_eq!(fused(&[], &[]), Vec::<u64>::new());
        assert_eq!(by_reciprocal_rank([&refs(&[7]), &refs(&[7])])[0].1, 1.0);
    }
}
