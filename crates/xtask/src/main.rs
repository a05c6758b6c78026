//! The project's own commands: `cargo xtask demo`, `bench`, `clean-demo` and `fuzz`.

mod bench;
mod bench_servers;
mod demo;
mod demo_monorepo;
mod fuzz;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["demo"] | ["demo", "local"] => demo::demo(demo::Target::Local).await,
        ["demo", "kubernetes"] => demo::demo(demo::Target::Kubernetes).await,
        ["demo", "monorepo"] => demo_monorepo::demo().await,
        ["bench"] => bench::bench().await,
        ["bench", "servers"] => bench_servers::bench().await,
        ["clean-demo"] => match demo::clean().await {
            Ok(()) => demo_monorepo::clean().await,
            failed => failed,
        },
        ["fuzz", seconds] if let Ok(seconds) = seconds.parse() => fuzz::fuzz(None, seconds),
        ["fuzz", seconds, target] if let Ok(seconds) = seconds.parse() => fuzz::fuzz(Some(target), seconds),
        _ => {
            eprintln!(
                "usage: cargo xtask demo [local | kubernetes | monorepo] | bench [servers] | clean-demo | fuzz SECONDS [TARGET]"
            );
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
