//! The notation is read as it is described, and real commands pass or fail as they should.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::parse::{Mode, Problem, Step, parse, substitute};
use super::session::{Failure, Session, missing};
use super::{Line, run_document};
use crate::clock::{Stopwatch, nap};
use crate::report::Verdict;

fn run(line: usize, command: &str, expected: &[&str], mode: Mode) -> Step {
    let expected = expected.iter().map(ToString::to_string).collect();
    Step::Run { line, command: command.to_owned(), expected, mode }
}

fn problem(text: &str) -> usize {
    let Problem { line, .. } = parse(text).unwrap_err();
    line
}

#[test]
fn commands_and_their_output_are_read() {
    let text = "# Title\n\n```console\n$ kapell get runs\nRUN  STATE\n...\n\n$ kapell \\\n    doctor\n```\n";
    let expected = [
        run(4, "kapell get runs", &["RUN  STATE", "..."], Mode::Foreground),
        run(8, "kapell \\\n    doctor", &[], Mode::Foreground),
    ];
    assert_eq!(parse(text).unwrap(), expected);
}

#[test]
fn known_commands_and_background_ones_are_told_apart() {
    let text = "```sh\ngit clone https://example.com/kapell\ncd kapell\ncargo xtask test\n# why\nkapell dev &\nls \\\n  -l\n```\n";
    let modes = parse(text).unwrap();
    let expected = [
        run(2, "git clone https://example.com/kapell", &[], Mode::Known),
        run(3, "cd kapell", &[], Mode::Known),
        run(4, "cargo xtask test", &[], Mode::Known),
        run(6, "kapell dev", &[], Mode::Background),
        run(7, "ls \\\n  -l", &[], Mode::Foreground),
    ];
    assert_eq!(modes, expected);
    assert!(!modes[2].is_run());
    assert!(modes[3].names_kapell());
    assert!(!modes[4].names_kapell());
}

#[test]
fn files_are_written_and_other_blocks_are_not_run() {
    let text = "1. List\n\n   ```yaml file=flows/one.yaml\n   kind: Workflow\n     a: 1\n   ```\n\n```rust\nfn f() {}\n```\n";
    let file = Step::Write {
        line: 3,
        name: "flows/one.yaml".to_owned(),
        text: "kind: Workflow\n  a: 1\n".to_owned(),
    };
    assert_eq!(parse(text).unwrap(), [file]);
}

#[test]
fn a_longer_fence_holds_a_shorter_one() {
    assert_eq!(parse("````md\n```console\n$ false\n```\n````\n").unwrap(), []);
}

#[test]
fn a_block_is_left_out_for_a_reason_only() {
    assert_eq!(parse("<!-- not run: needs a cluster -->\n```sh\nfalse\n```\n").unwrap(), []);
    assert_eq!(problem("<!-- not run: -->\n```sh\nfalse\n```\n"), 1);
    let far = "<!-- not run: needs a cluster -->\ntext\n```sh\nfalse\n```\n";
    assert_eq!(parse(far).unwrap(), [run(4, "false", &[], Mode::Foreground)]);
}

#[test]
fn what_cannot_be_run_is_a_problem() {
    assert_eq!(problem("```console\nkapell dev\n```\n"), 2);
    assert_eq!(problem("text\n```console\n```\n"), 2);
    assert_eq!(problem("```sh\nls\n"), 1);
    for name in ["/etc/passwd", "../x", "a//b"] {
        assert_eq!(problem(&format!("```yaml file={name}\n```\n")), 1);
    }
}

#[test]
fn the_built_binary_stands_in_for_cargo() {
    assert_eq!(substitute("cargo run --release -- demo -o json", "x"), "kapell demo -o json");
    assert_eq!(substitute("cargo xtask layers", "'x'"), "'x' layers");
}

#[test]
fn expected_lines_appear_in_order() {
    let missing = |expected: &[&str], output: &str| {
        let expected = expected.iter().map(ToString::to_string).collect::<Vec<_>>();
        missing(&expected, output).map(str::to_owned)
    };
    let output = "RUN      STATE\n01AB-3   completed in 7 ms\ndone\n";
    assert_eq!(missing(&["RUN", "...", "completed", "  done"], output), None);
    assert_eq!(missing(&["01...completed in ... ms"], output), None);
    assert_eq!(missing(&["done", "RUN"], output).as_deref(), Some("RUN"));
    assert_eq!(missing(&["completed in ... s", "01...failed"], output).as_deref(), Some("01...failed"));
    assert_eq!(missing(&["RUN", "RUN"], output).as_deref(), Some("RUN"));
}

/// Runs a document of its own in a fresh folder.
fn document(name: &str, text: &str, limit: Duration) -> (Verdict, Vec<Line>, PathBuf) {
    let folder = std::env::temp_dir().join(format!("xtask-{}-{name}", std::process::id()));
    let mut session = Session::open(&folder, &[], limit).unwrap();
    let mut lines = Vec::new();
    let verdict = run_document(&mut session, name, &parse(text).unwrap(), &mut lines).unwrap();
    (verdict, lines, folder)
}

fn results(name: &str, text: &str, limit: Duration) -> (Verdict, Vec<&'static str>) {
    let (verdict, lines, folder) = document(name, text, limit);
    std::fs::remove_dir_all(folder).unwrap();
    (verdict, lines.iter().map(|line| line.result).collect())
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_document_keeps_its_folder_files_and_variables() {
    let text = "```yaml file=a/b.yaml\nx: 1\n```\n```console\n$ cd a\n$ export NAME=kapell\n$ cat b.yaml; echo $NAME >&2\nx: 1\nkapell\n```\n";
    assert_eq!(results("state", text, LONG), (Verdict::Holds, vec!["written", "passed", "passed", "passed"]));
}

#[test]
fn a_wrong_output_or_status_fails_and_ends_the_document() {
    let wrong = "```console\n$ echo one\ntwo\n$ echo three\n```\n";
    assert_eq!(results("output", wrong, LONG), (Verdict::Broken, vec!["FAILED"]));
    let status = "```console\n$ echo one; exit 3\none\n$ echo three\n```\n";
    assert_eq!(results("status", status, LONG), (Verdict::Broken, vec!["FAILED"]));
}

#[test]
fn a_command_that_does_not_end_is_ended() {
    let watch = Stopwatch::start();
    let text = "```console\n$ sleep 600\n```\n";
    assert_eq!(results("slow", text, Duration::from_millis(200)), (Verdict::Broken, vec!["FAILED"]));
    assert!(watch.elapsed() < LONG);
}

#[test]
fn background_commands_are_waited_for_and_ended() {
    let text = "```console\n$ (echo $$ > pid; sleep 0.3; echo ready; sleep 600) &\nready\n$ kill -0 $(cat pid)\n```\n";
    let (verdict, lines, folder) = document("background", text, LONG);
    assert_eq!((verdict, lines.len()), (Verdict::Holds, 2));
    assert!(!runs(&folder), "the background command still runs");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_a_command_leaves_running_is_ended() {
    let text = "```console\n$ sleep 600 & echo $! > pid; echo started\nstarted\n```\n";
    let (verdict, _, folder) = document("left", text, LONG);
    assert_eq!(verdict, Verdict::Holds);
    let watch = Stopwatch::start();
    while runs(&folder) {
        assert!(watch.elapsed() < LONG, "the command that was left still runs");
        nap();
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// Whether the process runs whose id the document wrote to `pid`. One that ended and was not reaped has no command.
fn runs(folder: &Path) -> bool {
    let pid = std::fs::read_to_string(folder.join("pid")).unwrap();
    std::fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|command| !command.is_empty())
}

#[test]
fn a_background_command_that_dies_fails_its_document() {
    let early = "```console\n$ (echo ready; exit 7) &\nready\n$ sleep 0.5\n```\n";
    assert_eq!(results("early", early, LONG).0, Verdict::Broken);
    let silent = "```console\n$ true &\nready\n```\n";
    assert_eq!(results("silent", silent, LONG), (Verdict::Broken, vec!["FAILED"]));
}

#[test]
fn a_failure_shows_what_was_printed() {
    let failure = Failure::Missing { command: "ls".into(), expected: "a".into(), output: "b\nc\n".into() };
    let text = failure.to_string();
    assert!(text.contains("`ls`") && text.contains("    a\n") && text.ends_with("    b\n    c"), "{text}");
}
