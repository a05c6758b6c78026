//! The page that shows what `tally` has counted.

use http::Answer;

fn answer(method: &str, path: &str) -> Answer {
    match (method, path) {
        ("GET", "/result") => match http::send("GET", "tally", "/") {
            Ok(counts) => Answer::page(format!(
                "<!doctype html><title>The result</title><h1>The result</h1>\n<pre>{counts}</pre>\n"
            )),
            Err(error) => Answer::error(502, format!("nobody knows the result: {error}\n")),
        },
        _ => Answer::error(404, "there is no such page\n"),
    }
}

fn main() -> std::io::Result<()> {
    http::serve(answer)
}
