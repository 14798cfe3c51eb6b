//! Files of golden bytes, shared by the tests of what is stored and of what is sent.
//!
//! `KAPELL_BLESS=1` writes the files that are missing. It never changes one: old bytes are a promise.
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// One folder of golden bytes.
pub(crate) struct GoldenFiles {
    /// Below `tests/golden`.
    pub(crate) folder: &'static str,
    /// Where it stands what a change of bytes means.
    pub(crate) law: &'static str,
}

impl GoldenFiles {
    /// The bytes in the golden file; what is encoded today must be these.
    pub(crate) fn bytes(&self, name: &str, now: &[u8]) -> Vec<u8> {
        let path = self.path().join(format!("{name}.hex"));
        if !path.exists() {
            assert!(
                std::env::var_os("KAPELL_BLESS").is_some(),
                "{name}.hex is missing; KAPELL_BLESS=1 writes it"
            );
            fs::create_dir_all(self.path()).unwrap();
            fs::write(&path, hex(now)).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        let law = self.law;
        assert_eq!(text, hex(now), "{name}: what is written is no longer what was written; see {law}");
        unhex(&text)
    }

    /// Every file must have its sample.
    pub(crate) fn assert_all_known(&self, names: impl IntoIterator<Item = String>) {
        let known: BTreeSet<String> = names.into_iter().map(|name| format!("{name}.hex")).collect();
        let there: BTreeSet<String> = fs::read_dir(self.path())
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(
            there.difference(&known).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "a sample was removed"
        );
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(self.folder)
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}
