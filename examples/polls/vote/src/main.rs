//! The page on which people vote. It passes each vote on to `tally`.

use http::Answer;

const QUESTION: &str = "Cats or dogs?";

fn answer(method: &str, path: &str) -> Answer {
    match (method, path) {
        ("GET", "/") => Answer::page(format!(
            "<!doctype html><title>{QUESTION}</title><h1>{QUESTION}</h1>\n\
             <form method=post action=/cats><button>Cats</button></form>\n\
             <form method=post action=/dogs><button>Dogs</button></form>\n\
             <p><a href=/result>The result</a>\n"
        )),
        ("POST", "/cats" | "/dogs") => match http::send("POST", "tally", path) {
            Ok(counts) => Answer::text(counts),
            Err(error) => Answer::error(502, format!("the vote was not counted: {error}\n")),
        },
        _ => Answer::error(404, "there is no such page\n"),
    }
}

fn main() -> std::io::Result<()> {
    http::serve(answer)
}
