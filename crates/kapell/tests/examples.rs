//! The definitions under `examples/` are sound: what people copy must load.
#![expect(clippy::unwrap_used, reason = "a test may: what is missing is a failure")]

use std::path::{Path, PathBuf};

use kapell_model::source::SourceFile;
use kapell_model::validate;

fn sources(folder: &str) -> Vec<SourceFile> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(folder);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let read = |path: PathBuf| SourceFile {
        name: path.file_name().unwrap().to_string_lossy().into_owned(),
        text: std::fs::read_to_string(&path).unwrap(),
    };
    files.into_iter().map(read).collect()
}

fn loaded(folder: &str) -> validate::Loaded {
    match validate::load(&sources(folder)) {
        Ok(loaded) => loaded,
        Err(wrong) => panic!("{}", wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

#[test]
fn the_vendor_pricing_example_loads_and_warns_of_the_mail_alone() {
    let loaded = loaded("vendor-pricing");
    assert_eq!(loaded.definitions.len(), 16);
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains("`send`"), "a mail whose fate is unknown is asked about: {warnings:#?}");
}

#[test]
fn the_schedules_load_without_a_warning() {
    let loaded = loaded("schedules");
    assert_eq!(loaded.definitions.len(), 5);
    assert!(loaded.warnings.is_empty(), "{:#?}", loaded.warnings);
}
