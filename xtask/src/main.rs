//! Chores of the repository: pages made from facts.
fn main() {}
