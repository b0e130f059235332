//! The repository's own bundles pass, and a changed number fails.
