//! Counts the votes, in memory: they last as long as this program runs.

use http::Answer;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

#[derive(Default)]
struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    fn answer(&self, method: &str, path: &str) -> Answer {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (method, path) {
            ("GET", "/") => {}
            ("POST", "/cats" | "/dogs") => {
                *counts.entry(path.trim_start_matches('/').to_string()).or_default() += 1;
            }
            _ => return Answer::error(404, "nobody may vote for that\n"),
        }
        Answer::text(
            counts
                .iter()
                .map(|(what, count)| format!("{what} {count}\n"))
                .collect::<String>(),
        )
    }
}

fn main() -> std::io::Result<()> {
    let tally = Tally::default();
    http::serve(move |method, path| tally.answer(method, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn votes_are_counted() {
        let tally = Tally::default();
        assert_eq!(tally.answer("GET", "/").body, "");
        tally.answer("POST", "/dogs");
        tally.answer("POST", "/cats");
        assert_eq!(tally.answer("POST", "/dogs").body, "cats 1\ndogs 2\n");
        assert_eq!(tally.answer("POST", "/birds").status, 404);
    }
}
