//! What commands say, compared with files under tests/golden/cli. `KAPELL_BLESS=1` writes them anew.
use std::path::PathBuf;

use crate::node::Said;

/// One command and what it said, with the parts that differ from run to run replaced.
pub(crate) fn told(arguments: &[&str], said: &Said, replaced: &[(&str, &str)]) -> String {
    let mut text = format!("$ kapell {}\nexit {}\n", arguments.join(" "), said.exit);
    for (name, stream) in [("stdout", &said.stdout), ("stderr", &said.stderr)] {
        if !stream.is_empty() {
            text.push_str(&format!("-- {name}\n{stream}"));
        }
    }
    for (found, shown) in replaced {
        text = text.replace(found, shown);
    }
    text
}

/// Compares, or writes when it is asked to.
pub(crate) fn check(name: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/golden/cli/{name}.txt"));
    if std::env::var_os("KAPELL_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
        return;
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        wanted == found,
        "{} differs (KAPELL_BLESS=1 writes it anew)\n--- wanted\n{wanted}\n--- found\n{found}",
        path.display()
    );
}
