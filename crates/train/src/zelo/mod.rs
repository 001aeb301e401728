//! zELO: graded labels from pairwise votes. Paper: arXiv 2509.12541.
