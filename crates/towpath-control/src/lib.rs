//! Placeholder until its first use lands.
