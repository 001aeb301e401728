//! The order of a ranking, as trec_eval makes it out of scores.

use std::cmp::Ordering;

use crate::data::Retrieved;

/// In how many bits scores are compared. Scores that differ in 64 bits can be equal in 32, and then the document ids
/// decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScoreWidth {
    /// trec_eval 8 and 9, up to 9.0.8 (`float sim`), and with them pytrec_eval, ir_measures and nearly every published
    /// number.
    #[default]
    F32,
    /// trec_eval 10.0 (`double sim`).
    F64,
}

impl ScoreWidth {
    /// Compares two scores, the larger first. Neither is NaN.
    fn descending(self, a: f64, b: f64) -> Ordering {
        match self {
            // Adding 0.0 makes -0.0 equal to 0.0, as C's comparison has it.
            Self::F32 => (b as f32 + 0.0).total_cmp(&(a as f32 + 0.0)),
            Self::F64 => (b + 0.0).total_cmp(&(a + 0.0)),
        }
    }
}

/// Documents in trec_eval's order: score descending, equal scores by document id **descending**, compared byte by byte.
/// The rank column of a run file, and the order of its lines, have no say. Source: `comp_sim_docno` in
/// `form_res_rels.c`.
pub fn ranking(retrieved: &[Retrieved], width: ScoreWidth) -> Vec<&Retrieved> {
    let mut ranked: Vec<&Retrieved> = retrieved.iter().collect();
    ranked.sort_unstable_by(|a, b| {
        width.descending(a.score, b.score).then_with(|| b.document.cmp(&a.document))
    });
    ranked
}

/// How many documents share each distinct score, best score first. `ranked` is what [`ranking`] gave for this width.
pub fn tie_sizes(ranked: &[&Retrieved], width: ScoreWidth) -> Vec<usize> {
    ranked.chunk_by(|a, b| width.descending(a.score, b.score).is_eq()).map(<[_]>::len).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids<'a>(ranked: &[&'a Retrieved]) -> Vec<&'a str> {
        ranked.iter().map(|hit| hit.document.as_str()).collect()
    }

    #[test]
    fn equal_scores_are_ordered_by_document_id_descending() {
        let retrieved = [("d10", 1.0), ("d9", 1.0), ("d1", 2.0), ("z", 0.0), ("y", -0.0)]
            .map(|(d, s)| Retrieved::new(d, s));
        let ranked = ranking(&retrieved, ScoreWidth::F64);
        assert_eq!(ids(&ranked), ["d1", "d9", "d10", "z", "y"]);
        assert_eq!(tie_sizes(&ranked, ScoreWidth::F64), [1, 2, 2]);
    }

    #[test]
    fn the_width_decides_what_a_tie_is() {
        let retrieved = [Retrieved::new("a", 0.9 + 1e-10), Retrieved::new("b", 0.9)];
        assert_eq!(ids(&ranking(&retrieved, ScoreWidth::F64)), ["a", "b"]);
        assert_eq!(ids(&ranking(&retrieved, ScoreWidth::F32)), ["b", "a"]);
    }
}
