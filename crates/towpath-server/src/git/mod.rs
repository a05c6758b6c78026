//! The git remote: smart HTTP, by git itself.

mod exchange;

pub(crate) use exchange::routes;
