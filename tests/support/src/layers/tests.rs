use super::*;

/// A package of these files.
fn package(files: &[(&str, &str)]) -> Imports {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Imports::read(&directory.path().join("lib.rs")).unwrap()
}

fn edges(files: &[(&str, &str)]) -> Vec<(String, String)> {
    package(files).edges().into_iter().collect()
}

fn edge(from: &str, to: &str) -> (String, String) {
    (from.to_owned(), to.to_owned())
}

#[test]
fn a_circle_is_found() {
    let found = package(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B; pub struct A(B);"),
        ("b.rs", "pub struct B; pub fn c() { crate::c::c() }"),
        ("c.rs", "use super::a::A; pub fn c() {}"),
    ]);
    assert_eq!(found.circles(), ["a -> b, b -> c, c -> a"]);
}

#[test]
fn folders_are_a_circle_where_no_two_of_their_files_are() {
    let found = package(&[
        ("lib.rs", "mod a; mod b;"),
        ("a/mod.rs", "pub mod x; pub mod y;"),
        ("a/x.rs", "use crate::b::B;"),
        ("a/y.rs", "pub struct Y;"),
        ("b.rs", "pub struct B(crate::a::y::Y);"),
    ]);
    assert_eq!(found.circles(), ["a::x -> b, b -> a::y"]);
}

#[test]
fn a_module_and_its_parts_are_one() {
    let found = package(&[
        ("lib.rs", "mod a;"),
        ("a.rs", "mod part; pub struct A; pub fn f() { part::g(&A) }"),
        ("a/part.rs", "use super::A; pub(super) fn g(_: &A) {}"),
    ]);
    assert_eq!(found.circles(), Vec::<String>::new());
}

#[test]
fn an_item_is_of_the_module_that_defines_it() {
    let files = [
        ("lib.rs", "mod facade; mod user; mod other;"),
        (
            "facade/mod.rs",
            "mod inner; pub use inner::{One as Two, *};",
        ),
        ("facade/inner.rs", "pub struct One; pub struct Three;"),
        ("user.rs", "use crate::facade; fn f(_: facade::Two) {}"),
        ("other.rs", "use crate::facade::Three;"),
    ];
    let expected = [
        edge("other", "facade::inner"),
        edge("user", "facade::inner"),
    ];
    assert_eq!(edges(&files), expected);
}

#[test]
fn names_in_macros_count_and_tests_do_not() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "fn f() { println!(\"{}\", crate::b::ONE) }"),
        (
            "b.rs",
            "pub const ONE: u8 = 1; #[cfg(test)] mod tests { use crate::a; fn f() { a::f() } }",
        ),
        ("c.rs", "#[cfg(test)] use crate::b::ONE;"),
    ];
    assert_eq!(edges(&files), [edge("a", "b")]);
}

#[test]
fn an_import_upwards_is_found() {
    let found = package(&[
        ("lib.rs", "mod low; mod high; mod new;"),
        ("low.rs", "use crate::high::High;"),
        ("high.rs", "pub struct High;"),
        ("new.rs", ""),
    ]);
    let expected = [
        "new is in no layer",
        "there is no module old",
        "low -> high does not lead downwards",
    ];
    assert_eq!(found.out_of_layer(&[&["low", "old"], &["high"]]), expected);
    assert_eq!(
        found.out_of_layer(&[&["low", "high", "new"]]),
        ["low -> high does not lead downwards"]
    );
    assert!(found.out_of_layer(&[&["high"], &["low", "new"]]).is_empty());
}
