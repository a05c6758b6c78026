//! The checker on small crates that exist in memory.

use super::{circles, imports};
use std::collections::BTreeMap;

/// The imports of a crate whose root is `src/lib.rs`, as `from:line -> to`.
fn imported(files: &[(&str, &str)]) -> Vec<String> {
    let found = read(files).unwrap();
    found
        .iter()
        .map(|import| format!("{}:{} -> {}", import.from, import.line, import.to))
        .collect()
}

fn read(files: &[(&str, &str)]) -> Result<Vec<super::Import>, String> {
    let files: BTreeMap<String, String> = files
        .iter()
        .map(|(path, text)| (format!("src/{path}"), (*text).to_string()))
        .collect();
    imports("src/lib.rs", &|path| files.get(path).cloned())
}

/// The report about the circles of a crate.
fn said(files: &[(&str, &str)]) -> Vec<String> {
    circles(&read(files).unwrap()).iter().map(ToString::to_string).collect()
}

#[test]
fn a_circle_of_two_names_every_import_in_it() {
    let said = said(&[
        ("lib.rs", "mod a;\nmod b;\nmod c;\n"),
        ("a.rs", "\nuse crate::b::Second;\npub struct First(Second);\n"),
        (
            "b.rs",
            "pub struct Second;\nfn f() -> crate::a::First { crate::c::f() }\n",
        ),
        ("c.rs", "pub fn f<T>() -> T { todo!() }\n"),
    ]);
    let expected = "2 files import each other in a circle: src/a.rs, src/b.rs\n  \
        src/a.rs:2 imports src/b.rs (`crate::b::Second`)\n  \
        src/b.rs:2 imports src/a.rs (`crate::a::First`)";
    assert_eq!(said, [expected]);
}

#[test]
fn a_circle_of_three_is_found_through_a_reexport() {
    let files = [
        (
            "lib.rs",
            "mod a;\nmod b;\nmod c;\npub use a::First;\npub(crate) use c::Third as Last;\n",
        ),
        ("a.rs", "use super::b::second;\npub struct First;\n"),
        ("b.rs", "use crate::Last;\npub fn second(_: Last) {}\n"),
        ("c.rs", "use crate::First;\npub struct Third(First);\n"),
    ];
    assert_eq!(
        imported(&files),
        [
            "src/a.rs:1 -> src/b.rs",
            "src/b.rs:1 -> src/c.rs",
            "src/c.rs:1 -> src/a.rs"
        ]
    );
    assert_eq!(said(&files).len(), 1);
}

#[test]
fn what_a_parent_declares_and_reexports_is_structure() {
    let files = [
        ("lib.rs", "pub mod shapes;\npub use shapes::{Circle, Square};\n"),
        (
            "shapes/mod.rs",
            "mod circle;\nmod square;\npub use circle::Circle;\npub use square::*;\n",
        ),
        ("shapes/circle.rs", "use super::Square;\npub struct Circle(Square);\n"),
        ("shapes/square.rs", "pub struct Square;\n"),
    ];
    assert_eq!(imported(&files), ["src/shapes/circle.rs:1 -> src/shapes/square.rs"]);
}

#[test]
fn a_child_that_uses_its_parents_items_makes_a_circle_when_the_parent_uses_the_child() {
    let child = ("shapes/circle.rs", "use super::area;\npub fn draw() { area() }\n");
    let lib = ("lib.rs", "mod shapes;\n");
    let declared = ("shapes.rs", "pub mod circle;\npub fn area() {}\n");
    let called = ("shapes.rs", "pub mod circle;\npub fn area() { circle::draw() }\n");
    assert_eq!(
        imported(&[lib, child, declared]),
        ["src/shapes/circle.rs:1 -> src/shapes.rs"]
    );
    assert_eq!(said(&[lib, child, declared]), [""; 0]);
    assert_eq!(said(&[lib, child, called]).len(), 1);
    // A private `use` brings the child's item to the parent's own code.
    let private = (
        "shapes.rs",
        "mod circle;\nuse circle::draw;\npub fn area() { draw() }\n",
    );
    assert_eq!(said(&[lib, child, private]).len(), 1);
}

#[test]
fn paths_in_macros_and_attributes_count() {
    let files = [
        (
            "lib.rs",
            "mod a;\nmod b;\n#[macro_export]\nmacro_rules! make {\n    () => { $crate::a::First };\n}\n",
        ),
        (
            "a.rs",
            "#[derive(Serialize)]\npub struct First {\n    #[serde(with = \"crate::b::bytes\")]\n    x: u8,\n}\n",
        ),
        (
            "b.rs",
            "pub fn bytes() {\n    println!(\"{}\", [crate::a::First]);\n    both! { use crate::a::{First, Other}; }\n}\n",
        ),
    ];
    assert_eq!(
        imported(&files),
        [
            "src/a.rs:3 -> src/b.rs",
            "src/b.rs:2 -> src/a.rs",
            "src/b.rs:3 -> src/a.rs",
            "src/b.rs:3 -> src/a.rs",
            "src/lib.rs:5 -> src/a.rs"
        ]
    );
}

#[test]
fn test_code_does_not_count() {
    let files = [
        ("lib.rs", "mod a;\nmod b;\n#[cfg(test)]\nmod tests;\n"),
        (
            "a.rs",
            "pub struct First;\n#[cfg(test)]\nuse crate::b::Second;\nimpl First {\n    #[cfg(test)]\n    fn f(_: crate::b::Second) {}\n}\n\
             #[cfg(all(test, unix))]\nmod tests {\n    use crate::b::Second;\n}\n",
        ),
        (
            "b.rs",
            "use crate::a::First;\npub struct Second(First);\n#[cfg(not(test))]\nuse crate::a::*;\n",
        ),
    ];
    assert_eq!(
        imported(&files),
        ["src/b.rs:1 -> src/a.rs", "src/b.rs:4 -> src/a.rs"],
        "`tests.rs` is not even read"
    );
}

#[test]
fn an_imported_module_counts_where_something_is_taken_out_of_it() {
    let lib = ("lib.rs", "mod a;\nmod b;\n");
    let b = ("b.rs", "use crate::a::First;\npub fn f(_: First) {}\n");
    let unused = ("a.rs", "use crate::b;\npub struct First;\n");
    let used = (
        "a.rs",
        "use crate::b as other;\npub struct First;\nfn f() { other::f(First) }\n",
    );
    assert_eq!(imported(&[lib, b, unused]), ["src/b.rs:1 -> src/a.rs"]);
    assert_eq!(
        imported(&[lib, b, used]),
        ["src/a.rs:3 -> src/b.rs", "src/b.rs:1 -> src/a.rs"]
    );
}

#[test]
fn inline_modules_belong_to_their_file() {
    let files = [
        ("lib.rs", "mod a;\nmod b { pub mod c; pub fn f() {} }\n"),
        (
            "a.rs",
            "pub fn first() { inner::g() }\nmod inner {\n    pub fn g() { super::first(); super::super::b::f() }\n}\n",
        ),
        ("b/c.rs", "fn f() { super::f(); crate::a::first() }\n"),
    ];
    assert_eq!(
        imported(&files),
        [
            "src/a.rs:3 -> src/lib.rs",
            "src/b/c.rs:1 -> src/a.rs",
            "src/b/c.rs:1 -> src/lib.rs"
        ]
    );
}

#[test]
fn other_crates_and_a_types_own_names_are_not_modules() {
    let files = [
        ("lib.rs", "mod fs;\npub mod kind;\n"),
        (
            "fs.rs",
            "use std::fs;\nuse ::kind::Other;\nuse tokio::sync::Mutex;\nuse crate::kind::Kind::{self, *};\n\
             fn f() { fs::read(\"x\"); Kind::Small; Mutex::new(Big) }\n",
        ),
        ("kind.rs", "pub enum Kind { Small, Big }\n"),
    ];
    assert_eq!(imported(&files), ["src/fs.rs:4 -> src/kind.rs"]);
}

#[test]
fn a_reexport_of_itself_ends() {
    let files = [
        ("lib.rs", "mod a;\nmod b;\npub use a::*;\npub use b::*;\n"),
        ("a.rs", "pub use crate::b::*;\npub use crate::b::thing as other;\n"),
        (
            "b.rs",
            "pub use crate::a::*;\npub use crate::a::other as thing;\npub fn f() { crate::missing() }\n",
        ),
    ];
    assert_eq!(said(&files).len(), 1);
}

#[test]
fn what_cannot_be_read_is_named() {
    let missing = read(&[("lib.rs", "mod a;\n")]).unwrap_err();
    assert_eq!(missing, "src/a/mod.rs: there is no such file");
    let broken = read(&[("lib.rs", "mod a;\n"), ("a.rs", "\nfn {\n")]).unwrap_err();
    assert!(broken.starts_with("src/a.rs:2: "), "{broken}");
}
