//! Transactions by hand, step by step.
