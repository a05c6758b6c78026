//! `cargo bench -p towpath-config`: the time to compile a configuration as a ratio to the time to parse it with the same YAML
//! library in the same run, and the time and memory for configurations with large matrices.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use towpath_config::{CompileOptions, Document, OrbError, OrbSource, compile, missing_orbs, process};
use towpath_orbs::{OrbReference, OrbVersion};
use towpath_yaml::{Diagnostic, ParseOptions, SourceFile, parse};

/// Counts the memory in use, for the peak of a compilation.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// Passing calls on to the system's allocator upholds its contract.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The shortest of several runs, which other processes disturbed least.
fn shortest(mut work: impl FnMut()) -> Duration {
    let began = Instant::now();
    let mut best = Duration::MAX;
    let mut runs = 0;
    while runs < 5 || (began.elapsed() < Duration::from_millis(20) && runs < 200) {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed());
        runs += 1;
    }
    best
}

/// The orbs of the corpus, read once, so that the disk is not measured.
struct Orbs(Vec<(String, OrbVersion, Arc<str>)>);

impl Orbs {
    fn read(corpus: &Path) -> Self {
        let files = fs::read_dir(corpus.join("orbs")).into_iter().flatten().flatten();
        let orb = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.strip_suffix(".yml")?.to_string();
            let (orb, version) = name.split_once('@')?;
            Some((
                orb.replacen("__", "/", 1),
                version.parse().ok()?,
                fs::read_to_string(path).ok()?.into(),
            ))
        };
        Self(files.filter_map(|entry| orb(entry.path())).collect())
    }

    fn find(&self, reference: &str) -> Result<OrbSource, OrbError> {
        let unknown = || OrbError::Unknown(reference.to_owned());
        let wanted: OrbReference = reference.parse().map_err(|_| unknown())?;
        let name = wanted.name.to_string();
        let of_name = || self.0.iter().filter(|(orb, ..)| *orb == name);
        let picked = wanted.selector.pick(of_name().map(|(_, version, _)| version));
        let (_, version, text) = of_name()
            .find(|(_, version, _)| Some(version) == picked)
            .ok_or_else(unknown)?;
        Ok(OrbSource {
            resolved: format!("{name}@{version}"),
            text: text.clone(),
        })
    }
}

/// Does what callers do with a text: parses it, and supplies its orbs round after round.
fn supplied(
    source: &Arc<SourceFile>,
    options: &mut CompileOptions,
    orbs: &Orbs,
    mut used: impl FnMut(&OrbSource),
) -> Document {
    let document = Document::of(source.clone());
    options.orbs = towpath_config::Orbs::default();
    loop {
        let missing = missing_orbs(&document, options);
        if missing.is_empty() {
            return document;
        }
        for orb in missing {
            let found = orbs.find(&orb.reference);
            if let Ok(source) = &found {
                used(source);
            }
            options.orbs.insert(orb.reference, found);
        }
    }
}

fn yaml_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            yaml_below(&path, found);
        } else if path.extension().is_some_and(|end| end == "yml") {
            found.push(path);
        }
    }
}

fn corpus_against_parsing(only: &str) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = here.join("../../../shared/corpus/circleci");
    let mut files = Vec::new();
    match corpus.is_dir() {
        true => ["configs", "oracle"]
            .iter()
            .for_each(|part| yaml_below(&corpus.join(part), &mut files)),
        false => yaml_below(&here.join("tests/fixtures"), &mut files),
    }
    files.push(here.join("../../examples/claims/.circleci/config.yml"));
    files.sort();
    files.retain(|path| path.to_string_lossy().contains(only));
    let orbs = Orbs::read(&corpus);
    let (mut ratios, mut time, mut bytes) = (Vec::new(), Duration::ZERO, 0);
    for path in &files {
        let Ok(text) = fs::read_to_string(path) else { continue };
        let source = SourceFile::new("config.yml", text.as_str());
        let mut sources = vec![source.clone()];
        let mut options = CompileOptions::default();
        let document = supplied(&source, &mut options, &orbs, |orb| {
            sources.push(SourceFile::new("orb.yml", &*orb.text));
        });
        let (config, diagnostics) = compile(&document, &options);
        if config.is_none() || diagnostics.iter().any(Diagnostic::is_error) {
            continue;
        }
        // Compare with parsing the configuration and its orbs.
        let parsing = shortest(|| {
            for source in &sources {
                black_box(parse(source, &ParseOptions::default()));
            }
        });
        let compiling = shortest(|| {
            let document = supplied(&source, &mut options, &orbs, |_| {});
            black_box(compile(&document, &options));
        });
        ratios.push((compiling.as_secs_f64() / parsing.as_secs_f64(), path.clone(), compiling));
        time += compiling;
        bytes += text.len();
    }
    ratios.sort_by(|left, right| left.0.total_cmp(&right.0));
    if ratios.is_empty() {
        return println!("no file whose name contains `{only}` compiles");
    }
    let median = ratios[ratios.len() / 2].0;
    let (worst, path, took) = &ratios[ratios.len() - 1];
    println!(
        "compile / parse only, {} files that compile, {} KiB:",
        ratios.len(),
        bytes >> 10
    );
    println!(
        "  median {median:.2}   90th percentile {:.2}   (goal: at most 3)",
        ratios[ratios.len() * 9 / 10].0
    );
    println!(
        "  worst  {worst:.2}   {} µs   {}",
        took.as_micros(),
        path.strip_prefix(&corpus).unwrap_or(path).display()
    );
    println!("  {:.0} files per second", ratios.len() as f64 / time.as_secs_f64());
}

/// A configuration whose matrix has `jobs` members.
fn large(jobs: usize) -> String {
    let values: Vec<String> = (0..jobs / 100).map(|number| number.to_string()).collect();
    let hundred: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    format!(
        "version: 2.1\njobs:\n  test:\n    parameters: {{a: {{type: integer}}, b: {{type: integer}}}}\n    docker: [{{image: 'cimg/base:2024.01'}}]\n    steps:\n      - checkout\n      - run: make test-<< parameters.a >>-<< parameters.b >>\nworkflows:\n  all:\n    jobs:\n      - test:\n          matrix:\n            parameters:\n              a: [{}]\n              b: [{}]\n",
        values.join(", "),
        hundred.join(", ")
    )
}

fn growth() {
    println!("\njobs of a matrix (goal: 10000 in a second, linear growth):");
    println!(
        "  {:>6} {:>10} {:>9} {:>10} {:>10} {:>7}",
        "jobs", "compile ms", "µs / job", "peak KiB", "text KiB", "ratio"
    );
    for jobs in [100, 500, 1000, 2000, 5000, 10_000] {
        let source = SourceFile::new("config.yml", large(jobs));
        let options = CompileOptions::default();
        let compiled = || compile(&Document::of(source.clone()), &options).0;
        let took = shortest(|| {
            black_box(compiled());
        });
        let before = NOW.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let config = black_box(compiled());
        let peak = PEAK.load(Ordering::Relaxed) - before;
        assert_eq!(config.map(|config| config.workflows[0].jobs.len()), Some(jobs));
        let printed = process(&Document::of(source.clone()), &options).0;
        let text = printed.map_or(0, |(_, text)| text.len());
        println!(
            "  {jobs:>6} {:>10.1} {:>9.1} {:>10} {:>10} {:>7.1}",
            took.as_secs_f64() * 1e3,
            took.as_secs_f64() * 1e6 / jobs as f64,
            peak >> 10,
            text >> 10,
            peak as f64 / text as f64
        );
    }
}

fn main() {
    // `cargo bench --package towpath-config -- web3` only measures files whose names contain the word.
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    corpus_against_parsing(only.as_deref().unwrap_or_default());
    if only.is_none() {
        growth();
    }
}
