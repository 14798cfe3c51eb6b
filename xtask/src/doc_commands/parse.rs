//! Which commands a document shows.
//!
//! Owns: the notation of blocks. Never: runs anything.

/// Commands that bring a reader to the place where the documents start.
const KNOWN: &[&str] = &["cargo xtask test", "cd kapell"];
const KNOWN_BEGINNINGS: &[&str] = &["git clone "];
const NOT_RUN: &str = "<!-- not run:";

/// One thing to do, in the order of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A file that the document shows.
    Write { line: usize, name: String, text: String },
    /// A command, and lines that its output must have in this order.
    Run { line: usize, command: String, expected: Vec<String>, mode: Mode },
}

/// How a command is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Until it ends.
    Foreground,
    /// Until the document ends.
    Background,
    /// Not at all: whoever reads it here has done it.
    Known,
}

/// Why a document cannot be run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) line: usize,
    pub(super) text: String,
}

impl Step {
    pub(super) fn line(&self) -> usize {
        match self {
            Step::Write { line, .. } | Step::Run { line, .. } => *line,
        }
    }

    pub(super) fn title(&self) -> String {
        match self {
            Step::Write { name, .. } => format!("(write {name})"),
            Step::Run { command, .. } => command.replace('\n', " "),
        }
    }

    pub(super) fn is_run(&self) -> bool {
        match self {
            Step::Write { .. } => false,
            Step::Run { mode, .. } => *mode != Mode::Known,
        }
    }

    /// Whether it needs the binary.
    pub(super) fn names_kapell(&self) -> bool {
        match self {
            Step::Write { .. } => false,
            Step::Run { command, mode, .. } => {
                let command = substitute(command, "");
                *mode != Mode::Known
                    && command.split(|c: char| !c.is_alphanumeric() && c != '-').any(|w| w == "kapell")
            }
        }
    }
}

/// The command as it is run here: the binary is built already, and so is xtask.
pub(super) fn substitute(command: &str, xtask: &str) -> String {
    command.replace("cargo run --release -- ", "kapell ").replace("cargo xtask ", &format!("{xtask} "))
}

/// A fenced block.
struct Block {
    /// Of its first line inside the fence.
    line: usize,
    info: String,
    lines: Vec<String>,
}

/// All steps of a document.
pub(super) fn parse(text: &str) -> Result<Vec<Step>, Problem> {
    let mut steps = Vec::new();
    let mut before = "";
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some((fence, info)) = fence(line) else {
            before = line;
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let mut block = Block { line: at + 2, info: info.to_owned(), lines: Vec::new() };
        loop {
            let Some((_, line)) = lines.next() else {
                return Err(problem(at + 1, "this block does not end"));
            };
            if line.trim().len() >= fence && line.trim().chars().all(|c| c == '`') {
                break;
            }
            block.lines.push(line.get(indent..).unwrap_or(line.trim_start()).to_owned());
        }
        if !is_left_out(before, at)? {
            steps.extend(block.steps()?);
        }
        before = "";
    }
    Ok(steps)
}

/// The number of its backticks and what follows them.
fn fence(line: &str) -> Option<(usize, &str)> {
    let line = line.trim_start();
    let info = line.trim_start_matches('`');
    let ticks = line.len() - info.len();
    (ticks >= 3 && !info.contains('`')).then_some((ticks, info.trim()))
}

fn is_left_out(before: &str, line: usize) -> Result<bool, Problem> {
    let Some(reason) = before.trim().strip_prefix(NOT_RUN) else { return Ok(false) };
    match reason.strip_suffix("-->").map(str::trim) {
        None | Some("") => Err(problem(line, "say why it is not run: <!-- not run: REASON -->")),
        Some(_) => Ok(true),
    }
}

fn problem(line: usize, text: &str) -> Problem {
    Problem { line, text: text.to_owned() }
}

impl Block {
    fn steps(self) -> Result<Vec<Step>, Problem> {
        let mut words = self.info.split_whitespace();
        let language = words.next().unwrap_or_default();
        if let Some(name) = words.find_map(|word| word.strip_prefix("file=")) {
            return self.write(name).map(|step| vec![step]);
        }
        match language {
            "console" => self.commands(),
            // A plain script shows no output, so each of its lines is a command.
            "sh" if !self.lines.iter().any(|line| line.starts_with("$ ")) => self.script().commands(),
            "sh" => self.commands(),
            _ => Ok(Vec::new()),
        }
    }

    fn write(&self, name: &str) -> Result<Step, Problem> {
        if name.starts_with('/') || name.split('/').any(|part| part == ".." || part.is_empty()) {
            return Err(problem(self.line - 1, "a file is written below the folder of the document"));
        }
        let text = self.lines.iter().map(|line| format!("{line}\n")).collect();
        Ok(Step::Write { line: self.line - 1, name: name.to_owned(), text })
    }

    fn script(self) -> Self {
        let mut continues = false;
        let prompt = |line: String| {
            let is_command = !continues && !line.trim().is_empty() && !line.starts_with('#');
            continues = line.ends_with('\\');
            match (is_command, line.starts_with('#')) {
                (true, _) => format!("$ {line}"),
                (false, true) => String::new(),
                (false, false) => line,
            }
        };
        Self { lines: self.lines.into_iter().map(prompt).collect(), ..self }
    }

    fn commands(self) -> Result<Vec<Step>, Problem> {
        let mut steps: Vec<Step> = Vec::new();
        let mut continues = false;
        for (at, written) in self.lines.iter().enumerate() {
            let line = self.line + at;
            if let Some(command) = written.strip_prefix("$ ").filter(|_| !continues) {
                let (command, mode) = (command.trim().to_owned(), Mode::Foreground);
                steps.push(Step::Run { line, command, expected: Vec::new(), mode });
                continues = written.ends_with('\\');
                continue;
            }
            match steps.last_mut() {
                Some(Step::Run { command, .. }) if continues => {
                    command.push('\n');
                    command.push_str(written);
                    continues = written.ends_with('\\');
                }
                Some(Step::Run { expected, .. }) if !written.trim().is_empty() => {
                    expected.push(written.clone())
                }
                Some(Step::Run { .. } | Step::Write { .. }) => {}
                None if written.trim().is_empty() => {}
                None => return Err(problem(line, "a command begins with `$ `; this line comes before any")),
            }
        }
        if steps.is_empty() {
            return Err(problem(self.line - 1, "a block without a command: each begins with `$ `"));
        }
        steps.iter_mut().for_each(set_mode);
        Ok(steps)
    }
}

fn set_mode(step: &mut Step) {
    let Step::Run { command, mode, .. } = step else { return };
    let begins = KNOWN_BEGINNINGS.iter().any(|beginning| command.starts_with(beginning));
    if begins || KNOWN.contains(&command.as_str()) {
        *mode = Mode::Known;
    } else if let Some(foreground) = command.strip_suffix(" &") {
        *mode = Mode::Background;
        *command = foreground.trim().to_owned();
    }
}
