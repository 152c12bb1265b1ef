//! The vectors of passages: which are there, which are still to be made, and an exact search over them. Pure.
//!
//! All vectors have one dimension. One of another dimension is never compared with them: the model behind its name has
//! changed, so everything starts anew.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::catalog::{Indexed, PassageRef};

/// Vectors by the version of their text.
#[derive(Default)]
pub(super) struct Vectors {
    /// Numbers in a vector; unknown before the first one came.
    dimension: Option<usize>,
    documents: BTreeMap<u64, Entry>,
    /// Texts that have no vectors, oldest first; the vectors of the first may be there in part.
    waiting: VecDeque<u64>,
    bytes_max: usize,
    passages_ready: usize,
    left_out: usize,
}

struct Entry {
    indexed: Arc<Indexed>,
    /// One unit vector after the other, in the order of the passages.
    numbers: Arc<Vec<f32>>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Vectors are to be made.
    Waiting,
    /// All are there.
    Ready,
    /// There is no room for them.
    LeftOut,
}

/// The gateway's vectors have another length than those that are there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OtherDimension {
    pub(super) known: usize,
    pub(super) came: usize,
}

/// What to compare with, taken out so that comparing holds no lock.
pub(super) struct Comparable {
    rows: Vec<(u64, Arc<Vec<f32>>)>,
    dimension: usize,
}

impl Vectors {
    /// Nothing, with room for so many bytes of vectors.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    /// Takes a text whose vectors are to be made.
    pub(super) fn add(&mut self, indexed: Arc<Indexed>) {
        self.waiting.push_back(indexed.version);
        let entry = Entry { numbers: Arc::default(), stage: Stage::Waiting, indexed };
        self.documents.insert(entry.indexed.version, entry);
    }

    /// Forgets a text.
    pub(super) fn remove(&mut self, version: u64) {
        let Some(entry) = self.documents.remove(&version) else { return };
        match entry.stage {
            Stage::Waiting => self.waiting.retain(|waiting| *waiting != version),
            Stage::Ready => self.passages_ready -= entry.indexed.passage_count(),
            Stage::LeftOut => self.left_out -= 1,
        }
    }

    /// The next passages whose vectors are to be made, with their texts. Texts for which there is no room are left out
    /// for good.
    pub(super) fn next_batch(&mut self, max: usize) -> Vec<(PassageRef, String)> {
        self.leave_out_what_has_no_room();
        let dimension = self.dimension.unwrap_or(1);
        let mut batch = Vec::new();
        for version in &self.waiting {
            let entry = &self.documents[version];
            let done = entry.numbers.len() / dimension;
            let texts = (0_u32..).zip(entry.indexed.passages()).skip(done).take(max - batch.len());
            batch.extend(texts.map(|(passage, text)| (PassageRef { version: *version, passage }, text.to_owned())));
            if batch.len() == max {
                break;
            }
        }
        batch
    }

    fn leave_out_what_has_no_room(&mut self) {
        let Some(dimension) = self.dimension else { return };
        let vector_bytes = dimension * size_of::<f32>();
        while let Some(entry) = self.waiting.front().and_then(|version| self.documents.get_mut(version)) {
            let needed = self.passages_ready + entry.indexed.passage_count();
            if needed.saturating_mul(vector_bytes) <= self.bytes_max {
                return;
            }
            entry.stage = Stage::LeftOut;
            self.left_out += 1;
            self.waiting.pop_front();
        }
    }

    /// Takes the vectors of a batch, one for each passage. Those of texts that went meanwhile are dropped.
    pub(super) fn store(&mut self, batch: &[PassageRef], made: Vec<Vec<f32>>) -> Result<(), OtherDimension> {
        for (passage, vector) in batch.iter().zip(made) {
            let dimension = self.check_dimension(vector.len())?;
            let Some(entry) = self.documents.get_mut(&passage.version) else { continue };
            if entry.stage != Stage::Waiting || entry.numbers.len() != passage.passage as usize * dimension {
                continue;
            }
            Arc::make_mut(&mut entry.numbers).extend(unit(vector));
            let passages = entry.indexed.passage_count();
            if entry.numbers.len() == passages * dimension {
                entry.stage = Stage::Ready;
                self.passages_ready += passages;
                // Nearly always the first, because texts are taken in their order.
                match self.waiting.front() {
                    Some(first) if *first == passage.version => drop(self.waiting.pop_front()),
                    _ => self.waiting.retain(|waiting| *waiting != passage.version),
                }
            }
        }
        Ok(())
    }

    /// Whether a vector of this length can be compared with those that are there.
    pub(super) fn check_dimension(&mut self, came: usize) -> Result<usize, OtherDimension> {
        match *self.dimension.get_or_insert(came) {
            known if known == came => Ok(known),
            known => Err(OtherDimension { known, came }),
        }
    }

    /// Starts anew: every vector is made again.
    pub(super) fn start_anew(&mut self) {
        let texts: Vec<Arc<Indexed>> = self.documents.values().map(|entry| entry.indexed.clone()).collect();
        *self = Self::new(self.bytes_max);
        texts.into_iter().for_each(|indexed| self.add(indexed));
    }

    /// The vectors of what these readers may find.
    pub(super) fn comparable(&self, audiences: &BTreeSet<String>) -> Comparable {
        let readable = |entry: &&Entry| {
            entry.stage == Stage::Ready && entry.indexed.audiences.iter().any(|audience| audiences.contains(audience))
        };
        let rows = self.documents.values().filter(readable);
        Comparable {
            rows: rows.map(|entry| (entry.indexed.version, entry.numbers.clone())).collect(),
            dimension: self.dimension.unwrap_or(1),
        }
    }

    pub(super) fn dimension(&self) -> Option<usize> {
        self.dimension
    }

    /// Texts whose vectors are there.
    pub(super) fn ready(&self) -> usize {
        self.documents.len() - self.waiting.len() - self.left_out
    }

    /// Texts whose vectors are to be made.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Texts that get no vectors, because there is no room.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }
}

impl Comparable {
    /// How many passages there are to compare with.
    pub(super) fn passages(&self) -> usize {
        self.rows.iter().map(|(_, numbers)| numbers.len() / self.dimension).sum()
    }

    /// The passages nearest to the question, with their cosines, nearest first.
    pub(super) fn nearest(&self, question: Vec<f32>, limit: usize) -> Vec<(PassageRef, f32)> {
        let question: Vec<f32> = unit(question).collect();
        let mut nearest: Vec<(PassageRef, f32)> = Vec::new();
        for (version, numbers) in &self.rows {
            for (passage, vector) in (0_u32..).zip(numbers.chunks_exact(self.dimension)) {
                let cosine = dot(&question, vector);
                let at = nearest.partition_point(|(_, other)| *other >= cosine);
                if at < limit {
                    nearest.truncate(limit - 1);
                    nearest.insert(at, (PassageRef { version: *version, passage }, cosine));
                }
            }
        }
        nearest
    }
}

/// Sums in eight lanes, which the compiler turns into vector instructions; one running sum could not be.
fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (left, left_rest) = left.as_chunks::<8>();
    let (right, right_rest) = right.as_chunks::<8>();
    for (left, right) in left.iter().zip(right) {
        for lane in 0..8 {
            sums[lane] += left[lane] * right[lane];
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    sums.iter().sum::<f32>() + rest
}

/// The vector with length 1, so that a product is a cosine. A vector of zeros stays one and is near to nothing.
fn unit(vector: Vec<f32>) -> impl Iterator<Item = f32> {
    let square: f64 = vector.iter().map(|number| f64::from(*number) * f64::from(*number)).sum();
    let scale = if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 };
    vector.into_iter().map(move |number| (f64::from(number) * scale) as f32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::Limits,
        knowledge::{Document, catalog::Catalog},
    };

    /// Texts of so many passages each.
    fn texts(passages: &[usize]) -> Vec<Arc<Indexed>> {
        let section = "word ".repeat(60);
        let document = |(number, count): (usize, &usize)| Document {
            org_id: "org".to_owned(),
            ..Document::new(number.to_string(), vec![section.as_str(); *count].join("\n\n"))
        };
        let documents = passages.iter().enumerate().map(document).collect();
        let admitted = Catalog::default().admit(documents, &Limits::default());
        let admitted: Vec<_> = admitted.into_iter().map(Result::unwrap).collect();
        assert!(admitted.iter().zip(passages).all(|(indexed, count)| indexed.passage_count() == *count || *count == 1));
        admitted
    }

    fn everyone() -> BTreeSet<String> {
        BTreeSet::from(["3:org*".to_owned()])
    }

    fn refs(batch: &[(PassageRef, String)]) -> Vec<PassageRef> {
        batch.iter().map(|(passage, _)| *passage).collect()
    }

    #[test]
    fn batches_cross_documents_and_a_document_counts_when_it_is_whole() {
        let mut vectors = Vectors::new(usize::MAX);
        let texts = texts(&[3, 2, 3]);
        texts.iter().for_each(|text| vectors.add(text.clone()));
        let batch = refs(&vectors.next_batch(4));
        assert_eq!(batch.iter().map(|passage| passage.passage).collect::<Vec<_>>(), [0, 1, 2, 0]);
        vectors.store(&batch, vec![vec![1.0, 0.0]; 4]).unwrap();
        assert_eq!((vectors.ready(), vectors.waiting()), (1, 2));
        vectors.remove(texts[2].version);
        let batch = refs(&vectors.next_batch(4));
        assert_eq!(batch, [PassageRef { version: texts[1].version, passage: 1 }]);
        vectors.store(&batch, vec![vec![0.0, 2.0]]).unwrap();
        assert_eq!((vectors.ready(), vectors.waiting()), (2, 0));
        let comparable = vectors.comparable(&everyone());
        assert_eq!(comparable.passages(), 5);
        let nearest = comparable.nearest(vec![0.0, 0.5], 2);
        assert_eq!(nearest[0], (PassageRef { version: texts[1].version, passage: 1 }, 1.0));
        assert_eq!(nearest[1].1, 0.0);
        assert_eq!(vectors.comparable(&BTreeSet::new()).passages(), 0);
    }

    #[test]
    fn vectors_of_another_dimension_are_never_mixed_in() {
        let mut vectors = Vectors::new(usize::MAX);
        texts(&[1, 1]).iter().for_each(|text| vectors.add(text.clone()));
        let batch = refs(&vectors.next_batch(1));
        vectors.store(&batch, vec![vec![1.0, 0.0]]).unwrap();
        let batch = refs(&vectors.next_batch(1));
        let error = vectors.store(&batch, vec![vec![1.0, 0.0, 0.0]]).unwrap_err();
        assert_eq!(error, OtherDimension { known: 2, came: 3 });
        assert_eq!(vectors.comparable(&everyone()).passages(), 1);
        vectors.start_anew();
        assert_eq!((vectors.ready(), vectors.waiting(), vectors.dimension()), (0, 2, None));
        let batch = refs(&vectors.next_batch(9));
        vectors.store(&batch, vec![vec![1.0, 0.0, 0.0]; 2]).unwrap();
        assert_eq!((vectors.ready(), vectors.dimension()), (2, Some(3)));
    }

    #[test]
    fn what_has_no_room_is_left_out_and_counted() {
        let mut vectors = Vectors::new(3 * 2 * size_of::<f32>());
        texts(&[2, 2, 1]).iter().for_each(|text| vectors.add(text.clone()));
        let batch = refs(&vectors.next_batch(2));
        vectors.store(&batch, vec![vec![1.0, 0.0]; 2]).unwrap();
        let batch = refs(&vectors.next_batch(9));
        assert_eq!(batch.len(), 1, "the second has no room, the third has");
        vectors.store(&batch, vec![vec![1.0, 0.0]]).unwrap();
        assert_eq!((vectors.ready(), vectors.waiting(), vectors.left_out()), (2, 0, 1));
    }

    proptest! {
        #[test]
        fn the_search_is_exact(
            rows in proptest::collection::vec(proptest::collection::vec(-1.0_f32..1.0, 11), 1..30),
            question in proptest::collection::vec(-1.0_f32..1.0, 11),
            limit in 0_usize..8,
        ) {
            let mut vectors = Vectors::new(usize::MAX);
            texts(&vec![1; rows.len()]).iter().for_each(|text| vectors.add(text.clone()));
            let batch = refs(&vectors.next_batch(rows.len()));
            vectors.store(&batch, rows.clone()).unwrap();
            let cosine = |row: &Vec<f32>| {
                let (row, question): (Vec<f32>, Vec<f32>) = (unit(row.clone()).collect(), unit(question.clone()).collect());
                row.iter().zip(&question).map(|(left, right)| left * right).sum::<f32>()
            };
            let mut expected: Vec<f32> = rows.iter().map(cosine).collect();
            expected.sort_by(|left, right| right.total_cmp(left));
            let found = vectors.comparable(&everyone()).nearest(question.clone(), limit);
            prop_assert_eq!(found.len(), limit.min(rows.len()));
            for ((_, found), expected) in found.iter().zip(&expected) {
                prop_assert!((found - expected).abs() < 1e-5);
            }
        }
    }
}
