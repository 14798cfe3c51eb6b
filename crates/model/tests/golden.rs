//! Thoroughly wrong definition files, with everything that is said about them.
//!
//! `KAPELL_BLESS=1 cargo test -p kapell-model --test golden` writes down what is said now; read the difference
//! before you keep it.
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use kapell_model::source::SourceFile;
use kapell_model::validate::load;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/definitions")
}

fn said_about(path: &Path) -> String {
    let name = path.file_name().expect("a file").to_string_lossy().into_owned();
    let said = load(&[SourceFile { name, text: fs::read_to_string(path).expect("readable") }])
        .expect_err("it is wrong");
    let mut text = String::new();
    for diagnostic in said {
        writeln!(text, "{diagnostic}").expect("text can be written");
    }
    text
}

#[test]
fn every_error_of_a_wrong_file_is_said_with_its_place() {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert_eq!(files.len(), 10);
    let bless = std::env::var_os("KAPELL_BLESS").is_some();
    let mut differing = Vec::new();
    for file in files {
        let (said, expected) = (said_about(&file), file.with_extension("expected"));
        if bless {
            fs::write(&expected, &said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            differing.push(format!("{}:\n{said}", expected.display()));
        }
    }
    assert!(differing.is_empty(), "what is said has changed:\n{}", differing.join("\n"));
}
