//! The git remote: smart HTTP, served by git itself.

mod exchange;

pub(crate) use exchange::routes;
